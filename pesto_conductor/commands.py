"""`pesto conductor …`: the server, the definitions, the workers and the runs."""

from __future__ import annotations

import typer

app = typer.Typer(help="Run pipelines on Conductor.", no_args_is_help=True)


@app.callback()
def before_any_command() -> None:
    """Take the options that stand before a command."""
