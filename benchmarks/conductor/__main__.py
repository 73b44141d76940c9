"""Command line of Conductor's benchmarks: `python -m benchmarks.conductor`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.conductor import contest
from benchmarks.conductor.work import NOOP_TASK, work_of
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


@dataclass(frozen=True)
class Row:
    """A figure and what it is held to.

    Attributes:
        what: Was measured.
        got: Of the best, the median and the worst round; or one figure.
        goal: In words.
        holds: Whether the median reaches it.
    """

    what: str
    got: str
    goal: str
    holds: bool


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
        Row("server up, s (jar and Java installed)", f"{boot_s:.1f}", "<= 60", boot_s <= _BOOT_S)
    )
    text = _markdown(rows, options)
    options.output.write_text(text)
    print(text)
    return 0 if all(row.holds for row in rows) else 1


def _rows(conductor: Conductor, folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    yield from _chunked(conductor, folder, options)
    yield _size(conductor, folder)
    yield _flat(conductor, options)
    yield _with_service(conductor, folder, options)
    yield _memory(conductor)


def _chunked(conductor: Conductor, folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """4096 tiles in 64 chunks: computed once, and then rounds in which there is nothing to do."""
    work = work_of(folder, blocks=64, tile=64)
    with contest.our_worker(conductor.url, at_once=64, types=_TYPES):
        first = contest.chunks(conductor, work, folder / "chunked", workers=16)
        rounds = [
            contest.chunks(conductor, work, folder / "chunked", workers=16)
            for _ in range(options.rounds)
        ]
    spread = [each.fan_out_s for each in rounds]
    what = f"{work.tiles} no-op tiles in 64 chunks, s "
    what += f"(first run, which computes: {first.fan_out_s:.1f}), GET {rounds[0].size >> 10} KB"
    yield Row(what, _spread(spread), f"<= {_MOST_S}", median(spread) <= _MOST_S)


def _size(conductor: Conductor, folder: Path) -> Row:
    """Over 10 000 tiles, cut up as they are where nobody says how."""
    work = work_of(folder, blocks=169, tile=64)
    with contest.our_worker(conductor.url, at_once=8, types=_TYPES):
        ran = contest.chunks(conductor, work, folder / "size")
    what = f"GET of a workflow of {work.tiles} tiles in {ran.tasks} chunks, KB"
    return Row(what, f"{ran.size / 1024:.0f}", "<= 256", ran.size <= _MOST_GET)


def _flat(conductor: Conductor, options: argparse.Namespace) -> Row:
    """256 tasks that do nothing: the SDK's async worker, and ours on chunks without work."""
    with contest.bare_worker(conductor.url):
        contest.noops(conductor, _FLAT)
        bare = [contest.noops(conductor, _FLAT).fan_out_s for _ in range(options.rounds)]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        work = work_of(folder, blocks=_FLAT, tile=512)
        stack.enter_context(contest.our_worker(conductor.url, at_once=64, types=_TYPES))
        contest.chunks(conductor, work, folder / "flat", max_tasks=_FLAT, workers=64)
        ours = [
            contest.chunks(conductor, work, folder / "flat", max_tasks=_FLAT, workers=64).fan_out_s
            for _ in range(options.rounds)
        ]
    ratio = median(bare) / median(ours)
    told = f"{ratio:.2f} (ours {_spread(ours)} s, bare {_spread(bare)} s)"
    return Row(
        f"{_FLAT} flat tasks: our throughput / the SDK's", told, ">= 0.8", ratio >= _LEAST_SHARE
    )


def _with_service(conductor: Conductor, folder: Path, options: argparse.Namespace) -> Row:
    """256 tiles at a service of 50 ms, 16 calls at once, to the same calls by httpx alone."""
    work = work_of(folder, blocks=64, tile=256)
    target = f"{Path(contest.__file__).with_name('work.py')}:napping"
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
    ratio = median(bare) / median(ours[1:])
    told = f"{ratio:.2f} (ours {_spread(ours[1:])} s, bare {_spread(bare)} s)"
    return Row(f"{work.tiles} tiles at a service: our throughput / that of httpx", told, ">= 0.8",
               ratio >= _LEAST_SHARE)  # fmt: skip


def _memory(conductor: Conductor) -> Row:
    """A worker that polls for ten services and has done nothing yet."""
    types = [f"{PREFIX}service_{number}" for number in range(_SERVICES)]
    with contest.our_worker(conductor.url, at_once=2, types=types) as pid:
        time.sleep(3)
        used = contest.memory(pid)
    return Row(f"worker of {_SERVICES} services, MB", f"{used / 2**20:.0f}", "<= 100",
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


def _markdown(rows: list[Row], options: argparse.Namespace) -> str:
    told = (
        f"`python -m benchmarks.conductor --rounds {options.rounds}`; Conductor on SQLite, its "
        "workers and services on one machine. Seconds are min / median / max of a fan-out, from "
        "the scheduling of its first task to the end of its last. At the end of the benchmark, "
        f"other programs used {busy_share(2):.0%} of the machine."
    )
    table = [
        f"| {row.what} | {row.got} | {row.goal} | {'yes' if row.holds else 'NO'} |" for row in rows
    ]
    head = ["| measurement | figure | goal | reached |", "|---|---|---|---|"]
    lines = ["# Conductor", "", told, "", *head, *table]
    return "\n".join(lines) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conductor", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="data folder of a server that runs already")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
