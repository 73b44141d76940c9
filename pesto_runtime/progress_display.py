"""Show the progress of a run: as a bar in a terminal or in a notebook, or not at all."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pesto_runtime.engines import SilentListener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, Task

    from pesto_runtime.engines import ProgressListener

_REFRESH_S = 0.2


@contextmanager
def shown_progress(name: str) -> Iterator[ProgressListener]:
    """Show the progress while the block runs, in the way that this Python can show it.

    A bar in a notebook or on a terminal (stderr); otherwise only warnings, on stderr.
    """
    display = _notebook_display()
    if display is not None:
        yield _NotebookBar(display, name)
        return
    with terminal_progress(name, hidden=not sys.stderr.isatty()) as listener:
        yield listener


@contextmanager
def terminal_progress(name: str, *, hidden: bool) -> Iterator[ProgressListener]:
    """Show a progress bar on stderr while the block runs; yield the listener that advances it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Shows tiles per second."""

        def render(self, task: Task) -> Text:
            """Show the speed of the last tiles."""
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f} tiles/s")

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tiles"),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
    ) as bar:
        yield _TerminalBar(bar, name)


class _TerminalBar:
    """A listener that shows the progress of an engine as a bar on a terminal."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar = bar
        self._task = bar.add_task(name, total=None)

    def begin(self, tiles: int) -> None:
        """Set the total number of tiles."""
        self._bar.update(self._task, total=tiles)

    def advance(self, tiles: int) -> None:
        """Add finished tiles."""
        self._bar.advance(self._task, tiles)

    def warn(self, text: str) -> None:
        """Print a warning above the bar."""
        self._bar.console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


class _NotebookBar(SilentListener):
    """A listener that shows the progress of an engine as HTML below a notebook's cell.

    Attributes:
        text: The state of the run.
    """

    def __init__(self, display: Callable[..., Any], name: str) -> None:
        self.text = f"{name}: starting"
        self._name, self._done, self._total = name, 0, 0
        self._begun = self._shown = time.monotonic()
        self._handle = display(self, display_id=True)

    def begin(self, tiles: int) -> None:
        """Set the total number of tiles."""
        self._total, self._begun = tiles, time.monotonic()
        self._refresh(now=True)

    def advance(self, tiles: int) -> None:
        """Add finished tiles."""
        self._done += tiles
        self._refresh(now=self._done == self._total)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, which a notebook shows below the cell."""
        print(f"warning: {text}", file=sys.stderr)  # noqa: T201  # as `warnings` would, in full

    def _refresh(self, *, now: bool) -> None:
        if not now and time.monotonic() - self._shown < _REFRESH_S:
            return
        self._shown = time.monotonic()
        seconds = self._shown - self._begun
        rate = f", {self._done / seconds:.1f} tiles/s" if seconds and self._done else ""
        self.text = f"{self._name}: {self._done} of {self._total} tiles{rate}, {seconds:.0f} s"
        self._handle.update(self)

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        from html import escape

        bar = f'<progress value="{self._done}" max="{max(1, self._total)}"></progress>'
        return f"<div>{bar} {escape(self.text)}</div>"


def _notebook_display() -> Callable[..., Any] | None:
    """Return IPython's `display` in a notebook; None elsewhere, without an import of IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display
