"""The tiles of a chunk, one after another or several at once, each tried until trying is useless.

Tiles come back as they are done: the order never decides a byte.
"""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self, TypeAlias

from pesto_runtime.activities.tile import StageFailed, TileRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pesto_runtime.activities.context import RunContext
    from pesto_runtime.activities.tile import Made
    from pesto_runtime.contract import Window

_Outputs: TypeAlias = "tuple[dict[str, Made], dict[str, object]]"

_ATTEMPTS = 3
_LONGEST_PAUSE_S = 5.0
_LOOK_S = 0.2
_WAITED_FOR = 8


def tiles_at_once(context: RunContext, number: int) -> int:
    """Tiles of a phase that one task does well to run at once.

    One where the worker itself computes. Several where it waits for services, and as many as a
    batched one takes.
    """
    stages = context.phases[number].stages
    services = [context.plan.services[stage.stage.process] for stage in stages]
    if not any(service.is_remote for service in services):
        return 1
    return max(_WAITED_FOR, *(stage.description.max_batch_size for stage in stages))


@dataclass(frozen=True, slots=True)
class TileOutcome:
    """What came of a tile.

    Attributes:
        window: The tile, in the grid of the scenes.
        wanted: Raster -> the window of it that was to be made.
        seconds: That it took.
        made: Raster -> array (band, row, col), vector -> features; or why it failed for good.
    """

    window: Window
    wanted: Mapping[str, Window]
    seconds: float
    made: Mapping[str, Made] | StageFailed


class TileRunners:
    """Runs tiles in one thread, or in several at once: for services, which are waited for."""

    def __init__(self, make_runner: Callable[[], TileRunner], count: int) -> None:
        """Open lanes; each has a runner of its own.

        Args:
            make_runner: Makes what runs a tile.
            count: Tiles at once, 1 or more.
        """
        self.runners = tuple(make_runner() for _ in range(count))
        self._pool = ThreadPoolExecutor(count, "pesto-tile") if count > 1 else None
        self._free: SimpleQueue[TileRunner] = SimpleQueue()
        for runner in self.runners:
            self._free.put(runner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(
        self, tiles: Iterable[tuple[Window, Mapping[str, Window]]], *, look: Callable[[], None]
    ) -> Iterator[TileOutcome]:
        """Run tiles, and yield each when it is done.

        Args:
            tiles: A tile's window and what is wanted of it; taken one at a time.
            look: Called before every tile and while waiting; raises to stop.

        Raises:
            PestoError: what no tile can be blamed for.
        """
        if self._pool is None:
            for window, wanted in tiles:
                look()
                yield self._try(window, wanted)
            return
        waiting: set[Future[TileOutcome]] = set()
        for window, wanted in tiles:
            look()
            waiting.add(self._pool.submit(copy_context().run, self._try, window, wanted))
            while len(waiting) >= len(self.runners):
                yield from _done(waiting, look)
        while waiting:
            yield from _done(waiting, look)

    def _try(self, window: Window, wanted: Mapping[str, Window]) -> TileOutcome:
        runner, begun = self._free.get(), time.perf_counter()
        made: Mapping[str, Made] | StageFailed
        try:
            made, _ = attempted(lambda: runner.run(wanted))
        except StageFailed as failure:
            made = failure
        finally:
            self._free.put(runner)
        return TileOutcome(window, wanted, time.perf_counter() - begun, made)


def attempted(call: Callable[[], _Outputs]) -> _Outputs:
    """Try a tile again while asking again can help; what is already done of its chunk stays.

    Raises:
        StageFailed: it failed for good.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return call()
        except StageFailed as failure:
            if not failure.error.retryable:
                raise
            time.sleep(min(failure.error.retry_after_s or 0.2 * 2**attempt, _LONGEST_PAUSE_S))
    return call()


def _done(waiting: set[Future[TileOutcome]], look: Callable[[], None]) -> Iterator[TileOutcome]:
    """Take what is done out of what is waited for, at least one or after a moment none."""
    done, _ = wait(waiting, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
    look()
    for future in done:
        waiting.discard(future)
        yield future.result()
