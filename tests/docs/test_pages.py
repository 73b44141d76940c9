"""The pages speak of what is there: files, names, commands, options, errors and fields."""

from __future__ import annotations

import functools
import importlib
import re
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest
import typer.main
from typer.core import TyperCommand, TyperGroup

import pesto_runtime
from pesto_runtime.cli.main import app
from pesto_runtime.contract import (
    CallOptions,
    DescriptionDocument,
    Pipeline,
    RasterContract,
    TileInfo,
)
from pesto_runtime.errors import PestoError
from pesto_runtime.kit import pytest_plugin
from pesto_runtime.schema import MODELS
from tests.docs.markdown import ROOT, blocks, pages, prose, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import BaseModel

DOCS = ROOT / "docs"
_FOLDERS = "docs|schemas|examples|workflows|tests|benchmarks|pesto_runtime"
_FILE = re.compile(rf"`((?:{_FOLDERS})/[\w./-]*)`")
_DOTTED = re.compile(r"`(pesto_runtime(?:\.\w+)+)")


@pytest.mark.parametrize("page", pages(), ids=title_of)
def test_a_file_named_on_a_page_is_there(page: Path):
    """A path in backticks that begins with a folder of the project exists."""
    for name in _FILE.findall(prose(page)):
        assert (ROOT / name).exists(), f"{page}: `{name}`"


@pytest.mark.parametrize("page", pages(), ids=title_of)
def test_a_dotted_name_on_a_page_is_there(page: Path):
    """`pesto_runtime.module.name` can be imported."""
    for name in _DOTTED.findall(page.read_text()):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), f"{page}: `{name}`"


def test_every_public_name_is_used_or_named_on_some_page():
    """What `pesto_runtime` gives to users, users can read of."""
    told = "\n".join(page.read_text() for page in pages())
    missing = [name for name in pesto_runtime.__all__ if not re.search(rf"\b{name}\b", told)]
    assert missing in ([], ["Json"])


@pytest.mark.parametrize("page", pages(), ids=title_of)
def test_a_console_block_runs_something(page: Path):
    """A console block has commands behind `$ `, or lines of `make` whose targets there are."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for block in blocks(page):
        if block.language == "console" and not block.text.startswith("$ "):
            for line in block.text.splitlines():
                assert line.startswith("make "), f"{block.where}: {line}"
                assert line.split()[1] in targets, f"{block.where}: {line}"


@pytest.mark.parametrize("page", pages(), ids=title_of)
def test_a_command_or_option_on_a_page_is_one_of_pesto(page: Path):
    """Every `--option` in prose and every `pesto COMMAND` anywhere is one that there is."""
    known = _options() | _pytest_options()
    for option in re.findall(r"`[^`\n]*?(--[a-z][a-z-]*)[^`\n]*`", prose(page)):
        assert option in known or option == "--no-deps", f"{page}: {option}"
    shown = [*re.findall(r"`(?:\$ )?pesto ([a-z]+)", prose(page))]
    for block in blocks(page):
        if block.language == "console":
            shown += re.findall(r"^\$ (?:\w+=\S+ )?pesto ([a-z]+)", block.text, re.MULTILINE)
    assert set(shown) <= set(_group().commands), f"{page}: {shown}"


def _pytest_options() -> set[str]:
    """Options that the contract kit gives to pytest."""
    parser = pytest.Parser(_ispytest=True)
    pytest_plugin.pytest_addoption(parser)
    (group,) = [each for each in parser._groups if each.name == "pesto"]
    return {name for option in group.options for name in option.names()}


def test_the_page_of_errors_has_every_error_as_it_is():
    """A row per kind of error, with its status, exit code and whether it is retryable."""
    told = {row[0]: row[1:4] for row in _rows(DOCS / "errors" / "index.md", "slug")}
    real = {
        kind.slug: [str(kind.status), str(kind.exit_code), "yes" if kind.retryable else "no"]
        for kind in _kinds(PestoError)
    }
    assert told == real


@pytest.mark.parametrize(
    ("page", "heading", "model"),
    [
        ("contract/index.md", "key", DescriptionDocument),
        ("contract/index.md", "field", RasterContract),
        ("contract/wire.md", "option", CallOptions),
        ("contract/pipeline.md", "key", Pipeline),
    ],
)
def test_a_table_of_fields_has_every_field(page: str, heading: str, model: type[BaseModel]):
    """The fields of a value of the contract are those of its table."""
    told = {name for row in _rows(DOCS / page, heading) for name in re.split(r", *", row[0])}
    real = {field.alias or name for name, field in model.model_fields.items()}
    assert real <= told
    assert told - real <= {"family", "keywords", "organization", "email", "_links"}


def test_every_field_of_a_tile_is_told():
    """What `TileInfo` holds stands on the page of the wire."""
    told = (DOCS / "contract" / "wire.md").read_text()
    assert [name for name in TileInfo.model_fields if f"`{name}`" not in told] == []


def test_every_schema_file_is_listed():
    """The list of schema files is the list of models."""
    told = {row[0] for row in _rows(DOCS / "contract" / "index.md", "file")}
    assert told == {f"schemas/{name}.json" for name in MODELS}


def test_every_decision_is_listed():
    """Both lists of decisions link each page of them."""
    names = {page.name for page in (DOCS / "decisions").glob("0*.md")}
    for page in (DOCS / "decisions" / "index.md", DOCS / "architecture" / "index.md"):
        assert {name for name in names if f"{name})" in page.read_text()} == names


def test_what_is_not_there_is_noticed():
    """The control: the patterns find the names that they are for."""
    assert _FILE.findall("see `tests/docs/nowhere.py`") == ["tests/docs/nowhere.py"]
    assert _DOTTED.findall("`pesto_runtime.raster.Imaeg`") == ["pesto_runtime.raster.Imaeg"]


def _rows(page: Path, heading: str) -> list[list[str]]:
    """The rows of the table whose first heading is this; backticks taken off the cells."""
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        rows = [
            [cell.strip() for cell in line.strip("|").replace("`", "").split("|")]
            for line in table.splitlines()
        ]
        if rows[0][0] == heading:
            return rows[2:]
    raise AssertionError(f"{page}: no table of {heading!r}")


def _kinds(kind: type[PestoError]) -> Iterator[type[PestoError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == PestoError.__module__:
            yield from _kinds(child)


@functools.cache
def _group() -> TyperGroup:
    """The application with the commands of other packages, as `main` puts it together."""
    for entry in entry_points(group="pesto.commands"):
        app.add_typer(entry.load(), name=entry.name)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def _options() -> set[str]:
    commands = _commands(_group())
    return {option for command in commands for each in command.params for option in each.opts} | {
        "--help"
    }


def _commands(group: TyperGroup) -> Iterator[TyperCommand | TyperGroup]:
    """A group, its commands, and those of groups in it."""
    yield group
    for each in group.commands.values():
        if isinstance(each, TyperGroup):
            yield from _commands(each)
        elif isinstance(each, TyperCommand):
            yield each
