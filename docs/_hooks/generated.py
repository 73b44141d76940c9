"""Fills `<!-- generated: NAME -->` of a reference page from what is installed: no table by hand.

Each part is read through what users rely on: the entry points, the task definitions.
"""

from __future__ import annotations

import functools
import re
from importlib.metadata import distribution
from typing import TYPE_CHECKING, cast

import typer
import typer.cli
import typer.main

from pesto_conductor.taskdefs import task_definitions
from pesto_conductor.verbs import binding_of
from pesto_runtime.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pesto_conductor.taskdefs import TaskDefinition

_PACKAGE = "pesto-workflows"
_MARK = re.compile(r"<!-- generated: ([a-z ]+) -->")
_LIST_OF_COMMANDS = re.compile(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n")
"""Their texts are cut short, and the commands follow with their own."""
_CONNECTION = (
    ("host", "The service's URL, or a host that `schema` and `port` complete."),
    ("schema", "`http` (also where it is empty) or `https`, where the host is not a URL."),
    ("port", "Port, where the host is not a URL."),
    ("login", "User name of HTTP basic authentication."),
    ("password", "Password of the login; a bearer token where there is no login."),
)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill the parts of a page, as mkdocs calls it."""
    return filled(markdown)


def filled(markdown: str) -> str:
    """A page with its generated parts; a part that does not exist is a KeyError."""
    return _MARK.sub(lambda found: _PARTS[found[1]](), markdown)


@functools.cache
def command_line() -> str:
    """Every command with its arguments and options, as typer itself documents them."""
    for entry in distribution(_PACKAGE).entry_points.select(group="pesto.commands"):
        app.add_typer(entry.load(), name=entry.name)
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="pesto")
    text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="pesto", indent=1)
    return _LIST_OF_COMMANDS.sub("", text)


def airflow_connection() -> str:
    """The fields of a connection of type `pesto`: Airflow's own, and those of the provider."""
    (entry,) = distribution(_PACKAGE).entry_points.select(group="apache_airflow_provider")
    (kind,) = entry.load()()["connection-types"]
    extra = [
        (f"extra: {name}", field["description"]) for name, field in kind["conn-fields"].items()
    ]
    rows = [(f"`{name}`", text) for name, text in (*_CONNECTION, *extra)]
    return _table(("field", "meaning"), rows)


def conductor_tasks() -> str:
    """Every task type: what it does, its inputs and outputs, its limits."""
    return "\n\n".join(_task(each) for each in task_definitions())


def _task(task: TaskDefinition) -> str:
    inputs = [
        (f"`{name}`", "yes" if field.is_required() else "", field.description or "")
        for name, field in binding_of(task.name).models[0].model_fields.items()
    ]
    outputs = task.output_schema["properties"]
    names = ", ".join(f"`{name}`" for name in cast("dict[str, object]", outputs))
    limits = f"An attempt may take {task.timeout_s // 3600} h; {task.retries} retries."
    return "\n\n".join(
        (
            f"### {task.name}",
            task.description,
            _table(("input", "required", "meaning"), inputs),
            f"Outputs: {names}. {limits}",
        )
    )


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_PARTS: dict[str, Callable[[], str]] = {
    "command line": command_line,
    "airflow connection": airflow_connection,
    "conductor tasks": conductor_tasks,
}
