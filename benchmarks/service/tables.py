"""Write the results as Markdown: figures, goals, and the conditions of the measurement."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.goals import Goal, at_most, missed
from benchmarks.service.contest import CLIENTS, FASTAPI, OURS, PESTO, STARLETTE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.service.contest import Standing, Standings
    from benchmarks.service.health import Health
    from benchmarks.service.memory import Memory

_GOALS = (
    ("tiny JSON", "tiny JSON", FASTAPI, 0.60),
    ("tiny JSON", "tiny JSON", PESTO, 8.0),
    ("3 MiB raw .npy", "3 MiB raw .npy", STARLETTE, 0.80),
    ("3 MiB multipart", "3 MiB raw .npy", STARLETTE, 0.35),
    ("3 MiB raw .npy", "3 MiB base64 GeoTIFF", PESTO, 5.0),
    ("3 MiB base64 GeoTIFF", "3 MiB base64 GeoTIFF", PESTO, 1.1),
    ("3 MiB by reference", "3 MiB by reference", PESTO, 1.5),
)
"""Our event, the event of the other contestant, its name, and the required ratio of successes."""

_GOALS_OF_8 = {("tiny JSON", FASTAPI): 0.75}
"""Event and other contestant -> the ratio that is required with 8 clients, where it is another."""

_DESCRIBE_MS, _HEALTH_MS = 5, 100
_SERVER_MB, _WORKER_MB, _PEAK = 120.0, 80.0, 2.5


def markdown(
    standings: Standings,
    right: Mapping[str, bool],
    health: Mapping[str, Health],
    memory: Memory,
    *,
    rounds: int,
    seconds: float,
    workers: int,
) -> str:
    """Return the whole report."""
    goals = [*_goals(standings, health, memory)]
    parts = [
        "# The service",
        "Written by `python -m benchmarks.service`. Compare ratios, not rates.",
        missed(goals),
        _machine(),
        _conditions(standings, rounds=rounds, seconds=seconds, workers=workers),
        "## All goals\n\n" + "\n".join(_table(goals)),
        "## Successes per second\n\n" + "\n".join(_rates(standings)),
        "## /health while 60 MB bodies arrive\n\n" + "\n".join(_health(health)),
        "## Memory of pesto-workflows\n\n" + "\n".join(_memory(memory)),
        f"## Control\n\n{_control(right)}",
    ]
    return "\n\n".join(parts) + "\n"


def _machine() -> str:
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = ("uvicorn", "starlette", "fastapi", "numpy", "rasterio", "pesto-workflows")
    told = ", ".join(f"{name} {version(name)}" for name in names)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.machine()}, {cores} cores, {ram:.0f} "
        f"GiB, Python {platform.python_version()}, {told}."
    )


def _conditions(standings: Standings, *, rounds: int, seconds: float, workers: int) -> str:
    others, worst = _others(standings)
    return f"""\
wrk with one thread, keep-alive, {seconds:g} s per run, {rounds} rounds; contestants run in turns,
and another one starts each round. pesto-workflows runs with isolation and {workers} workers; each
contestant has one uvicorn process of the same version, on the same machine as wrk. Successes are
responses with 2xx: PESTO 1.7.2 returns 429 while a call runs. `echo of a worker` is the lowest
possible cost of isolation: HTTP and a worker process that returns the bytes it receives. Images
are 4 x 627 x 627 uint16, in requests and in responses. While a contestant ran, other programs used
{others} of the machine (median; {worst} at most)."""


def _others(standings: Standings) -> tuple[str, str]:
    found = [run.others for standing in standings.values() for run in standing.runs]
    return f"{median(found):.0%}", f"{max(found):.0%}"


def _goals(standings: Standings, health: Mapping[str, Health], memory: Memory) -> Iterator[Goal]:
    for event, others_event, other, goal in _GOALS:
        for clients in CLIENTS:
            own = standings.get((event, clients, OURS))
            peer = standings.get((others_event, clients, other))
            if own is None or peer is None:
                continue
            goal = _GOALS_OF_8.get((event, other), goal) if clients == 8 else goal  # noqa: PLW2901  # the goal of these
            pairs = zip(own.runs, peer.runs, strict=True)
            ratios = [a.successes / b.successes for a, b in pairs if b.successes]
            yield Goal(
                f"{event} / {other}'s {others_event}, {clients} clients",
                f">= {goal:g} x",
                _spread(ratios),
                median(ratios) >= goal,
            )
    p99 = [run.p99_ms for run in standings["describe", 1, OURS].runs]
    yield Goal("describe p99, ms", f"<= {_DESCRIBE_MS}", _spread(p99), median(p99) <= _DESCRIBE_MS)
    yield at_most("worst /health, ms", health[OURS].worst_ms, _HEALTH_MS, digits=1)
    yield at_most("idle server, MB", memory.server / 1e6, _SERVER_MB, digits=0)
    yield at_most("idle worker, MB", max(memory.workers) / 1e6, _WORKER_MB, digits=0)
    for name, ratio in memory.peaks.items():
        yield at_most(f"peak over idle / body, {name}", ratio, _PEAK)


def _table(goals: list[Goal]) -> Iterator[str]:
    yield "| figure | goal | measured: min / median / max | reached |"
    yield "|---|---|---|---|"
    for goal in goals:
        yield f"| {goal.what} | {goal.wanted} | {goal.figure} | {_verdict(goal.is_reached)} |"


def _rates(standings: Standings) -> Iterator[str]:
    head = ("event", "clients", "contestant", "2xx/s min / median / max", "refused/s", "p50 ms")
    yield f"| {' | '.join(head)} | p99 ms |"
    yield "|---|---|---|---|---|---|---|"
    for (event, clients, name), standing in standings.items():
        yield f"| {event} | {clients} | {name} | {_row(standing)} |"


def _row(standing: Standing) -> str:
    runs = standing.runs
    lost = sum(run.lost for run in runs)
    return " | ".join(
        (
            _spread([run.successes for run in runs]),
            f"{median(run.failed for run in runs):.0f}" + (f", {lost} lost" if lost else ""),
            f"{median(run.p50_ms for run in runs):.1f}",
            f"{median(run.p99_ms for run in runs):.1f}",
        )
    )


def _health(health: Mapping[str, Health]) -> Iterator[str]:
    yield "| contestant | p50 ms | worst ms | health requests | responses to large requests |"
    yield "|---|---|---|---|---|"
    for name, each in health.items():
        counts = {status: each.statuses.count(status) for status in sorted(set(each.statuses))}
        told = ", ".join(f"{count} x {status}" for status, count in counts.items()) or "none sent"
        yield f"| {name} | {each.p50_ms:.1f} | {each.worst_ms:.1f} | {each.asked} | {told} |"


def _memory(memory: Memory) -> Iterator[str]:
    workers = ", ".join(f"{each / 1e6:.0f}" for each in memory.workers)
    yield f"Idle, MB of PSS: server {memory.server / 1e6:.0f}, workers {workers}."
    yield ""
    for name, ratio in memory.peaks.items():
        yield f"- one call with {name}: peak over idle is {ratio:.1f} times the body"


def _control(right: Mapping[str, bool]) -> str:
    wrong = [name for name, is_right in right.items() if not is_right]
    if wrong:
        return f"**Wrong results**, whose figures are not valid: {'; '.join(wrong)}."
    return f"All {len(right)} returned images are the inverted image, pixel for pixel."


def _spread(values: list[float]) -> str:
    digits = 2 if max(values) < 100 else 0
    return " / ".join(f"{each:.{digits}f}" for each in (min(values), median(values), max(values)))


def _verdict(reached: bool) -> str:
    return "yes" if reached else "**no**"
