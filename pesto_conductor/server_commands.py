"""`pesto conductor server …`: a real Conductor on this machine, for trials."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pesto_conductor import server
from pesto_conductor.where import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_conductor.provision import DownloadListener

_FAILED = 1

app = typer.Typer(help="A Conductor on this machine, for trials.", no_args_is_help=True)

DataFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--data", help="Where it keeps everything.", show_default=False)
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]


@app.command()
def up(
    data: DataFolder = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Start it, download it first if need be, and wait until it is healthy."""
    with waiting(hidden=as_json or not sys.stderr.isatty()) as told:
        running = server.up(data, port=port, told=told)
    _show(running, as_json=as_json)
    if data is not None and not as_json:  # no command finds by itself what is kept elsewhere
        typer.echo(f"export {VARIABLE}={running.url}")


@app.command()
def down(data: DataFolder = None) -> None:
    """Stop it; what it holds stays, for the next start."""
    ran = server.down(data)
    typer.echo("nothing runs" if ran is None else f"stopped Conductor at {ran.url}")


@app.command()
def status(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Tell where it runs; exits with 1 where it does not."""
    running = server.find(data)
    if running is None:
        typer.echo("null" if as_json else "nothing runs")
        raise typer.Exit(_FAILED)
    _show(running, as_json=as_json)


def _show(running: server.Server, *, as_json: bool) -> None:
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
