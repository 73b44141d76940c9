"""Define the commands that start and follow workflows: `pesto conductor start`, `status` and so on.

The options are parsed here; `deploy.py` and `following.py` do the work.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pesto_conductor.trial_server import conductor_url
from pesto_runtime.cli.options import AsJson, Catalog, Credentials, InputTexts, ServiceTexts, pairs
from pesto_runtime.credentials import use_credentials
from pesto_runtime.errors import InvalidInput, RunFailed

if TYPE_CHECKING:
    from pydantic import JsonValue
    from rich.table import Table

    from pesto_conductor.client import Conductor

    Document = dict[str, JsonValue]

_WIDTH = 120

Url: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Conductor's /api; by default CONDUCTOR_SERVER_URL, or the server of `server up`."
    ),
]
Wait: TypeAlias = Annotated[bool, typer.Option("--wait", help="Follow it until it ends.")]
Identity: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="A workflow's id.")]


def start(
    name_or_file: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FILE",
            help="A registered workflow, or the file of a definition or a pipeline, also s3://….",
        ),
    ],
    inputs: InputTexts = None,
    service: ServiceTexts = None,
    services: Catalog = None,
    credentials: Credentials = None,
    site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=PREFIX",
            help="Task domain of the workers near scenes with this prefix, as eu=s3://eu/.",
        ),
    ] = None,
    wait: Wait = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Start a workflow; a file is registered first."""
    from pesto_conductor.deploy import start_workflow
    from pesto_conductor.sites import read_sites

    use_credentials(credentials)
    texts, sites = pairs(inputs, option="-i"), read_sites(site or ())
    with _conductor(url) as conductor:
        definition = _definition(conductor, name_or_file, tuple(service or ()), services)
        identity = start_workflow(conductor, definition, texts, sites=sites)
        if not wait:
            typer.echo(json.dumps({"workflowId": identity}) if as_json else identity)
            return
        _note(identity)
        _follow(conductor, identity, as_json=as_json)


def status(
    workflow: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="A workflow's id; the newest workflows if absent."),
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="Also show the tasks' logs.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest workflows, or the tasks of one."""
    from pesto_conductor.following import tasks_of, tasks_table, workflow_text, workflows_table

    with _conductor(url) as conductor:
        if workflow is None:
            found = conductor.search()
            _echo_json([*found]) if as_json else _print(workflows_table(found))
            return
        document = conductor.workflow(workflow)
        if as_json:
            _echo_json(document)
            return
        typer.echo(workflow_text(document))
        _print(tasks_table(document))
        for task in tasks_of(document) if logs else []:
            for line in conductor.logs(str(task["taskId"])):
                typer.echo(f"{task.get('referenceTaskName')}: {line}")


def retry(workflow: Identity, wait: Wait = False, url: Url = None, as_json: AsJson = False) -> None:
    """Run the failed tasks of a workflow again, and continue from there."""
    with _conductor(url) as conductor:
        conductor.retry(workflow)
        if wait:
            _follow(conductor, workflow, as_json=as_json)


def stop(
    workflow: Identity,
    reason: Annotated[
        str, typer.Option(help="Reason that the server stores.")
    ] = "stopped by pesto conductor stop",
    url: Url = None,
) -> None:
    """End a workflow now; computed blocks stay in the run store."""
    with _conductor(url) as conductor:
        conductor.terminate(workflow, reason=reason)


def wake(workflow: Identity, url: Url = None) -> None:
    """Continue a workflow that waits for a server that is lost: decide, and complete its JOINs."""
    from pesto_conductor.joins import dead_end, wedged_joins

    with _conductor(url) as conductor:
        conductor.decide(workflow)
        for join in wedged_joins(conductor.workflow(workflow), after_s=0):
            conductor.complete(join.task, workflow, join.output)
            typer.echo(f"completed {join.reference}")
        conductor.decide(workflow)
        if (why := dead_end(conductor.workflow(workflow))) is not None:
            raise RunFailed(f"workflow {workflow}: {why}")


def _conductor(url: str | None) -> Conductor:
    from pesto_conductor.client import Conductor

    return Conductor(conductor_url(url)).require()


def _definition(
    conductor: Conductor, name_or_file: str, services: tuple[str, ...], catalog: str | None
) -> Document:
    """Return the registered definition of a name, or that of a file, which is registered first."""
    from pesto_conductor.deploy import read_definitions, register
    from pesto_runtime.places import place_of

    path = place_of(name_or_file)
    if path.suffix != ".json" and not path.exists():
        return conductor.definition(name_or_file)
    known = place_of(catalog) if catalog else None
    found = read_definitions(path, services=services, catalog=known)
    workflows = [each for each in found if "tasks" in each]
    if len(workflows) != 1:
        raise InvalidInput(
            f"{path} contains {len(workflows)} workflows; register it, and start one by its name"
        )
    register(conductor, {str(path): found})
    return workflows[0]


def _follow(conductor: Conductor, identity: str, *, as_json: bool) -> None:
    from pesto_conductor.following import failure_of, follow
    from pesto_runtime.progress_display import terminal_progress

    hidden = as_json or not sys.stderr.isatty()
    try:
        with terminal_progress(identity[:8], hidden=hidden) as watcher:
            ended = follow(conductor, identity, watcher, warn=_note)
    except KeyboardInterrupt:
        _note(f"{identity} is still running; `pesto conductor stop {identity}` ends it")
        raise
    if ended.get("status") != "COMPLETED":
        raise failure_of(ended)
    output = ended.get("output")
    if as_json:
        _echo_json({"workflowId": identity, "output": output})
        return
    typer.echo(f"COMPLETED {identity}")
    for name, each in output.items() if isinstance(output, dict) else []:
        typer.echo(f"  {name:<12} {each if isinstance(each, str) else json.dumps(each)}")


def _note(line: str) -> None:
    """Write a line to standard error; standard output has only the result."""
    typer.echo(line, err=True)


def _echo_json(value: JsonValue) -> None:
    typer.echo(json.dumps(value, indent=2))


def _print(table: Table) -> None:
    """Print a table at full width; ids are never truncated, a narrow terminal wraps lines."""
    from rich.console import Console

    Console(width=max(Console().width, _WIDTH)).print(table)
