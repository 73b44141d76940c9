"""A file that is edited while it is imported: the build is that of the code that runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.processor import load_processor
from pesto_runtime.processor.project_files import project_build
from tests.support.commands import waited

if TYPE_CHECKING:
    from collections.abc import Callable

    from pesto_runtime.processor.protocol import Processor

SLOW = """
import time
from pathlib import Path
import pesto_runtime
from {helper} import ADD
here = Path(__file__).parent
(here / "begun").touch()
while not (here / "edited").exists():
    time.sleep(0.01)
@pesto_runtime.process(version="1")
def plus(number: float) -> float:
    return number + ADD + 0
"""
TOLD = """
import sys
from pesto_runtime.processor import load_processor
found = load_processor(sys.argv[1])
print(found.build, *found.run({"number": 1.0}).values())
"""
PROJECT = """
import time
from pathlib import Path
from helper import ADD
here = Path(__file__).parents[1]
(here / "begun").touch()
while not (here / "edited").exists():
    time.sleep(0.01)
from late import MORE

class Process:
    def process(self, number):
        return {"number": number + ADD + MORE}
"""
ALSO = """
import pesto_runtime
@pesto_runtime.process(version="1")
def same(number: float) -> float:
    return number
"""


def written(folder: Path, *, helper: str = "helper", add: int = 1) -> Path:
    """Write a file whose import takes until `edited` exists, and a module that it imports."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "helper.py").write_text(f"ADD = {add}\n")
    (folder / "steps.py").write_text(SLOW.format(helper=helper))
    return folder


def project(folder: Path) -> Path:
    """Write a project that imports a module, waits until `edited` exists, and imports another."""
    ports = json.dumps({"number": {"type": "number"}})
    texts = {
        "algorithm/process.py": PROJECT, "helper.py": "ADD = 1\n", "late.py": "MORE = 1\n",
        "pesto/api/description.json": json.dumps({"name": "slow", "version": "1.0"}),
        "pesto/api/input_schema.json": ports, "pesto/api/output_schema.json": ports,
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def loaded_during(folder: Path, target: str, change: Callable[[], object]) -> Processor:
    """Load a target; change something while it is imported."""

    def changed() -> None:
        waited((folder / "begun").exists)
        change()
        (folder / "edited").touch()

    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(changed)
        found = load_processor(target, base=folder.parent)
        done.result()
    return found


def replaced(file: Path, edit: tuple[str, str]) -> Callable[[], object]:
    """Replaces a text in a file."""
    return lambda: file.write_text(file.read_text().replace(*edit))


def nothing() -> None:
    """Changes nothing."""


def result(processor: Processor) -> float:
    (value,) = processor.run({"number": 1.0}).values()
    assert isinstance(value, float)
    return value


def told(folder: Path, module: str) -> tuple[str, float]:
    """Build and result of a process that has loaded nothing."""
    (folder / "edited").touch()
    command = [sys.executable, "-c", TOLD, f"{module}:plus"]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=True)
    build, value = done.stdout.split()
    return build, float(value)


def hashed(folder: Path, *names: str) -> str:
    """The build of files, by its definition."""
    files = [(name, (folder / name).read_bytes()) for name in sorted(names)]
    texts = [b"file\0%b\0%d\0%b" % (name.encode(), len(text), text) for name, text in files]
    return "sha256:" + hashlib.sha256(b"".join(texts)).hexdigest()


@pytest.mark.parametrize(
    ("name", "edit", "after"),
    [
        ("helper.py", ("ADD = 1", "ADD = 2"), 3.0),  # of the same size
        ("helper.py", ("ADD = 1", "ADD = 20"), 21.0),
        ("steps.py", ("ADD + 0", "ADD + 5"), 7.0),
    ],
)
def test_a_file_that_is_edited_during_its_import_has_the_build_of_the_code_that_runs(
    tmp_path: Path, name: str, edit: tuple[str, str], after: float
) -> None:
    """The next load gets the new code and its build."""
    folder = written(tmp_path / "edited")
    target = f"{folder}/steps.py:plus"
    old = hashed(folder, "helper.py", "steps.py")
    first = loaded_during(folder, target, replaced(folder / name, edit))
    new = hashed(folder, "helper.py", "steps.py")
    assert (first.build, result(first)) == (old, 2.0)
    second = load_processor(target)
    assert (second.build, result(second)) == (new, after)
    assert old != new
    assert load_processor(target) is second


def test_a_file_that_is_not_edited_is_loaded_once(tmp_path: Path) -> None:
    """The control: the slow import has the build of its files, and remains loaded."""
    folder = written(tmp_path / "kept")
    target = f"{folder}/steps.py:plus"
    first = loaded_during(folder, target, nothing)
    assert (first.build, result(first)) == (hashed(folder, "helper.py", "steps.py"), 2.0)
    assert load_processor(target) is first


def test_a_file_that_is_replaced_by_one_of_its_time_is_loaded_again(tmp_path: Path) -> None:
    """As `cp -p` and `rsync -t` do: another file of the same size and modification time."""
    folder = written(tmp_path / "replaced")
    target = f"{folder}/steps.py:plus"
    assert result(loaded_during(folder, target, nothing)) == 2.0
    helper = folder / "helper.py"
    (folder / "next").write_text("ADD = 2\n")
    os.utime(folder / "next", ns=(time.time_ns(), helper.stat().st_mtime_ns))
    (folder / "next").replace(helper)
    assert result(load_processor(target)) == 3.0


def test_a_library_that_is_replaced_during_the_import_has_the_build_of_its_old_bytes(
    tmp_path: Path,
) -> None:
    """A module of machine code in a package beside a file, for example one of Cython."""
    example = find_spec("xxlimited")
    if example is None or example.origin is None:
        pytest.skip("this Python has no example of a module of machine code")
    folder = written(tmp_path / "library")
    library = folder / "parts" / Path(example.origin).name
    library.parent.mkdir()
    (folder / "parts" / "__init__.py").touch()
    library.write_bytes(Path(example.origin).read_bytes())
    (folder / "helper.py").write_text("from parts import xxlimited\nADD = 1\n")
    (folder / "newer").write_bytes(library.read_bytes() + b"\0")
    target = f"{folder}/steps.py:plus"
    names = ("helper.py", "parts/__init__.py", f"parts/{library.name}", "steps.py")
    old = hashed(folder, *names)
    first = loaded_during(folder, target, lambda: (folder / "newer").replace(library))
    assert first.build == old != hashed(folder, *names)
    assert load_processor(target).build == hashed(folder, *names)


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("helper.py", ("ADD = 1", "ADD = 2")),
        ("steps.py", ("ADD + 0", "ADD + 1")),
        ("__init__.py", ("ADD = 1", "ADD = 2")),
    ],
)
def test_a_package_that_is_edited_during_its_import_has_the_build_of_the_code_that_runs(
    tmp_path: Path, name: str, edit: tuple[str, str]
) -> None:
    """Python does not import it again: old code, old build; another process has the new ones."""
    package = f"edited_{name.partition('.')[0].strip('_')}"
    in_init = name == "__init__.py"
    folder = written(tmp_path / package, helper=package if in_init else f"{package}.helper")
    if in_init:
        (folder / "helper.py").rename(folder / "__init__.py")
    (folder / "more.py").write_text(ALSO)
    before = told(folder, f"{package}.steps")
    for sign in ("begun", "edited"):
        (folder / sign).unlink()
    target = f"{package}.steps:plus"
    first = loaded_during(folder, target, replaced(folder / name, edit))
    assert (first.build, result(first)) == before == (before[0], 2.0)
    assert load_processor(target, base=tmp_path) is first
    assert load_processor(f"{package}.more:same", base=tmp_path).build == before[0]
    after = told(folder, f"{package}.steps")
    assert after[0] != before[0]
    assert after[1] == 3.0


@pytest.mark.parametrize(
    ("name", "edit", "found", "after"),
    [
        ("helper.py", ("ADD = 1", "ADD = 2"), ("old", 3.0), ("new", 4.0)),
        ("algorithm/process.py", ("+ ADD", "- ADD"), ("old", 3.0), ("new", 1.0)),
        ("late.py", ("MORE = 1", "MORE = 2"), ("new", 4.0), ("new", 4.0)),
        ("pesto/api/description.json", ("1.0", "2.0"), ("new", 3.0), ("new", 3.0)),
        ("helper.py", ("ADD", "ADD"), ("old", 3.0), ("old", 3.0)),  # control
    ],
)
def test_a_project_that_is_edited_during_its_import_has_the_build_of_what_it_has_read(
    tmp_path: Path,
    name: str,
    edit: tuple[str, str],
    found: tuple[str, float],
    after: tuple[str, float],
) -> None:
    """Before the edit or after it; JSON files, too, which are read before the code."""
    folder = project(tmp_path / "edited")
    builds = {"old": project_build(folder)}
    first = loaded_during(folder, str(folder), replaced(folder / name, edit))
    builds["new"] = project_build(folder)
    assert (first.build, result(first)) == (builds[found[0]], found[1])
    again = load_processor(str(folder))
    assert (again.build, result(again)) == (builds[after[0]], after[1])
    assert (
        again.description.version
        == json.loads((folder / "pesto/api/description.json").read_text())["version"]
    )
    assert load_processor(str(folder)) is again


def test_a_project_that_writes_a_file_when_it_is_imported_is_loaded(tmp_path: Path) -> None:
    """Another file each time: it is not loaded for ever."""
    folder = project(tmp_path / "writing")
    code = folder / "algorithm" / "process.py"
    code.write_text(code.read_text() + "(here / 'algorithm' / f'{time.time_ns()}.txt').touch()\n")
    assert result(loaded_during(folder, str(folder), nothing)) == 3.0
    assert len([*(folder / "algorithm").glob("*.txt")]) == 3


def test_a_quick_edit_of_a_packages_init_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same size and time: no stale bytecode runs under the new build."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    folder = written(tmp_path / "quick_init", helper="quick_init")
    found = []
    for add in (1, 7):
        (folder / "__init__.py").write_text(f"ADD = {add}\n")
        os.utime(folder / "__init__.py", (1_700_000_000, 1_700_000_000))
        found.append(told(folder, "quick_init.steps"))
    assert [value for _, value in found] == [2.0, 8.0]
    assert found[0][0] != found[1][0]
