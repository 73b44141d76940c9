"""Measure what the model is told: the activities alone, then small campaigns on each engine."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.scale.facts import MEASURED, Costs, Engine, Work, load_measured, tasks_of
from benchmarks.scale.model import simulate
from benchmarks.scale.runs import Case, Ran, run_case
from benchmarks.scale.work import pipeline_of, scenes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.scale.runs import Server

_PAUSE_S = 0.1
_SMALL = Work(2, 8, 8, wait_s=_PAUSE_S)
CASES = {
    "conductor": [Case(Work(4, 8, 8, wait_s=0.05), 1, 4, tasks) for tasks in (16, 256)],
    "airflow": [Case(_SMALL, 2, 1, tasks) for tasks in (2, 32)],
    "dask": [Case(_SMALL, 4, 1, tasks) for tasks in (4, 48)],
}
"""Runs from which the costs of an engine are taken: the same tiles in few tasks and in many."""

ENGINES = {
    "conductor": Engine("conductor", seen_s=30, task_cost_s=0.015),
    "airflow": Engine("airflow", seen_s=310, task_cost_s=0.3, tasks_per_worker=1),
    "dask": Engine("dask", seen_s=30, is_per_scene=True),
}
"""What is known of an engine before anything is measured: its settings."""


def measure_costs(folder: Path, rounds: int) -> Costs:
    """Measure the activities in this process: small and large scenes, few chunks and many."""
    taken = [
        [
            _activities(folder / f"{number}-{index}", scenes, side, chunks)
            for index, (scenes, side, chunks) in enumerate(_SHAPES)
        ]
        for number in range(rounds + 1)
    ][1:]  # the first round imports
    few, many, large, cut = (
        {name: median(each[index][name] for each in taken) for name in taken[0][0]}
        for index in range(len(_SHAPES))
    )
    plan_scene_s = max(0.0, (many["plan"] - few["plan"]) / 10)
    chunk_s = max(0.0, (cut["process"] - large["process"]) / (2 * (_CHUNKS - 1)))
    publish_tile_s = max(0.0, (large["publish"] - few["publish"]) / (2 * (144 - 16)))
    return Costs(
        plan_s=max(0.0, few["plan"] - 2 * plan_scene_s),
        plan_scene_s=plan_scene_s,
        chunk_s=chunk_s,
        tile_s=(large["process"] / 2 - chunk_s) / 144,
        close_scene_s=many["close"] / 12,
        publish_scene_s=max(0.0, few["publish"] / 2 - 16 * publish_tile_s),
        publish_tile_s=publish_tile_s,
    )


_CHUNKS = 36
_SHAPES = ((2, 4, 1), (12, 4, 1), (2, 12, 1), (2, 12, _CHUNKS))
"""Scenes, tiles of a side, chunks of a scene."""


def _activities(folder: Path, scenes: int, side: int, chunks: int) -> dict[str, float]:
    """Run the activities of a campaign one after another; return the seconds of each."""
    from pesto_runtime.campaigns import (
        CampaignSettings,
        close_campaign_phase,
        load_campaign,
        plan_campaign,
        process_task,
        publish_campaign,
        read_scenes,
    )
    from pesto_runtime.pipeline import Sizing
    from pesto_runtime.run.result import RunRecord, member_of
    from pesto_runtime.run.services import resolve_services

    pipeline, record = pipeline_of(0.0), RunRecord(engine={"name": "local", "run": folder.name})
    services = resolve_services(pipeline, base=folder.parent)
    listed = read_scenes(scenes_of(folder.parent / "scenes", scenes, side), pipeline, common={})
    settings = CampaignSettings(
        folder=folder, member=member_of(record.engine),
        sizing=Sizing(workers=chunks, max_tasks=chunks, tile=512),
    )  # fmt: skip
    times = [time.perf_counter()]
    href = plan_campaign(pipeline, services, listed, settings)
    times.append(time.perf_counter())
    for number in range(len(load_campaign(href).tasks[0])):
        process_task(href, 0, number, threads=1)
    times.append(time.perf_counter())
    close_campaign_phase(href, 0)
    times.append(time.perf_counter())
    publish_campaign(href, folder, record)
    times.append(time.perf_counter())
    names = ("plan", "process", "close", "publish")
    return {name: times[n + 1] - times[n] for n, name in enumerate(names)}


def measure_engine(name: str, server: Server, folder: Path, costs: Costs, rounds: int) -> Engine:
    """Measure an engine: processor seconds of tasks, then what remains of its times."""
    cases = CASES[name]
    run_case(server, cases[-1], folder / "first")  # the first run of a server is slow
    taken = [
        [run_case(server, case, folder / f"{n}-{index}") for n in range(rounds)]
        for index, case in enumerate(cases)
    ]
    for case, runs in zip(cases, taken, strict=True):
        print(case, *runs, sep="\n  ")
    return fitted(ENGINES[name], costs, cases, taken)


def fitted(
    engine: Engine, costs: Costs, cases: Sequence[Case], taken: Sequence[Sequence[Ran]]
) -> Engine:
    """Return an engine whose costs explain real runs of the same tiles in few tasks and in many.

    Processor seconds are the slopes over the number of tasks, the wait of a task is that by which
    the simulated times of the first and the last case differ as the real ones do, and what the
    engine adds to the other tasks is the rest.
    """
    tasks = [tasks_of(_single(engine, case.work), engine, case.fleet) for case in cases]
    scenes = cases[0].work.scenes if engine.is_per_scene else 1

    def middle(of: Callable[[Ran], float]) -> list[float]:
        return [median(of(ran) for ran in each) / scenes for each in taken]

    control, cpu = middle(lambda ran: ran.control_s), middle(lambda ran: ran.cpu_s)
    seconds = middle(lambda ran: ran.seconds)
    more = len(tasks[-1]) - len(tasks[0])
    control_s = max(0.0, (control[-1] - control[0]) / more)
    chunks_s = costs.chunk_s * (sum(map(len, tasks[-1])) - sum(map(len, tasks[0])))
    rest = (cpu[-1] - cpu[0]) - (control[-1] - control[0]) - chunks_s
    known = replace(engine, control_s=control_s, task_cpu_s=max(0.0, rest / more))
    difference = seconds[-1] - seconds[0]

    def total(each: Engine, case: Case) -> float:
        return simulate(_single(each, case.work), costs, each, case.fleet).seconds

    def excess(wait_s: float) -> float:
        each = replace(known, task_wait_s=wait_s)
        return total(each, cases[-1]) - total(each, cases[0]) - difference

    low, high = 0.0, 60.0
    for _ in range(40):
        wait_s = (low + high) / 2
        low, high = (low, wait_s) if excess(wait_s) > 0 else (wait_s, high)
    known = replace(known, task_wait_s=low)
    pairs = zip(seconds, cases, strict=True)
    added = max(0.0, median(real - total(known, case) for real, case in pairs))
    if engine.is_per_scene:
        return replace(known, scene_s=added)
    return replace(known, serial_s=added)


def _single(engine: Engine, work: Work) -> Work:
    return replace(work, scenes=1) if engine.is_per_scene else work


def save(costs: Costs | None = None, engine: Engine | None = None) -> None:
    """Store what was measured, and leave the rest as it is."""
    found, engines = load_measured() if MEASURED.exists() else (Costs(), dict[str, Engine]())
    if engine is not None:
        engines[engine.name] = engine
    document = {
        "costs": _rounded(asdict(costs or found)),
        "engines": [_rounded(asdict(engines[name])) for name in sorted(engines)],
    }
    MEASURED.write_text(json.dumps(document, indent=2) + "\n")


def _rounded(values: dict[str, object]) -> dict[str, object]:
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in values.items()
    }
