"""Write the figures as a Markdown page."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.airflow.contest import CHUNKS, HERE, PER_TILE
from benchmarks.goals import Goal, at_least, at_most, missed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.airflow.contest import Round

_MOST_ADDED_MS, _LEAST_RATIO, _MANY = 14.0, 30.0, 256
"""As on 2026-11-21, for runs of 256 tiles: Airflow must not become slower."""
_HEAD = """# Cost of Airflow

{missed}

## Figures

One scene of N tiles of 512 pixels and one stage that takes one to two milliseconds per tile,
on one `airflow standalone` (LocalExecutor with four workers, SQLite). *Added* (first with
chunks, then with a task per tile) is the wall time from the trigger to the end of the run,
minus that of the local engine, divided by N. Medians of {rounds} rounds; ratios are of the
same round. All products have the same bytes, and all tiles were
computed: {identical}. Airflow started in {start_s:.0f} s;
`pesto run --engine airflow` needs this time if no Airflow runs.

| tiles | local engine | chunks (tasks) | task per tile (tasks) | added | added | ratio |
|---|---|---|---|---|---|---|
"""


def markdown(rounds: Sequence[Round], *, start_s: float) -> str:
    """A page of Markdown; a round whose products differ has no figures."""
    identical = all(each.identical for each in rounds)
    sizes = sorted({each.tiles for each in rounds})
    head = _HEAD.format(
        missed=missed(_goals(rounds)),
        rounds=len(rounds) // len(sizes),
        identical="yes" if identical else "NO",
        start_s=start_s,
    )
    return head + "".join(_row([r for r in rounds if r.tiles == size]) for size in sizes)


def _goals(rounds: Sequence[Round]) -> list[Goal]:
    many = [each for each in rounds if each.tiles == _MANY and each.identical]
    if not many:
        return []
    added = statistics.median(each.added_ms(CHUNKS) for each in many)
    ratio = statistics.median(each.ratio for each in many)
    return [
        at_most(f"added by chunks at {_MANY} tiles, ms a tile", added, _MOST_ADDED_MS),
        at_least(f"a task per tile / chunks, added at {_MANY} tiles", ratio, _LEAST_RATIO),
    ]


def _row(rounds: Sequence[Round]) -> str:
    if not all(each.identical for each in rounds):
        return f"| {rounds[0].tiles} | | | | | | NO |\n"

    def median(of: Callable[[Round], float]) -> float:
        return statistics.median(map(of, rounds))

    tasks = rounds[0].tasks
    cells = [
        str(rounds[0].tiles),
        f"{median(lambda each: each.seconds[HERE]):.1f} s",
        f"{median(lambda each: each.seconds[CHUNKS]):.1f} s ({tasks[CHUNKS]})",
        f"{median(lambda each: each.seconds[PER_TILE]):.1f} s ({tasks[PER_TILE]})",
        f"{median(lambda each: each.added_ms(CHUNKS)):.0f} ms",
        f"{median(lambda each: each.added_ms(PER_TILE)):.0f} ms",
        f"{median(lambda each: each.ratio):.1f}",
    ]
    return f"| {' | '.join(cells)} |\n"
