"""The shape of the three packages: one name for one thing, and no file too long to read at once."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("pesto_runtime", "pesto_airflow", "pesto_conductor")
LONGEST_FILE = 400


def sources(root: Path) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def classes_of_one_name(root: Path) -> dict[str, list[str]]:
    """Public class name -> the files that define it, where there are several."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sources(root):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(root)))
    return {name: files for name, files in found.items() if len(files) > 1}


def stems_of_one_package(root: Path) -> dict[tuple[str, str], list[str]]:
    """Package and module name -> its files, where there are several."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sources(root):
        if path.stem != "__init__":
            relative = path.relative_to(root)
            found[relative.parts[0], path.stem].append(str(relative))
    return {key: files for key, files in found.items() if len(files) > 1}


def long_files(root: Path) -> dict[str, int]:
    """File -> its lines, where there are more than `LONGEST_FILE`."""
    lines = {path: len(path.read_text().splitlines()) for path in sources(root)}
    return {
        str(path.relative_to(root)): count for path, count in lines.items() if count > LONGEST_FILE
    }


def test_no_two_public_classes_have_one_name() -> None:
    """A class name leads to one definition, in whichever package."""
    assert classes_of_one_name(ROOT) == {}


def test_no_two_modules_of_a_package_have_one_name() -> None:
    """A module name leads to one file of a package."""
    assert stems_of_one_package(ROOT) == {}


def test_no_file_is_too_long() -> None:
    """A file can be read as one story."""
    assert long_files(ROOT) == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_there_are_files_to_look_at(package: str) -> None:
    """The control of the search: each package is found."""
    assert any(path.relative_to(ROOT).parts[0] == package for path in sources(ROOT))


def test_the_rules_can_fail(tmp_path: Path) -> None:
    """The control: a second class, a second module and a long file are each found."""
    for folder in ("client", "service"):
        path = tmp_path / "pesto_runtime" / folder / "watch.py"
        path.parent.mkdir(parents=True)
        path.write_text("class Watch:\n    pass\n" + "#\n" * LONGEST_FILE)
    files = ["pesto_runtime/client/watch.py", "pesto_runtime/service/watch.py"]
    assert classes_of_one_name(tmp_path) == {"Watch": files}
    assert stems_of_one_package(tmp_path) == {("pesto_runtime", "watch"): files}
    assert long_files(tmp_path) == dict.fromkeys(files, LONGEST_FILE + 2)
