"""`pesto conductor …`: the server, the definitions, the workers and the runs."""

from __future__ import annotations

import typer

from pesto_conductor import server_commands

app = typer.Typer(help="Run pipelines on Conductor.", no_args_is_help=True)
app.add_typer(server_commands.app, name="server")


@app.callback()
def before_any_command() -> None:
    """Take the options that stand before a command."""
