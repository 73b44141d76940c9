"""Define the application `pesto`: its commands, and the exit code of every error.

Exit codes: 0 success or COMPLETE, 1 failed, 2 refused (usage, contract, input), 3 PARTIAL,
130 interrupted.
"""

from __future__ import annotations

import re
import signal
import sys
from importlib.metadata import entry_points
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import typer

from pesto_runtime import __version__
from pesto_runtime.cli import (
    caching,
    checking,
    discovering,
    listing_processes,
    plan_command,
    probing,
    project_commands,
    rendering,
    running,
    serving,
)
from pesto_runtime.cli.profile_words import ProfiledCommand
from pesto_runtime.errors import InvalidInput, PestoError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_INTERRUPTED = 130
_EMPTY = ("--failure-workflow",)  # whose empty value means none

app = typer.Typer(
    name="pesto",
    help="Earth-observation algorithms as services, and pipelines of them over whole scenes.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(cls=ProfiledCommand)(serving.serve)
app.command(cls=ProfiledCommand)(discovering.describe)
app.command()(discovering.discover)
app.command("list")(listing_processes.list_processes)
app.command(cls=ProfiledCommand)(discovering.process)
app.command(cls=ProfiledCommand)(probing.probe)
app.command(cls=ProfiledCommand)(checking.check)
app.command(cls=ProfiledCommand)(plan_command.plan)
app.command()(rendering.render)
app.command(cls=ProfiledCommand)(running.run)
app.command()(running.verify)
app.command()(running.stac)
app.command()(project_commands.init)
app.command()(project_commands.schemagen)
app.command()(project_commands.schemas)
app.command(cls=ProfiledCommand)(project_commands.build)
app.command("test", cls=ProfiledCommand)(project_commands.replay_calls)
app.command(cls=ProfiledCommand)(project_commands.deploy)
app.add_typer(caching.app, name="cache")


def _print_version(is_requested: bool) -> None:  # positional: typer's signature of a callback
    if is_requested:
        typer.echo(f"pesto-workflows {__version__}")
        raise typer.Exit


@app.callback()
def before_any_command(
    version: Annotated[  # read by its callback
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Read the options before the command."""


def main() -> None:
    """Run the command line; an error becomes a message and an exit code, never a traceback."""
    # A run that is stopped by `kill` or by a container's stop is resumable, as after Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _require_values(sys.argv[1:])
        _add_groups(sys.argv[1:2])
        app(standalone_mode=True)
    except PestoError as error:
        typer.echo(f"pesto: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("pesto: interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except SystemExit as end:  # typer converts KeyboardInterrupt, without a message
        if end.code == _INTERRUPTED:
            typer.echo("pesto: interrupted", err=True)
        raise


def _require_values(words: Sequence[str]) -> None:
    """Refuse empty words, as of a variable that is not set: an empty path is the current folder.

    Raises:
        InvalidInput: a word is empty; with its option.
    """
    for before, word in pairwise(["", *words]):
        is_option = re.fullmatch(r"--[\w-]+=", word) is not None
        option = word.removesuffix("=") if is_option else before
        if (is_option or not word) and option not in _EMPTY:
            where = option if option.startswith("-") else "an argument"
            raise InvalidInput(f"{where} is empty: give a value, or leave it out")


def _add_groups(first: list[str]) -> None:
    """Load the commands of other packages, only if the first word is theirs, or requests help."""
    for entry in entry_points(group="pesto.commands"):
        if first in ([], [entry.name]) or first[0].startswith("-"):
            app.add_typer(entry.load(), name=entry.name)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
