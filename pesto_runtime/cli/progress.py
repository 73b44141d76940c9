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

from pesto_runtime.local import Observer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.activities import Planned, TileRecord


class _Rate(ProgressColumn):
    """Tiles a second."""

    def render(self, task: Task) -> Text:
        """Show the speed of the last tiles."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} tiles/s")


@contextmanager
def progress(name: str, *, hidden: bool) -> Iterator[Observer]:
    """Show a bar while the block runs; answers what the engine tells of it."""
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
        task = bar.add_task(name, total=None)

        def on_plan(_planned: Planned, tiles: int) -> None:
            bar.update(task, total=tiles)

        def on_tile(_record: TileRecord) -> None:
            bar.advance(task)

        yield Observer(on_plan, on_tile)
