"""The architecture pages name the files, functions and classes that exist."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from tests.docs.markdown import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = ROOT / "docs" / "architecture"
_TABLE = re.compile(r"^## ([\w/]+)\n+[^|]*?((?:^\|.*\n)+)", re.MULTILINE)
_ROW = re.compile(r"^\| `([\w.]+)` \|", re.MULTILINE)
_FILE = re.compile(r"`((?:[\w-]+/)*\w+\.py)`((?: \|)?(?:,? `\w+`)*)")


def test_every_file_of_a_package_is_in_its_table():
    """The tables list all modules of the three packages, and no other file."""
    text = (PAGES / "files.md").read_text()
    assert files_listed(text) == files_there()


def test_every_name_beside_a_file_is_defined_in_it():
    """Each name that follows a file on the pages is a definition of that file."""
    text = "\n".join((PAGES / name).read_text() for name in ("index.md", "who-calls-what.md"))
    found = list(names_of(text))
    assert len(found) > 100
    wrong = [f"{file}: {name}" for file, name in found if name not in defined(file)]
    assert wrong == []


def test_a_missing_file_or_name_is_noticed():
    """The control: a file too few, a name that another file defines."""
    page = "## a/b\n\nText.\n\n| file | content |\n|---|---|\n| `c.py` | text |\n"
    assert files_listed(page) == {"a/b/c.py"}
    assert list(names_of("| x | `raster/opening.py` | `DRIVERS`, `nowhere` |")) == [
        ("raster/opening.py", ""),
        ("raster/opening.py", "DRIVERS"),
        ("raster/opening.py", "nowhere"),
    ]
    assert "DRIVERS" in defined("raster/opening.py")
    assert "nowhere" not in defined("raster/opening.py")
    assert "" not in defined("raster/no_such_file.py")


def test_every_threat_has_a_test_that_exists():
    """The page of threats names a file and the begin of a test; the control names none."""
    text = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"\| `([\w/]+\.py)` `(test_\w+)` \|$", text, re.MULTILINE)
    assert len(rows) == text.count("\n| ") - 1  # the head of the table is no row
    assert [row for row in rows if not _is_test(*row)] == []
    assert not _is_test("contract/test_ogc.py", "test_no_such_thing")


def _is_test(file: str, begin: str) -> bool:
    return f"\ndef {begin}" in (ROOT / "tests" / file).read_text()


def files_listed(text: str) -> set[str]:
    """Files in the tables of a page, as paths from the root."""
    return {
        f"{folder}/{name}" for folder, rows in _TABLE.findall(text) for name in _ROW.findall(rows)
    }


def files_there() -> set[str]:
    """Modules of the three packages; an `__init__.py` only where it defines a class."""
    found = (
        path
        for name in ("runtime", "airflow", "conductor")
        for path in (ROOT / f"pesto_{name}").rglob("*.py")
    )
    return {
        path.relative_to(ROOT).as_posix()
        for path in found
        if path.name != "__init__.py" or re.search(r"^class ", path.read_text(), re.MULTILINE)
    }


def names_of(text: str) -> Iterator[tuple[str, str]]:
    """Each file of a text, with an empty name, and then with each name that follows it."""
    for file, names in _FILE.findall(text):
        yield file, ""
        for name in re.findall(r"\w+", names):
            yield file, name


def defined(file: str) -> set[str]:
    """Names that a file defines at its top, and an empty one; nothing if it does not exist."""
    path = next((each for each in _places(file) if each.exists()), None)
    if path is None:
        return set()
    names = {""}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                each.id
                for target in targets
                for each in ast.walk(target)
                if isinstance(each, ast.Name)
            }
    return names


def _places(file: str) -> tuple[Path, Path]:
    return ROOT / file, ROOT / "pesto_runtime" / file
