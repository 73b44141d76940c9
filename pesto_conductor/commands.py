"""`pesto conductor …`: the server, the definitions, the workers and the runs."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pesto_conductor import run_commands, trial_server
from pesto_conductor.run_commands import Url
from pesto_conductor.trial_server import VARIABLE, conductor_url
from pesto_runtime.cli.options import CatalogPath, ServiceTexts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_conductor.provision import DownloadListener


_FAILED = 1

server_app = typer.Typer(help="A Conductor on this machine, for trials.", no_args_is_help=True)

DataFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--data", help="Where it keeps everything.", show_default=False)
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]


@server_app.command()
def up(
    data: DataFolder = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Start it, download it first if need be, and wait until it is healthy."""
    with waiting(hidden=as_json or not sys.stderr.isatty()) as told:
        running = trial_server.up(data, port=port, told=told)
    _show(running, as_json=as_json)
    if data is not None and not as_json:  # no command finds by itself what is kept elsewhere
        typer.echo(f"export {VARIABLE}={running.url}")


@server_app.command()
def down(data: DataFolder = None) -> None:
    """Stop it; what it holds stays, for the next start."""
    ran = trial_server.down(data)
    typer.echo("nothing runs" if ran is None else f"stopped Conductor at {ran.url}")


@server_app.command()
def status(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Tell where it runs; exits with 1 where it does not."""
    running = trial_server.find(data)
    if running is None:
        typer.echo("null" if as_json else "nothing runs")
        raise typer.Exit(_FAILED)
    _show(running, as_json=as_json)


def _show(running: trial_server.Server, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(running), indent=2))
        return
    typer.echo(f"Conductor {running.version} at {running.url}, pid {running.pid}")
    typer.echo(f"its data and log: {running.folder}")


@contextmanager
def waiting(*, hidden: bool) -> Iterator[DownloadListener]:
    """Show a bar for each thing waited for while the block runs; answers who is told."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=hidden) as bars:
        shown = {}

        def told(what: str, done: float, total: float) -> None:
            if what not in shown:
                shown[what] = bars.add_task(what, total=total)
            bars.update(shown[what], completed=done)

        yield told


app = typer.Typer(help="Run pipelines on Conductor.", no_args_is_help=True)
app.add_typer(server_app, name="server")
app.command()(run_commands.start)
app.command()(run_commands.status)
app.command()(run_commands.retry)
app.command()(run_commands.stop)


@app.callback()
def before_any_command() -> None:
    """Take the options that stand before a command."""


@app.command()
def register(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Definitions, event handlers or pipelines."),
    ] = None,
    per_service: Annotated[
        list[str] | None,
        typer.Option("--per-service", metavar="URL", help="Add a task type for this service."),
    ] = None,
    service: ServiceTexts = None,
    services: CatalogPath = None,
    url: Url = None,
) -> None:
    """Make task types and workflows known to a Conductor; nothing unless all of it is right."""
    from pesto_conductor.client import Conductor
    from pesto_conductor.deploy import read_definitions, service_tasks
    from pesto_conductor.deploy import register as make_known

    with Conductor(conductor_url(url)).require() as conductor:
        documents = {
            str(file): read_definitions(file, services=tuple(service or ()), catalog=services)
            for file in files or ()
        }
        for name in make_known(conductor, documents, tasks=service_tasks(per_service or ())):
            typer.echo(name)


@app.command()
def worker(
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Task type to take; again for more.")
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, show_default="one per core", help="Tasks at once.")
    ] = os.cpu_count() or 1,
    domain: Annotated[str | None, typer.Option(help="Take tasks of this domain alone.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve /metrics and /health here.")
    ] = None,
    url: Url = None,
    until_stdin_closes: Annotated[
        bool, typer.Option("--until-stdin-closes", hidden=True, help="End with who started it.")
    ] = False,
) -> None:
    """Do the tasks of this project until told to stop; drains on SIGTERM."""
    from pesto_conductor.supervisor import run

    if until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    code = run(
        conductor_url(url),
        types=tuple(task) if task else None,
        concurrency=concurrency,
        domain=domain,
        metrics_port=metrics_port,
    )
    if code:
        raise typer.Exit(code)


def _end_with_stdin() -> None:
    """Stop when the other end is closed: whoever started this worker has ended, however."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
