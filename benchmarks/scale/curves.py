"""Draw the curves of `docs/explanation/scale.md`, and print its tables."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scale.facts import Failures, Fleet, Limits, Work, load_measured
from benchmarks.scale.model import simulate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.scale.model import Outcome

WORK = Work(1000, 40, 25, cpu_s=1.0, read_bytes=0.4e6, write_bytes=0.13e6)
"""A million tiles of a processor second each."""
STORE = Limits(requests_per_s=5000, bytes_per_s=1.2e9, latency_s=0.03)
"""As a bucket in the machines' region is said to be; not measured here."""
KILLS, _BACK_S = 0.2, 60.0
"""Kills of each worker and hour; seconds until it is there again."""
WORKERS, MOST = (1, 10, 30, 100, 128, 256, 1000), 256
_IMAGES = Path(__file__).parents[2] / "docs" / "images"
_COLOURS = {"airflow": "#c2410c", "conductor": "#0f766e", "dask": "#1d4ed8"}
_PARTS = {"plan": "#64748b", "fan-out": "#0f766e", "close": "#a855f7", "publish": "#c2410c",
          "engine": "#1d4ed8"}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A campaign to simulate.

    Attributes:
        engine: Name of the engine.
        workers: Workers of one slot and one core.
        max_tasks: Most tasks.
        work: The work.
        threads: Tiles at once of a task.
        service_slots: Tiles at once of the service; 0 if there is none.
        per_hour: Kills of each worker and hour.
    """

    engine: str
    workers: int = 100
    max_tasks: int = MOST
    work: Work = WORK
    threads: int = 1
    service_slots: int = 0
    per_hour: float = 0.0


def answer(question: Question) -> Outcome:
    """Simulate a campaign."""
    costs, engines = load_measured()
    fleet = Fleet(question.workers, threads=question.threads, max_tasks=question.max_tasks)
    return simulate(
        question.work, costs, engines[question.engine], fleet,
        replace(STORE, service_slots=question.service_slots),
        Failures(per_hour=question.per_hour, back_s=_BACK_S),
    )  # fmt: skip


def draw() -> None:
    """Simulate all, write the pictures, print the tables."""
    curves = [Question(e, n, per_hour=k) for k in (0.0, KILLS) for e in _COLOURS for n in WORKERS]
    changes = [each for _, group in _changes() for each in group]
    with ProcessPoolExecutor() as pool:
        asked = dict.fromkeys([*curves, *changes])
        found = dict(zip(asked, pool.map(answer, asked), strict=True))
    lines = [
        Line(
            f"{engine}, kills" if kills else engine,
            [(n, found[Question(engine, n, per_hour=kills)].seconds / 60) for n in WORKERS],
            colour,
            is_dashed=bool(kills),
        )
        for engine, colour in _COLOURS.items()
        for kills in (0.0, KILLS)
    ]
    ideal = [(n, WORK.tiles * WORK.cpu_s / n / 60) for n in WORKERS]
    lines.append(Line("tiles / workers", ideal, "#94a3b8", is_dashed=False))
    _save("scale-workers", chart(lines, "workers", "minutes", "Minutes of a million tiles"))
    shares = {f"{e}, {n}": found[Question(e, n)] for n in (30, 100, 1000) for e in _COLOURS}
    _save("scale-parts", bars(shares))
    for n in WORKERS:
        cells = (_words(found[Question(e, n, per_hour=k)]) for e in _COLOURS for k in (0.0, KILLS))
        print(f"| {n} | {' | '.join(cells)} |")
    for what, group in _changes():
        print(f"| {what} | {' | '.join(_words(found[each]) for each in group)} |")
    for name, outcome in shares.items():
        print(name, outcome.parts, outcome.busy)


def _changes() -> Sequence[tuple[str, Sequence[Question]]]:
    """Return what can be changed, and the questions about it for each engine."""
    service = replace(WORK, cpu_s=0.05, service_s=1.0)
    changed: dict[str, dict[str, object]] = {
        "as above": {},
        **{f"`max_tasks` {most}": {"max_tasks": most} for most in (64, 100, 200)},
        "tiles of 1024 pixels": {"work": _larger()},
        "one kill in an hour": {"per_hour": 1.0},
        **{
            f"the algorithm is a service for {slots} tiles at once": {
                "work": service, "threads": 8, "service_slots": slots,
            }
            for slots in (100, 1000)
        },
    }  # fmt: skip
    return [
        (what, [replace(Question(engine), **facts) for engine in _COLOURS])  # type: ignore[arg-type]
        for what, facts in changed.items()
    ]


def _larger() -> Work:
    """The same pixels in tiles of 1024: a quarter of the requests, four times their bytes."""
    return replace(WORK, columns=20, rows=13, cpu_s=4.0, read_bytes=1.6e6, write_bytes=0.52e6)


def _words(outcome: Outcome) -> str:
    return f"{outcome.seconds / 60:.0f} min, {outcome.bottleneck}"


@dataclass(frozen=True)
class Line:
    """A curve: its name, its points, its colour."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    is_dashed: bool


def chart(lines: Sequence[Line], across: str, up: str, title: str) -> str:
    """Return an SVG of curves with logarithmic axes."""
    left, top, width, height = 60, 30, 480, 340
    x = _scale([at for line in lines for at, _ in line.points], left, left + width)
    y = _scale([at for line in lines for _, at in line.points], top + height, top)
    made = [f'<text x="{left}" y="18" font-weight="bold">{title}</text>']
    for axis, place in ((x, "x"), (y, "y")):
        for power in range(-2, 7):
            at = axis(10.0**power)
            if place == "x" and left - 1 <= at <= left + width + 1:
                made.append(_rule(at, top, at, top + height))
                made.append(_text(at, top + height + 16, f"{10**power:g}", "middle"))
            if place == "y" and top - 1 <= at <= top + height + 1:
                made.append(_rule(left, at, left + width, at))
                made.append(_text(left - 6, at + 4, f"{10.0**power:g}", "end"))
    made.append(_text(left + width, top + height + 34, across, "end"))
    made.append(_text(left, top + height + 34, up, "start"))
    for number, line in enumerate(lines):
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line.points)
        dash = ' stroke-dasharray="6 4"' if line.is_dashed else ""
        pen = f'fill="none" stroke="{line.colour}" stroke-width="2"{dash}'
        made.append(f'<polyline points="{path}" {pen}/>')
        at = top + 16 + 22 * number
        made.append(f'<path d="M{left + width + 14},{at - 4}h26" {pen}/>')
        made.append(_text(left + width + 46, at, line.name, "start"))
    return _svg(720, top + height + 44, title, made)


def bars(outcomes: dict[str, Outcome]) -> str:
    """Return an SVG with a bar for each outcome, divided by the shares of its parts."""
    title = "Shares of the time, by engine and workers"
    made = [f'<text x="10" y="18" font-weight="bold">{title}</text>']
    for number, (name, outcome) in enumerate(outcomes.items()):
        at, top = 140.0, 34 + 24 * number
        made.append(_text(130, top + 14, name, "end"))
        for part, colour in _PARTS.items():
            wide = 480 * outcome.parts[part] / outcome.seconds
            made.append(f'<rect x="{at:.1f}" y="{top}" width="{wide:.1f}" height="18" '
                        f'fill="{colour}"/>')  # fmt: skip
            at += wide
        made.append(_text(628, top + 14, f"{outcome.seconds / 60:.0f} min", "start"))
    bottom = 34 + 24 * len(outcomes) + 16
    for number, (part, colour) in enumerate(_PARTS.items()):
        at = 140 + 100 * number
        made.append(f'<rect x="{at}" y="{bottom - 11}" width="12" height="12" fill="{colour}"/>')
        made.append(_text(at + 18, bottom, part, "start"))
    return _svg(720, bottom + 12, title, made)


def _scale(values: Sequence[float], start: float, stop: float) -> Callable[[float], float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    return lambda value: start + (math.log10(value) - low) / (high - low) * (stop - start)


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}" stroke="#cbd5e1"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _svg(width: int, height: int, title: str, made: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="sans-serif" font-size="13"><title>{title}'
        f'</title><rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(made) + "\n</svg>\n"
    )


def _save(name: str, text: str) -> None:
    (_IMAGES / f"{name}.svg").write_text(text)
