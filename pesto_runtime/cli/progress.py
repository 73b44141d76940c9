"""A run's progress on the terminal: tiles done, rate, time to go."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.engines import ProgressListener


class _Rate(ProgressColumn):
    """Tiles a second."""

    def render(self, task: Task) -> Text:
        """Show the speed of the last tiles."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} tiles/s")


class _Bar:
    """Shows what an engine tells."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar = bar
        self._task = bar.add_task(name, total=None)

    def begin(self, tiles: int) -> None:
        """Show how many tiles there are."""
        self._bar.update(self._task, total=tiles)

    def advance(self, tiles: int) -> None:
        """Show that tiles are done."""
        self._bar.advance(self._task, tiles)

    def warn(self, text: str) -> None:
        """Show a warning above the bar."""
        self._bar.console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(name: str, *, hidden: bool) -> Iterator[ProgressListener]:
    """Show a bar while the block runs; answers who looks on."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tiles"),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
    ) as bar:
        yield _Bar(bar, name)
