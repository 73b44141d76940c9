"""A target becomes a processor: from a file, a module; cached; told clearly when it cannot be."""

import os
import py_compile
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pesto_runtime.errors import AlgorithmFailed, InvalidContract, InvalidInput, NotFound
from pesto_runtime.processor import load_processor

SOURCE = '''"""A process."""
from pesto_runtime import process
from sibling import FACTOR

@process(version="1.0.0")
def times(x: float) -> float:
    """Multiply."""
    return FACTOR * x

def helper(x: float) -> float:
    return x
'''


def authored(folder: Path, factor: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sibling.py").write_text(f"FACTOR = {factor}\n")
    (folder / "algo.py").write_text(SOURCE)
    return folder / "algo.py"


def test_a_sibling_runs_as_its_source_says_and_not_as_stale_bytecode(tmp_path):
    """Python (control) takes bytecode of the same size and second for that of the source."""
    target = authored(tmp_path, factor=2)
    sibling = tmp_path / "sibling.py"
    py_compile.compile(str(sibling), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    compiled_at = sibling.stat().st_mtime
    sibling.write_text("FACTOR = 3\n")
    os.utime(sibling, (compiled_at, compiled_at))
    command = [sys.executable, "-c", "import sibling; print(sibling.FACTOR)"]
    control = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert control.stdout == b"2\n"
    assert load_processor(f"{target}:times").run({"x": 1}) == {"result": 3}


def test_a_file_may_import_its_siblings_and_leaves_no_trace(tmp_path):
    """Neither sys.path nor sys.modules knows of the directory afterwards."""
    authored(tmp_path)
    before = list(sys.path)
    processor = load_processor("algo.py:times", base=tmp_path)
    assert processor.run({"x": 3}) == {"result": 6}
    assert sys.path == before
    assert not {"sibling", "algo"} & set(sys.modules)


def test_siblings_of_one_name_in_two_directories_do_not_meet(tmp_path):
    """Each file keeps the sibling of its own directory."""
    targets = [
        f"{authored(tmp_path / name, factor)}:times" for name, factor in [("a", 2), ("b", 5)]
    ]
    results = [load_processor(target).run({"x": 1})["result"] for target in targets]
    assert results == [2, 5]


def test_loading_again_is_the_same_processor_until_a_source_changes(tmp_path):
    """The file or a sibling; the build changes with it, and an edit within one second counts."""
    target = f"{authored(tmp_path)}:times"
    first = load_processor(target)
    assert load_processor(target) is first
    time.sleep(0.01)
    authored(tmp_path, factor=3)
    second = load_processor(target)
    assert second.run({"x": 1}) == {"result": 3}
    assert second.build != first.build
    time.sleep(0.01)
    (tmp_path / "algo.py").write_text(SOURCE.replace("FACTOR * x", "FACTOR + x"))
    third = load_processor(target)
    assert third.run({"x": 1}) == {"result": 4}
    assert len({first.build, second.build, third.build}) == 3


def test_the_build_is_of_the_sources_and_not_of_the_place(tmp_path):
    """The same sources in another directory are the same build; a run there can reuse blocks."""
    builds = {load_processor(f"{authored(tmp_path / name)}:times").build for name in "ab"}
    assert len(builds) == 1
    assert builds.pop().startswith("sha256:")


def test_a_module_is_a_target_as_well():
    """`package.module:function`, importable from the base directory."""
    processor = load_processor("examples.verdict:verdict", base=Path(__file__).parents[3])
    assert processor.run({"fraction": 0.2}) == {"verdict": "usable"}


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [("nosuch.py:f", NotFound, r"no such file; beside it: algo.py, sibling.py"),
     ("algo.py:nosuch", NotFound, r"no process 'nosuch'; there is algo.py:times"),
     ("algo.py", NotFound, r"name its function; there is algo.py:times"),
     ("sibling.py:x", NotFound, r"no process 'x'; the module has none"),
     ("algo.py:helper", InvalidContract, r"helper is not a process: decorate it.*algo.py:times"),
     ("nosuch.module:f", NotFound, r"no such module; a target is"),
     ("json:dumps", InvalidContract, r"dumps is not a process"),
     (":f", NotFound, r"no such module"), ("no such", NotFound, r"a target is file.py:function"),
     (".", NotFound, r"not a PESTO project")],
)  # fmt: skip
def test_a_target_that_names_nothing_is_told_with_what_is_there(tmp_path, target, error, message):
    """Every way to mistype one."""
    authored(tmp_path)
    with pytest.raises(error, match=message):
        load_processor(target, base=tmp_path)


def test_profiles_of_a_function_are_refused(tmp_path):
    """Only a PESTO project has profiles; dropping them in silence would be a lie."""
    with pytest.raises(InvalidInput, match="profiles"):
        load_processor(f"{authored(tmp_path)}:times", profiles=["gpu"])


@pytest.mark.parametrize(
    ("source", "message"),
    [("import nosuchthing\n", r"ModuleNotFoundError.*\(bad.py:1\)"),
     ("x = 1\ny = x / 0\n", r"ZeroDivisionError.*\(bad.py:2\)"),
     ("def f(:\n", r"SyntaxError.*\(bad.py:1\)")],
)  # fmt: skip
def test_code_that_raises_when_it_is_loaded_is_told_with_its_line(tmp_path, source, message):
    """And nothing of it stays behind: mended, it loads."""
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(AlgorithmFailed, match=message):
        load_processor("bad.py:times", base=tmp_path)
    (tmp_path / "sibling.py").write_text("FACTOR = 1\n")
    (tmp_path / "bad.py").write_text(SOURCE)
    assert load_processor("bad.py:times", base=tmp_path).run({"x": 1}) == {"result": 1}


def test_a_module_that_raises_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    """`pkg.mod` is there; what it imports is not."""
    (tmp_path / "brokenmod.py").write_text("import nosuchthing\n")
    with pytest.raises(AlgorithmFailed, match="nosuchthing"):
        load_processor("brokenmod:f", base=tmp_path)


def test_a_file_that_loads_another_target_while_it_loads_is_refused_and_does_not_hang(tmp_path):
    """Two module spaces in one thread would wait for each other for ever."""
    other = authored(tmp_path / "other")
    (tmp_path / "outer.py").write_text(
        "from pesto_runtime.processor import load_processor\n"
        f"load_processor({str(other) + ':times'!r})\n"
    )
    with pytest.raises(InvalidContract, match="load it before"):
        load_processor("outer.py:f", base=tmp_path)


def test_the_processor_package_stays_light():
    """Only numpy and pydantic: no rasterio, HTTP, object store or jsonschema at import."""
    code = (
        "import sys, pesto_runtime.processor\n"
        "heavy = {'rasterio', 'httpx', 'fastapi', 'uvicorn', 'obstore', 'jsonschema', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
