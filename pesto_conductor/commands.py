"""Define the command group `pesto conductor`: `server`, `register`, `worker` and the others.

The options are parsed here; the commands of workflows are in `run_commands.py`.
"""

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
from pesto_conductor.connection import VARIABLE
from pesto_conductor.run_commands import Url
from pesto_conductor.trial_server import conductor_url
from pesto_runtime.cli.options import Catalog, Credentials, ServiceTexts
from pesto_runtime.credentials import use_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_conductor.provision import DownloadListener


_FAILED, _REFUSED = 1, 2

server_app = typer.Typer(help="Run a Conductor on this machine, for trials.", no_args_is_help=True)

DataFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--data", help="Folder for all data of it.", show_default=False)
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Allowed: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="RULE", help="Leave out the findings of a rule."),
]


@server_app.command()
def up(
    data: DataFolder = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 for the last one, or a free one.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Start the server, and wait until it is healthy; the first start downloads it."""
    with _progress_bars(hidden=as_json or not sys.stderr.isatty()) as listener:
        running = trial_server.up(data, port=port, listener=listener)
    _show(running, as_json=as_json)
    if data is not None and not as_json:  # other commands find only the default folder
        typer.echo(f"export {VARIABLE}={running.url}")


@server_app.command()
def down(data: DataFolder = None) -> None:
    """Stop the server; its data stays, for the next start."""
    stopped = trial_server.down(data)
    typer.echo("nothing runs" if stopped is None else f"stopped Conductor at {stopped.url}")


@server_app.command()
def status(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Show the address of the server; exits with 1 if it does not run."""
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
def _progress_bars(*, hidden: bool) -> Iterator[DownloadListener]:
    """Show a progress bar for each download and start while the block runs; yield its listener."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=hidden) as bars:
        shown = {}

        def show(name: str, done: float, total: float) -> None:
            if name not in shown:
                shown[name] = bars.add_task(name, total=total)
            bars.update(shown[name], completed=done)

        yield show


app = typer.Typer(help="Run pipelines on Conductor.", no_args_is_help=True)
app.add_typer(server_app, name="server")
app.command()(run_commands.start)
app.command()(run_commands.status)
app.command()(run_commands.retry)
app.command()(run_commands.stop)
app.command()(run_commands.wake)


@app.command()
def register(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]...", help="Definitions, event handlers or pipelines; also s3://…."
        ),
    ] = None,
    per_service: Annotated[
        list[str] | None,
        typer.Option("--per-service", metavar="URL", help="Add a task type for this service."),
    ] = None,
    allow: Allowed = None,
    owner: Annotated[
        str | None, typer.Option(help="Email address of the owner of the task types.")
    ] = None,
    poll_timeout: Annotated[
        int | None,
        typer.Option(
            min=1, help="Seconds that a task waits for a worker in each attempt; default: for ever."
        ),
    ] = None,
    service: ServiceTexts = None,
    services: Catalog = None,
    credentials: Credentials = None,
    url: Url = None,
) -> None:
    """Register task types and workflows; no workflow if one definition has an error."""
    from pesto_conductor.client import Conductor
    from pesto_conductor.deploy import read_definitions, service_tasks
    from pesto_conductor.deploy import register as register_all
    from pesto_runtime.places import place_of

    use_credentials(credentials)
    catalog = place_of(services) if services else None
    with Conductor(conductor_url(url)).require() as conductor:
        documents = {
            file: read_definitions(place_of(file), services=tuple(service or ()), catalog=catalog)
            for file in files or ()
        }
        names = register_all(
            conductor,
            documents,
            tasks=service_tasks(per_service or ()),
            allow=allow or (),
            owner=owner,
            poll_timeout_s=poll_timeout,
        )
        for name in names:
            typer.echo(name)


@app.command()
def lint(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Definitions, handlers or pipelines; also s3://…."),
    ],
    allow: Allowed = None,
    service: ServiceTexts = None,
    services: Catalog = None,
    as_json: AsJson = False,
) -> None:
    """Find errors in workflow definitions without a server; exits with 2 if there are any."""
    from pesto_conductor.deploy import descriptions_of, lint_all, read_definitions
    from pesto_runtime.places import place_of

    catalog = place_of(services) if services else None
    chosen = tuple(service or ())
    documents = {
        file: read_definitions(place_of(file), services=chosen, catalog=catalog) for file in files
    }
    describe = descriptions_of(Path.cwd(), chosen, catalog)
    found = lint_all(documents, describe=describe, allow=allow or ())
    if as_json:
        rows = [
            {"file": file, "rule": each.rule, "pointer": each.field.pointer,
             "detail": each.field.detail}
            for file, findings in found.items()
            for each in findings
        ]  # fmt: skip
        typer.echo(json.dumps(rows, indent=2))
    else:
        for file, findings in found.items():
            for each in findings:
                typer.echo(f"{file}: {each}")
    if any(found.values()):
        raise typer.Exit(_REFUSED)


@app.command()
def worker(
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Task type to poll; can be repeated.")
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(min=1, show_default="one per core", help="Tasks at once, over all types."),
    ] = os.cpu_count() or 1,
    domain: Annotated[str | None, typer.Option(help="Take only tasks of this domain.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve /metrics, /health, /ready here.")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="Interface of that port; 0.0.0.0 for probes of other machines.")
    ] = "127.0.0.1",
    no_supervisor: Annotated[
        bool, typer.Option("--no-supervisor", help="Where a platform restarts the worker.")
    ] = False,
    journal: Annotated[
        Path | None,
        typer.Option(help="File of the tasks in hand, which a restarted worker returns."),
    ] = None,
    credentials: Credentials = None,
    url: Url = None,
    until_stdin_closes: Annotated[
        bool, typer.Option("--until-stdin-closes", hidden=True, help="End with the parent.")
    ] = False,
) -> None:
    """Run tasks of this project until SIGTERM or Ctrl-C, then drain."""
    from pesto_conductor.supervisor import run

    use_credentials(credentials)
    if until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    code = run(
        conductor_url(url),
        types=tuple(task) if task else None,
        concurrency=concurrency,
        domain=domain,
        metrics_port=metrics_port,
        metrics_host=metrics_host,
        is_supervised=not no_supervisor,
        journal=journal,
    )
    if code:
        raise typer.Exit(code)


def _end_with_stdin() -> None:
    """Stop when standard input is closed: the process that started this worker has ended."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
