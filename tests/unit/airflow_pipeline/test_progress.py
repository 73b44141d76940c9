"""What a chunk's task writes into its log while it works."""

from __future__ import annotations

from pesto_airflow.progress import ChunkProgress
from pesto_runtime.contract import Window
from pesto_runtime.run.records import TileRecord

WINDOW = Window(0, 0, 1, 1)


def lines_of(*tiles: tuple[float, str], total: int) -> list[str]:
    """The lines of tiles that end at these seconds."""
    now, lines = [0.0], list[str]()
    progress = ChunkProgress(total, lines.append, clock=lambda: now[0])
    for seconds, state in tiles:
        now[0] = seconds
        progress.count(TileRecord(WINDOW, 0.1, state))
    progress.end()
    return lines


def test_a_line_every_five_seconds_and_one_at_the_end() -> None:
    """Rate and remaining time are those of the tiles that were computed."""
    tiles = [(0.0, "reused"), *[(float(each), "done") for each in range(1, 10)], (12.0, "hole")]
    assert lines_of(*tiles, total=21) == [
        "6 of 21 tiles, 1/s, 15 s left",
        "11 of 21 tiles, 0.83/s, 12 s left",
        "11 of 21 tiles in 12.0 s: 9 computed, 1 reused, 1 holes",
    ]


def test_quick_and_reused_tiles_say_little() -> None:
    """No line for each tile, and no guess without a computed one."""
    quick = [(0.01 * each, "done") for each in range(400)]
    assert lines_of(*quick, total=400) == [
        "400 of 400 tiles in 4.0 s: 400 computed, 0 reused, 0 holes"
    ]
    assert lines_of((6.0, "reused"), total=2)[0] == "1 of 2 tiles, 0/s"
