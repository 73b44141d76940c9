"""The build of a process: which files change it, and which do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pesto_runtime.processor import load_processor
from pesto_runtime.processor.project_files import project_build

PROJECT = Path("tests/data/pesto_project")
FUNCTION = """
import pesto_runtime
from {place}helpers.inner import added
@pesto_runtime.process(version="1")
def plus(number: float) -> float:
    return number + added
"""
BUILD = """
import sys
from pesto_runtime.processor import load_processor
print(load_processor(sys.argv[1]).build)
"""
RUN = """
from pesto_runtime.processor import load_processor
print(*load_processor("quick.steps:plus").run({"number": 1.0}).values())
"""


def written(folder: Path, *, place: str = "", added: int = 1) -> Path:
    """Write a file with a process, and a package that it imports."""
    (folder / "helpers").mkdir(parents=True, exist_ok=True)
    (folder / "helpers" / "__init__.py").touch()
    (folder / "helpers" / "inner.py").write_text(f"added = {added}\n")
    (folder / "steps.py").write_text(FUNCTION.format(place=place))
    return folder


def build_elsewhere(target: str, base: Path) -> str:
    """The build of a target in a process that has loaded nothing."""
    command = [sys.executable, "-c", BUILD, target]
    done = subprocess.run(command, cwd=base, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_module_that_a_file_imports_is_part_of_its_build(tmp_path: Path) -> None:
    """Of a package beside it, too; a file beside it that it does not import (control) is not."""
    target = f"{written(tmp_path / 'a')}/steps.py:plus"
    before = load_processor(target).build
    (tmp_path / "a" / "unrelated.py").write_text("x = 1\n")
    assert load_processor(target).build == before
    written(tmp_path / "a", added=7)
    after = load_processor(target)
    assert after.build != before
    assert [*after.run({"number": 1.0}).values()] == [8.0]


def test_all_modules_of_a_package_are_part_of_its_build(tmp_path: Path) -> None:
    """Whichever of them the process imports: each worker must get the same build."""
    package = written(tmp_path / "shop", place="shop.")
    (package / "__init__.py").touch()
    before = build_elsewhere("shop.steps:plus", tmp_path)
    assert build_elsewhere("shop.steps:plus", tmp_path) == before
    written(package, place="shop.", added=7)
    after = build_elsewhere("shop.steps:plus", tmp_path)
    assert after != before
    (package / "notes.txt").write_text("not code")
    for other in (".venv/lib", "env/lib/python3.11", "node-modules"):  # no names of packages
        (package / other).mkdir(parents=True)
        (package / other / "module.py").touch()
    assert build_elsewhere("shop.steps:plus", tmp_path) == after
    (package / "more").mkdir()
    (package / "more" / "module.py").touch()
    assert build_elsewhere("shop.steps:plus", tmp_path) != after


def test_a_package_that_was_imported_keeps_the_build_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python does not import it again after an edit: neither code nor build may change."""
    package = written(tmp_path / "kept_shop", place="kept_shop.")
    (package / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    first = load_processor("kept_shop.steps:plus")
    written(package, place="kept_shop.", added=7)
    again = load_processor("kept_shop.steps:plus")
    assert again.build == first.build
    assert again.run({"number": 1.0}) == first.run({"number": 1.0})
    assert build_elsewhere("kept_shop.steps:plus", tmp_path) != first.build


def test_a_quick_edit_of_a_package_is_compiled(tmp_path: Path) -> None:
    """Of the same size, within a second: no stale bytecode runs under the new build."""
    package = written(tmp_path / "quick", place="quick.")
    (package / "__init__.py").touch()
    command = [sys.executable, "-c", RUN]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    told = []
    for added in (1, 7):
        written(package, place="quick.", added=added)
        for file in package.rglob("*.py"):
            os.utime(file, (1_700_000_000, 1_700_000_000))
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True, env=environment
        )
        told.append(float(done.stdout))
    assert told == [2.0, 8.0]


@pytest.mark.parametrize(
    "name",
    [
        "algorithm/process.py",
        "algorithm/deep/weights.bin",
        "algorithm/table.csv",
        "pesto/api/description.json",
        "pesto/build/build.json",
        "helper.py",
        "extras/inner/part.py",
    ],
)
def test_each_file_that_a_project_computes_with_changes_its_build(
    tmp_path: Path, name: str
) -> None:
    """Code and data; an equal file in another folder (control) is the same build."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project)
    file = project / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    before = project_build(project)
    shutil.copytree(project, tmp_path / "copy")
    assert project_build(tmp_path / "copy") == before
    file.write_bytes(file.read_bytes() + b" ")
    assert project_build(project) != before


@pytest.mark.parametrize("name", ["README.md", "algorithm/__pycache__/x.cpython-311.pyc"])
def test_other_files_of_a_project_do_not_change_its_build(tmp_path: Path, name: str) -> None:
    """Texts, and bytecode that Python writes by itself."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project)
    before = project_build(project)
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_bytes(b"x")
    assert project_build(project) == before
