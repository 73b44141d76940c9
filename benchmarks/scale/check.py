"""Compare the model with real runs of sizes, workers, tiles and kills that it was not fitted to."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.goals import Goal, missed
from benchmarks.scale.facts import Failures, Limits, Work, load_measured
from benchmarks.scale.model import simulate
from benchmarks.scale.runs import Case, run_case

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.scale.model import Outcome
    from benchmarks.scale.runs import Ran, Server

CASES = {
    "conductor": (
        Case(Work(3, 10, 10, wait_s=0.15), 1, 6, 16),
        Case(Work(6, 6, 6, wait_s=0.2), 2, 2, 24),
        Case(Work(12, 5, 5, wait_s=0.2), 3, 1, 48),
        Case(Work(3, 6, 6, service_s=0.3), 2, 1, 12, service_slots=3),
        Case(Work(4, 8, 8, wait_s=0.4), 2, 2, 16, kill_s=8.0),
    ),
    "airflow": (
        Case(Work(4, 6, 6, wait_s=0.3), 3, 1, 6),
        Case(Work(2, 10, 10, wait_s=0.3), 4, 1, 8),
        Case(Work(8, 4, 4, wait_s=0.4), 2, 1, 4),
        Case(Work(3, 7, 7, wait_s=0.5), 2, 1, 4, kill_s=8.0),
    ),
    "dask": (
        Case(Work(3, 10, 10, wait_s=0.1), 3, 1, 24),
        Case(Work(8, 5, 5, wait_s=0.2), 2, 1, 10),
        Case(Work(4, 6, 6, service_s=0.3), 2, 1, 8, service_slots=3),
        Case(Work(1, 12, 12, wait_s=0.25), 3, 1, 12, kill_s=4.0),
    ),
}
CHECKED = Path(__file__).with_name("checked.json")
_MOST = 0.2
_SEEN_S = {"airflow": 10.0, "dask": 0.0}
"""Here a kill ends a process, not a machine: it is seen at once. Airflow retries after 10 s."""
_NEVER_S = 1e9


@dataclass(frozen=True)
class Row:
    """A case, its prediction, and its real runs.

    Attributes:
        case: In words.
        predicted_s: Seconds.
        measured_s: Seconds of each real run.
        parts: Name -> (predicted, measured) seconds, of the first run.
        load: Tasks that the machine ran or had ready before the runs, mean of a minute.
    """

    case: str
    predicted_s: float
    measured_s: list[float]
    parts: dict[str, tuple[float, float]]
    load: float

    @property
    def ratio(self) -> float:
        """Predicted by measured seconds."""
        return self.predicted_s / median(self.measured_s)


def predict(engine: str, case: Case) -> Outcome:
    """Return what the model says of a case."""
    costs, engines = load_measured()
    known = engines[engine]
    failures = Failures()
    if case.kill_s:
        back_s = 0.0 if engine == "airflow" else _NEVER_S  # there, the slot stays
        failures = Failures(((case.kill_s, 0),), back_s=back_s)
        known = replace(known, seen_s=_SEEN_S.get(engine, known.seen_s))
    return simulate(
        case.work, costs, known, case.fleet, Limits(service_slots=case.service_slots), failures
    )


def check(engine: str, server: Server, folder: Path, rounds: int, chosen: Sequence[int]) -> int:
    """Run cases of an engine, and write the results; 1 where one is not within 20 %.

    Args:
        engine: Its name.
        server: A running one.
        folder: For the runs.
        rounds: Real runs of each case.
        chosen: Numbers of cases; all if it is empty.
    """
    run_case(server, replace(CASES[engine][0], kill_s=0.0), folder / "first")
    rows = {}
    for number, case in enumerate(CASES[engine]):
        if chosen and number not in chosen:
            continue
        load = os.getloadavg()[0]
        runs = [run_case(server, case, folder / f"{number}-{n}") for n in range(rounds)]
        rows[number] = _row(engine, case, runs, load)
        print(f"{rows[number]} ratio {rows[number].ratio:.2f}", flush=True)
        _save(engine, number, rows[number])
    return 0 if all(map(_is_near, rows.values())) else 1


def _save(engine: str, number: int, row: Row) -> None:
    """Store a row, with earlier runs of the same prediction, and write the page of all rows."""
    found = json.loads(CHECKED.read_text()) if CHECKED.exists() else {}
    rows = found.setdefault(engine, {})
    before = rows.get(str(number))
    if before and before["predicted_s"] == row.predicted_s:
        row = replace(row, measured_s=[*before["measured_s"], *row.measured_s])
    rows[str(number)] = asdict(row)
    CHECKED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    Path(__file__).with_name("RESULTS.md").write_text(markdown())


def _row(engine: str, case: Case, runs: list[Ran], load: float) -> Row:
    outcome = predict(engine, case)
    parts = {
        name: (outcome.parts[name], seconds) for name, seconds in runs[0].parts.items() if seconds
    }
    return Row(_words(case), outcome.seconds, [run.seconds for run in runs], parts, load)


def _words(case: Case) -> str:
    work = case.work
    kind = f"a service of {case.service_slots}" if case.service_slots else "in the task"
    killed = f", a worker killed after {case.kill_s:g} s" if case.kill_s else ""
    return (
        f"{work.scenes} scenes of {work.columns} x {work.rows} tiles, {case.pause_s:g} s each "
        f"{kind}; {case.workers} x {case.slots} slots, at most {case.max_tasks} tasks{killed}"
    )


def _is_near(row: Row) -> bool:
    return abs(row.ratio - 1) <= _MOST


def markdown() -> str:
    """Return the page of results, of what was measured and checked last."""
    found = {
        engine: [Row(**row) for row in each.values()]
        for engine, each in json.loads(CHECKED.read_text()).items()
    }
    goals = [
        Goal(f"{engine}: {row.case}", "within 20 %", f"{row.ratio:.2f}", _is_near(row), _why(row))
        for engine, rows in found.items()
        for row in rows
    ]
    lines = [
        _line(engine, row, case)
        for engine, rows in found.items()
        for row, case in zip(rows, CASES[engine], strict=False)
    ]
    return _PAGE.format(
        missed=missed(goals), cores=os.cpu_count(), lines="\n".join(lines),
        costs="\n".join(_costs()),
    )  # fmt: skip


_PAGE = """# Scale: the model against runs of this machine

{missed}

## Cases

Written by `python -m benchmarks.scale check ENGINE`. No case has the sizes, workers or tiles with
which the costs were measured, and these runs do not change the costs. {cores} cores, on which
server, workers and service are together. Seconds are from the start of a run to its end;
pauses are those of the tiles alone, divided by the slots: what a formula without the model says.
The ratio is predicted by measured; load is that of the minute before the runs.

| engine | case | pauses, s | predicted, s | measured, s: min / median / max | ratio | near | load |
|---|---|---|---|---|---|---|---|
{lines}

## Costs

`python -m benchmarks.scale measure [ENGINE]`, seconds. The names are those of `facts.py`.

{costs}
"""


def _line(engine: str, row: Row, case: Case) -> str:
    times = sorted(row.measured_s)
    spread = f"{times[0]:.1f} / {median(times):.1f} / {times[-1]:.1f}"
    near = "yes" if _is_near(row) else "NO"
    at_once = case.service_slots or case.workers * case.slots
    alone_s = case.work.tiles * case.pause_s / at_once
    cells = [engine, row.case, f"{alone_s:.1f}", f"{row.predicted_s:.1f}", spread]
    cells += [f"{row.ratio:.2f}", near, f"{row.load:.1f}"]
    return f"| {' | '.join(cells)} |"


def _why(row: Row) -> str:
    """Name the part that is farthest from its prediction, where the engine tells the parts."""
    if not row.parts:
        return ""
    name, (predicted, measured) = max(
        row.parts.items(), key=lambda item: abs(item[1][0] - item[1][1])
    )
    return f"the {name}: predicted {predicted:.1f} s, measured {measured:.1f} s"


def _costs() -> Iterable[str]:
    costs, engines = load_measured()
    yield "| activities | " + " | ".join(asdict(costs)) + " |"
    yield "|---" * (len(asdict(costs)) + 1) + "|"
    yield "| | " + " | ".join(f"{value:g}" for value in asdict(costs).values()) + " |"
    yield ""
    names = ("serial_s", "scene_s", "control_s", "task_cpu_s", "task_wait_s",
             "seen_s")  # fmt: skip
    yield "| engine | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for name, engine in engines.items():
        yield f"| {name} | " + " | ".join(f"{getattr(engine, each):g}" for each in names) + " |"
