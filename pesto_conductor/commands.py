"""`pesto conductor …`: the server, the definitions, the workers and the runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from pesto_conductor import run_commands, server_commands
from pesto_conductor.run_commands import Url
from pesto_conductor.where import conductor_url
from pesto_runtime.cli.options import CatalogPath, ServiceTexts

app = typer.Typer(help="Run pipelines on Conductor.", no_args_is_help=True)
app.add_typer(server_commands.app, name="server")
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
    from pesto_conductor.deploy import read_definitions, service_tasks
    from pesto_conductor.deploy import register as make_known
    from pesto_conductor.rest import Conductor

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
