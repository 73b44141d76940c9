"""The reference is complete: every name, option, field and error that users can use has a place.

Each part compares what there is, read from the code, with the places on its pages, read from their
text. The control takes each place out of the text: it is then missing.
"""

from __future__ import annotations

import functools
import pkgutil
import re
from dataclasses import dataclass
from importlib.metadata import distribution
from typing import TYPE_CHECKING

import pytest
import typer.main
from starlette.routing import Route
from typer.core import TyperGroup

import pesto_airflow
import pesto_runtime
from docs._hooks.generated import filled
from pesto_airflow.hooks import ConnectionFields
from pesto_airflow.taskgroups import GroupSettings
from pesto_conductor.taskdefs import task_definitions
from pesto_runtime import errors
from pesto_runtime.cli.main import app
from pesto_runtime.hrefs import Gate
from pesto_runtime.processor import load_processor
from pesto_runtime.service.app import create_app
from pesto_runtime.service.threads import ThreadRunner
from tests.docs.markdown import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from typer.core import TyperCommand

DOCS = ROOT / "docs"
PACKAGES = (pesto_runtime, pesto_airflow)
_VARIABLE = re.compile(r'"([A-Z][A-Z0-9_]{5,})"')


@dataclass(frozen=True)
class Part:
    """A part of the reference.

    Attributes:
        pages: Its pages, relative to docs/.
        real: What there is.
        places: What a text has a place for.
    """

    pages: str
    real: Callable[[], set[str]]
    places: Callable[[str], set[str]]

    @functools.cached_property
    def text(self) -> str:
        """The text of its pages, as the site has it."""
        return filled("\n".join(page.read_text() for page in sorted(DOCS.glob(self.pages))))


def _public_names() -> set[str]:
    return {f"{package.__name__}.{name}" for package in PACKAGES for name in package.__all__}


def _directives(text: str) -> set[str]:
    return set(re.findall(r"^::: (\S+)", text, re.MULTILINE))


def _commands() -> set[str]:
    for entry in distribution("pesto-workflows").entry_points.select(group="pesto.commands"):
        app.add_typer(entry.load(), name=entry.name)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return set(_parameters("pesto", command))


def _parameters(path: str, command: TyperGroup | TyperCommand) -> Iterator[str]:
    yield path
    for each in command.params:
        if not getattr(each, "hidden", False) and each.param_type_name == "option":
            yield from (f"{path} {name}" for name in (*each.opts, *each.secondary_opts))
    for name, child in getattr(command, "commands", {}).items():
        yield from _parameters(f"{path} {name}", child)


def _described_commands(text: str) -> set[str]:
    found = set()
    for title, section in _sections(text):
        found.add(title)
        for options in re.findall(r"^\* `(-[^`]*)`", section, re.MULTILINE):
            found |= {
                f"{title} {name}" for name in re.findall(r"(?<![\w<])--?[a-z][\w-]*", options)
            }
    return found


def _connection_fields() -> set[str]:
    (entry,) = distribution("pesto-workflows").entry_points.select(group="apache_airflow_provider")
    (kind,) = entry.load()()["connection-types"]
    return {*ConnectionFields.__annotations__, *(f"extra: {name}" for name in kind["conn-fields"])}


def _task_inputs() -> set[str]:
    return {
        f"{task.name} {name}"
        for task in task_definitions()
        for name in task.input_schema["properties"]  # type: ignore[union-attr]  # an object
    }


def _described_inputs(text: str) -> set[str]:
    return {f"{title} {name}" for title, part in _sections(text) for name in _first_cells(part)}


def _variables() -> set[str]:
    folders = (ROOT / name for name in ("pesto_runtime", "pesto_airflow", "pesto_conductor"))
    texts = (file.read_text() for folder in folders for file in folder.rglob("*.py"))
    return {name for text in texts for name in _variables_in(text)}


def _variables_in(text: str) -> Iterator[str]:
    """The variables that a module reads; a constant stands for what it is assigned."""
    for key in re.findall(r"environ(?:\.\w+)?[(\[]([\w\"]+)", text):
        line = re.search(rf"^[\w, ]*\b{key}\b[\w, ]* = .*$", text, re.MULTILINE)
        yield from _VARIABLE.findall(line[0] if line else key)


def _endpoints() -> set[str]:
    target = str(ROOT / "examples" / "cloud_mask.py:cloud_mask")
    service = create_app(ThreadRunner(load_processor(target), gate=Gate(local_files=True)))
    return {
        f"{method} {_shown(route.path)}"
        for route in service.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }


def _shown(path: str) -> str:
    """A route's path as the page writes it."""
    path = path.removeprefix("/api/v1/").replace("{job_id}", "ID").replace("{process_id}", "ID")
    return re.sub(r"\{\w+:path\}", "NAME", path)


def _described_endpoints(text: str) -> set[str]:
    cells = re.findall(r"^\| (`(?:GET|POST|DELETE)[^|]*) \|", text, re.MULTILINE)
    found = set()
    for cell in cells:
        words = re.findall(r"`([^`]+)`", cell)
        path = words[-1].split()[-1]
        found |= {word if " " in word else f"{word} {path}" for word in words}
    return found


def _first_cells(text: str) -> set[str]:
    """The names in the first column of all tables."""
    cells = re.findall(r"^\| ((?:`[^`|]+`(?:, )?)+) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        yield title.strip("`"), body


def _slugs() -> set[str]:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    return {kind.slug for kind in kinds if issubclass(kind, errors.PestoError)}


PARTS = {
    "public names": Part("reference/*.md", _public_names, _directives),
    "commands and options": Part("reference/command-line.md", _commands, _described_commands),
    "errors": Part("errors/index.md", _slugs, _first_cells),
    "connection fields": Part("reference/airflow.md", _connection_fields, _first_cells),
    "settings": Part(
        "airflow/pipelines.md", lambda: set(GroupSettings.__annotations__), _first_cells
    ),
    "inputs of tasks": Part("reference/conductor.md", _task_inputs, _described_inputs),
    "environment variables": Part("reference/environment.md", _variables, _first_cells),
    "endpoints": Part("contract/*.md", _endpoints, _described_endpoints),
}
_EACH_PART = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


@_EACH_PART
def test_everything_has_a_place_in_the_reference(part: Part):
    """Nothing that users can use is missing on the pages that list it."""
    assert part.real() - part.places(part.text) == set()


@_EACH_PART
def test_a_missing_place_is_noticed(part: Part):
    """The control: whatever is taken out of the pages is missing."""
    lines = part.text.splitlines()
    for each in part.real():
        word = each.split()[-1]
        rest = "\n".join(line for line in lines if word not in line)
        assert each not in part.places(rest)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_public_name_is_hidden_by_a_module(package: ModuleType):
    """A module of a package replaces an attribute of the same name once it is imported."""
    modules = {each.name for each in pkgutil.iter_modules(package.__path__)}
    assert modules & set(package.__all__) == set()
