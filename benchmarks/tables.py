"""Results as Markdown: the machine, a table for each job, and how to read them."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING

import rasterio

from benchmarks.arena import WORKERS, core_count
from benchmarks.goals import Goal, at_least, at_most, missed
from benchmarks.jobs import JOBS
from benchmarks.peers import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.arena import Results, Standing

_HEAD = (
    "contestant",
    "seconds min / median / max",
    "with start-up",
    "CPU s",
    "Mpx per core-second",
    "x limit",
    "x by hand",
    "EOScale's best / this",
    "peak MB",
    "others",
    "identical",
)
_LIMIT, _HAND, _PEER, _OURS = "limit", "hand-written threads", "EOScale", "pesto"
_THREADED = "GDAL threads"
_DASK = "Dask"
_BY_HAND = {"A": 1.10, "B": 1.10, "C": 1.2, "D": 1.10, "E": 1.2}
_LEAST_RATE, _RATED = 25.0, "ABD"
_MOST_BYTES, _MOST_OF_THREADS, _LONG_S = 300e6, 1.25, 10.0
_CAUSE = "start and end are on one core: plan, product, report (0.4 s); resume"
_RATE_CAUSE = "codecs and start-up: see the rate of `limit`"
_PROCESS_CAUSE = "each worker process imports the libraries again: 2 CPU seconds"


def markdown(results: Results) -> str:
    """Return the whole report."""
    parts = [
        "# Benchmarks",
        "Written by `python -m benchmarks` (`make bench`). Compare ratios, not seconds.",
        missed([*_goals(results)]),
        _machine(),
        _conditions(results),
        *(
            _section(letter, standings, results.size)
            for letter, standings in results.standings.items()
        ),
        "## Reading",
        "\n".join(f"- {line}" for line in _reading(results)),
    ]
    return "\n\n".join(parts) + "\n"


def all_identical(results: Results) -> bool:
    """Whether every figure has a passing control: right answers, and a comparison that can fail."""
    each = [one.identical for jobs in results.standings.values() for one in jobs.values()]
    return all(each) and results.control > 0


def _machine() -> str:
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "rasterio"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {core_count()} cores, {ram:.0f} GiB, "
        f"Python {platform.python_version()}, {libraries} (GDAL {rasterio.__gdal_version__}), "
        f"EOScale {VERSION}, pesto-workflows {version('pesto-workflows')}."
    )


def _conditions(results: Results) -> str:
    return f"""\
Scenes of {results.size} x {results.size} pixels, uint16, blocks 512, deflate 4, predictor 2;
scenes and products compress 2:1. {WORKERS} workers, page cache warm. Contestants run in turns, each
in a new process, {results.rounds} timed rounds; ratios are within a round: median (min-max).

- `seconds`: of the work, its libraries loaded, for pesto until its report is written;
  `with start-up`: of the whole process.
- `Mpx per core-second`: megapixels of the scene by CPU seconds of the whole process, start-up
  included; no codec distorts it as it does `x limit`.
- `limit`: reads the scene and writes the finished result with GDAL's threads, computes nothing.
- `EOScale's best / this`: above 1 means faster than the fastest EOScale of the round.
- `EOScale, … GDAL threads`: with GDAL_NUM_THREADS set, which EOScale does not set by itself.
- `peak`: highest sum of PSS over the process tree, sampled every 50 ms in an untimed round.
- `others`: largest share of the machine that other programs used during a run; above 10 %, the run
  may have been repeated, and the least disturbed run counts.
- `identical`: every result of every round equals the job on the whole array, bit for bit. The
  same comparison finds {results.control} wrong pixels if job A has a margin of 11 instead of 12."""


def _goals(results: Results) -> Iterator[Goal]:
    """Yield the goals of every job, against the contestants that took part."""
    for letter, everyone in results.standings.items():
        standings = {name: each for name, each in everyone.items() if each.identical}
        ours = [name for name in standings if name.startswith(_OURS)]
        if not ours:
            yield Goal(f"{letter}: right pixels", "identical", "no", is_reached=False)
            continue
        best = _fastest(standings, _OURS)
        seconds = _seconds(standings[best])
        for peer, limit in ((_HAND, _BY_HAND[letter]), (_DASK, 1.0), (_THREADED, 1.0)):
            for name in [name for name in standings if peer in name and name not in ours]:
                ratio = median(_pairs(seconds, _seconds(standings[name])))
                yield at_most(f"{letter}: seconds / those of {name}", ratio, limit, cause=_CAUSE)
        if letter in _RATED:
            yield at_least(f"{letter}: Mpx per core-second", _rate(standings[best], results.size),
                           _LEAST_RATE, digits=1, cause=_RATE_CAUSE)  # fmt: skip
        yield from _own_goals(letter, {name: standings[name] for name in ours})


def _own_goals(letter: str, ours: Mapping[str, Standing]) -> Iterator[Goal]:
    for name, standing in ours.items():
        if standing.peak_bytes is not None:
            yield at_most(f"{letter}: peak MB of {name}", standing.peak_bytes / 1e6,
                          _MOST_BYTES / 1e6, digits=0)  # fmt: skip
    by_kind = {name.rpartition(" ")[2]: _seconds(each) for name, each in ours.items()}
    threads, processes = by_kind.get("threads", []), by_kind.get("processes", [])
    if threads and processes and median(threads) >= _LONG_S:
        ratio = median(_pairs(processes, threads))
        yield at_most(f"{letter}: processes / threads", ratio, _MOST_OF_THREADS,
                      cause=_PROCESS_CAUSE)  # fmt: skip


def _rate(standing: Standing, size: int) -> float:
    return size * size / 1e6 / median(run.cpu_seconds for run in standing.runs)


def _section(letter: str, standings: Mapping[str, Standing], size: int) -> str:
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(name, standings, size) for name in standings)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"## {letter}: {JOBS[letter].title}\n\n{table}"


def _row(name: str, standings: Mapping[str, Standing], size: int) -> tuple[str, ...]:
    standing = standings[name]
    if not standing.identical:
        return (name, *("not reported",) * (len(_HEAD) - 2), "NO")
    is_limit = name == _LIMIT
    seconds = _seconds(standing)
    whole = median(run.whole_seconds for run in standing.runs)
    peak = standing.peak_bytes
    return (
        name,
        f"{min(seconds):.2f} / {median(seconds):.2f} / {max(seconds):.2f}",
        "-" if is_limit else f"{whole:.2f}",
        f"{median(run.cpu_seconds for run in standing.runs):.1f}",
        f"{_rate(standing, size):.1f}",
        _ratio(seconds, _seconds(standings[_LIMIT])),
        "-" if is_limit or _HAND not in standings else _ratio(seconds, _seconds(standings[_HAND])),
        "-" if is_limit else _ratio(_peers_best(standings), seconds),
        "-" if is_limit or peak is None else f"{peak / 1e6:.0f}",
        f"{max(run.others for run in standing.runs):.0%}",
        "yes",
    )


def _seconds(standing: Standing) -> list[float]:
    return [run.seconds for run in standing.runs]


def _peers_best(standings: Mapping[str, Standing]) -> list[float]:
    """Seconds of the fastest EOScale of every round; empty where none took part."""
    peers = [_seconds(s) for name, s in standings.items() if name.startswith(_PEER) and s.identical]
    return [min(each) for each in zip(*peers, strict=True)]


def _pairs(first: list[float], second: list[float]) -> list[float]:
    return [a / b for a, b in zip(first, second, strict=False)]


def _ratio(first: list[float], second: list[float]) -> str:
    pairs = _pairs(first, second)
    if not pairs:
        return "-"
    return f"{median(pairs):.2f} ({min(pairs):.2f}-{max(pairs):.2f})"


def _reading(results: Results) -> Iterator[str]:
    for letter, all_standings in results.standings.items():
        standings = {name: each for name, each in all_standings.items() if each.identical}
        if {_LIMIT, _HAND} <= set(standings) and any(n.startswith(_OURS) for n in standings):
            yield f"{letter}: {_compared(standings)}"
    runs = [run for jobs in results.standings.values() for each in jobs.values()
            for run in each.runs]  # fmt: skip
    noise = [run.others for run in runs]
    yield (
        f"Noise: other programs used {median(noise):.0%} of the machine while a contestant ran "
        f"(median), {max(noise):.0%} at most."
    )
    yield (
        "Only pesto stores every finished block, so that a killed run can be resumed, writes one "
        "canonical file, hashes it, and writes a report with previews."
    )


def _compared(standings: Mapping[str, Standing]) -> str:
    name = _fastest(standings, _OURS)
    ours = _seconds(standings[name])
    after = median(run.after_seconds for run in standings[name].runs)
    told = [
        f"{name} takes {median(_pairs(ours, _seconds(standings[_LIMIT]))):.2f} x the limit",
        f"{median(_pairs(ours, _seconds(standings[_HAND]))):.2f} x the hand-written threads",
    ]
    if peers := _peers_best(standings):
        plain = {peer: each for peer, each in standings.items() if not peer.endswith(_THREADED)}
        told += [
            f"is {median(_pairs(_peers_best(plain), ours)):.2f} times as fast as EOScale",
            f"{median(_pairs(peers, ours)):.2f} times as fast as EOScale with GDAL threads",
            f"needs {_memory(standings, name)} of the memory of the smallest EOScale",
        ]
    report = f"; {after:.2f} s of it are for the report, after the product is complete."
    return ", ".join(told) + report


def _fastest(standings: Mapping[str, Standing], prefix: str) -> str:
    names = [name for name in standings if name.startswith(prefix)]
    return min(names, key=lambda name: median(_seconds(standings[name])))


def _memory(standings: Mapping[str, Standing], name: str) -> str:
    peers = [each.peak_bytes for peer, each in standings.items() if peer.startswith(_PEER)]
    least = min((peak for peak in peers if peak), default=0)
    ours = standings[name].peak_bytes
    return f"{ours / least:.0%}" if ours and least else "an unknown part"
