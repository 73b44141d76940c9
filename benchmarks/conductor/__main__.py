"""Command line of Conductor's benchmarks: `python -m benchmarks.conductor`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.conductor import contest
from benchmarks.conductor.work import NOOP_TASK, work_of
from benchmarks.goals import Goal, missed
from benchmarks.measure import busy_share
from pesto_conductor.client import Conductor
from pesto_conductor.taskdefs import PREFIX, task_definition, task_definitions
from pesto_conductor.trial_server import borrowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

_TYPES = (PREFIX + "plan", PREFIX + "process", PREFIX + "publish")
_SERVICES = 10
_FLAT = 256
_MOST_S, _LEAST_SHARE, _BOOT_S = 1.5, 0.8, 60
_MOST_GET, _MOST_MEMORY = 256 << 10, 100 << 20


def main() -> int:
    """Hold them; 1 where a goal is missed."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        with (
            borrowed(options.data or folder / "server") as server,
            Conductor(server.url) as conductor,
        ):
            boot_s = time.perf_counter() - begun
            _register(conductor)
            rows = [*_rows(conductor, folder, options)]
    rows.append(
        Goal("server up, s (jar and Java installed)", "<= 60", f"{boot_s:.1f}", boot_s <= _BOOT_S)
    )
    text = _markdown(rows, options)
    if not options.quick:
        options.output.write_text(text)
    print(text)
    return 0 if options.quick or all(row.is_reached for row in rows) else 1


def _rows(conductor: Conductor, folder: Path, options: argparse.Namespace) -> Iterator[Goal]:
    yield from _chunked(conductor, folder, options)
    yield _size(conductor, folder, options)
    yield _flat(conductor, folder, options)
    yield _with_service(conductor, folder, options)
    yield _memory(conductor)


def _chunked(conductor: Conductor, folder: Path, options: argparse.Namespace) -> Iterator[Goal]:
    """4096 tiles in 64 chunks, computed in each round; and once a run that has nothing to do."""
    work = work_of(folder, blocks=4 if options.quick else 64, tile=64)
    with contest.our_worker(conductor.url, at_once=64, types=_TYPES):
        # The first run of a server and a worker is slow; it is not timed.
        first = contest.chunks(conductor, work, folder / "chunked", workers=16)
        rounds = [
            contest.chunks(conductor, work, folder / f"chunked{number}", workers=16)
            for number in range(options.rounds)
        ]
        again = contest.chunks(conductor, work, folder / "chunked", workers=16, is_resume=True)
    spread = [each.fan_out_s for each in rounds]
    what = f"{work.tiles} no-op tiles in {first.tasks} chunks, computed, s"
    yield Goal(what, f"<= {_MOST_S}", _spread(spread), median(spread) <= _MOST_S)
    what = f"the same with nothing to compute, s (for information); GET {again.size >> 10} KB"
    yield Goal(what, "-", f"{again.fan_out_s:.2f}", is_reached=True)


def _size(conductor: Conductor, folder: Path, options: argparse.Namespace) -> Goal:
    """Over 10 000 tiles, cut up as they are where nobody says how."""
    work = work_of(folder, blocks=4 if options.quick else 169, tile=64)
    with contest.our_worker(conductor.url, at_once=8, types=_TYPES):
        ran = contest.chunks(conductor, work, folder / "size")
    what = f"GET of a workflow of {work.tiles} tiles in {ran.tasks} chunks, KB"
    return Goal(what, "<= 256", f"{ran.size / 1024:.0f}", ran.size <= _MOST_GET)


def _flat(conductor: Conductor, folder: Path, options: argparse.Namespace) -> Goal:
    """Tasks that do nothing in the SDK's async worker, and chunks of one computed tile in ours."""
    count = 4 if options.quick else _FLAT
    with contest.bare_worker(conductor.url):
        contest.noops(conductor, count)
        bare = [contest.noops(conductor, count).fan_out_s for _ in range(options.rounds)]
    work = work_of(folder, blocks=count, tile=512)
    with contest.our_worker(conductor.url, at_once=64, types=_TYPES):
        ours = [
            contest.chunks(
                conductor, work, folder / f"flat{number}", max_tasks=count, workers=64
            ).fan_out_s
            for number in range(options.rounds + 1)
        ][1:]
    return _share(
        f"{count} flat tasks of a computed tile: our throughput / that of the SDK's empty tasks",
        bare, ours, "each task reads, compresses and stores a block",
    )  # fmt: skip


def _with_service(conductor: Conductor, folder: Path, options: argparse.Namespace) -> Goal:
    """Tiles at a service that does nothing, and as many calls by httpx alone, 16 at once both."""
    work = work_of(folder, blocks=4 if options.quick else 64, tile=256)
    target = f"{Path(contest.__file__).with_name('work.py')}:nothing"
    ours: list[float] = []
    with (
        contest.service(target) as url,
        contest.our_worker(conductor.url, at_once=2, types=_TYPES),
    ):
        bare = [contest.bare_calls(url, count=work.tiles, at_once=16, side=work.tile)
                for _ in range(options.rounds)]  # fmt: skip
        for number in range(options.rounds + 1):
            ran = contest.chunks(
                conductor, work, folder / f"service{number}", services={"nothing": url},
                max_tasks=8, concurrency=8, workers=2,
            )  # fmt: skip
            ours.append(ran.fan_out_s)
    what = f"{work.tiles} tiles at a service that does nothing: our throughput / that of httpx"
    return _share(what, bare, ours[1:], "tasks of Conductor, and blocks that are stored")


def _share(what: str, bare: list[float], ours: list[float], cause: str) -> Goal:
    ratio = median(bare) / median(ours)
    figure = f"{ratio:.2f} (ours {_spread(ours)} s, bare {_spread(bare)} s)"
    return Goal(what, f">= {_LEAST_SHARE}", figure, ratio >= _LEAST_SHARE, cause)


def _memory(conductor: Conductor) -> Goal:
    """A worker that polls for ten services and has done nothing yet."""
    types = [f"{PREFIX}service_{number}" for number in range(_SERVICES)]
    with contest.our_worker(conductor.url, at_once=2, types=types) as pid:
        time.sleep(3)
        used = contest.memory(pid)
    return Goal(f"worker of {_SERVICES} services, MB", "<= 100", f"{used / 2**20:.0f}",
                used <= _MOST_MEMORY)  # fmt: skip


def _register(conductor: Conductor) -> None:
    types = [PREFIX + f"service_{number}" for number in range(_SERVICES)]
    definitions = [*task_definitions(), *(task_definition(each) for each in types)]
    noop: dict[str, JsonValue] = {
        "name": NOOP_TASK, "ownerEmail": "pesto@example.com", "timeoutSeconds": 0,
        "responseTimeoutSeconds": 60,
    }  # fmt: skip
    conductor.register_tasks([each.to_json() for each in definitions])
    conductor.register_tasks([noop])


def _spread(seconds: list[float]) -> str:
    return f"{min(seconds):.2f} / {median(seconds):.2f} / {max(seconds):.2f}"


def _markdown(rows: list[Goal], options: argparse.Namespace) -> str:
    told = (
        f"`python -m benchmarks.conductor --rounds {options.rounds}`; Conductor on SQLite, its "
        "workers and services on one machine. Seconds are min / median / max of a fan-out, from "
        "the scheduling of its first task to the end of its last. At the end of the benchmark, "
        f"other programs used {busy_share(2):.0%} of the machine."
    )
    table = [
        f"| {row.what} | {row.figure} | {row.wanted} | {'yes' if row.is_reached else 'NO'} |"
        for row in rows
    ]
    head = ["| measurement | figure | goal | reached |", "|---|---|---|---|"]
    lines = [
        "# Conductor",
        "",
        missed([row for row in rows if row.wanted != "-"]),
        "",
        "## Figures",
        "",
        told,
        "",
        *head,
        *table,
    ]
    return "\n".join(lines) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conductor", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few tiles, a smoke test: writes no file")  # fmt: skip  # noqa: E501
    parser.add_argument("--data", type=Path, help="data folder of a server that runs already")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
