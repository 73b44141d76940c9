"""The model of scale: times computed by hand; nothing is lost, or stored twice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale.facts import Costs, Engine, Failures, Fleet, Limits, Work, tasks_of
from benchmarks.scale.measure import fitted
from benchmarks.scale.model import simulate
from benchmarks.scale.runs import Case, Ran
from benchmarks.scale.work import pipeline_of, scenes_of

if TYPE_CHECKING:
    from pathlib import Path

FREE, PLAIN = Costs(), Engine("plain")
ONE = Fleet(1, max_tasks=1)


def test_one_worker_and_two_tiles_by_hand() -> None:
    """Each part of a campaign of one scene, as a person adds it up."""
    costs = Costs(
        plan_s=1, plan_scene_s=0.5, chunk_s=0.25, tile_s=0.125, close_scene_s=2,
        publish_scene_s=4, publish_tile_s=8,
    )  # fmt: skip
    engine = Engine("e", serial_s=16, control_s=0.75, task_cpu_s=1, task_wait_s=2)
    done = simulate(Work(1, 2, 1, cpu_s=3, wait_s=5), costs, engine, ONE)
    # one task: 0.75 of the server, 2 of waiting, 1 to start; a chunk 0.25; two tiles
    fan_out = 0.75 + 2 + 1 + 0.25 + 2 * (0.125 + 3 + 5)
    assert done.parts == {
        "plan": 1.5, "fan-out": fan_out, "close": 2, "publish": 4 + 2 * 8, "engine": 16,
    }  # fmt: skip
    assert done.busy["cores"] == pytest.approx((1 + 0.25 + 2 * 3.125) / fan_out)
    assert (done.tasks, done.computed, done.stored) == (1, 2, {0: 2})


def test_the_control_serves_one_task_after_another() -> None:
    """Four tasks of one tile on four workers begin one, two, three, four control times late."""
    engine, work = Engine("e", control_s=3), Work(1, 4, 1, wait_s=10)
    done = simulate(work, FREE, engine, Fleet(4, max_tasks=4, sized_for=4))
    assert (done.tasks, done.seconds) == (4, 4 * 3 + 10)
    shared = Fleet(4, hosts=1, cores=1, is_shared=True, max_tasks=4, sized_for=4)
    computing = replace(work, cpu_s=1)  # its only core first serves the control, 12 s
    assert simulate(computing, FREE, engine, shared).seconds == 4 * 3 + 4 * 1 + 10
    assert simulate(computing, FREE, engine, replace(shared, is_shared=False, hosts=0)).seconds == 23  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(("slots", "seconds"), [(1, 8), (2, 4), (3, 4), (4, 2), (0, 2)])
def test_tiles_queue_for_a_service(slots: int, seconds: float) -> None:
    """Four tiles at once, two seconds each, at a service of so many slots."""
    work = Work(1, 4, 1, service_s=2)
    done = simulate(work, FREE, PLAIN, replace(ONE, threads=4), Limits(service_slots=slots))
    assert done.seconds == seconds


def test_the_store_limits_requests_and_bytes() -> None:
    """Four tiles at once: the slower of two requests per second and ten bytes per second."""
    fleet, work = replace(ONE, threads=4), Work(1, 4, 1, read_bytes=20)
    assert simulate(work, FREE, PLAIN, fleet, Limits(requests_per_s=2)).seconds == 4 / 2
    limits = Limits(requests_per_s=2, bytes_per_s=10, latency_s=0.5)
    assert simulate(work, FREE, PLAIN, fleet, limits).seconds == 4 * 20 / 10 + 0.5
    stored = replace(work, read_bytes=0, write_bytes=30)  # one pack of four blocks
    assert simulate(stored, FREE, PLAIN, fleet, limits).seconds == 4 * 30 / 10 + 0.5


def test_workers_of_one_machine_share_its_cores() -> None:
    """Four workers with a processor second each: on one core, on two, on a machine each."""
    work, fleet = Work(1, 4, 1, cpu_s=1), Fleet(4, max_tasks=4, sized_for=4)
    for hosts, cores, seconds in ((1, 1, 4), (1, 2, 2), (2, 1, 2), (0, 1, 1)):
        done = simulate(work, FREE, PLAIN, replace(fleet, hosts=hosts, cores=cores))
        assert done.seconds == seconds


def test_a_kill_costs_what_was_not_stored_and_the_time_until_it_is_seen() -> None:
    """A worker dies after 5.5 s of tiles of 1 s; four tiles were stored after 2 s and 4 s."""
    engine, work = Engine("e", seen_s=30), Work(1, 10, 1, wait_s=1)
    died = Failures(kills=((5.5, 0),), back_s=1000)
    done = simulate(work, FREE, engine, Fleet(2, max_tasks=1), failures=died)
    assert done.seconds == 5.5 + 30 + 6  # the other worker computes the remaining six tiles
    assert (done.computed, done.kills, done.stored) == (5 + 6, 1, {0: 10})
    alone = simulate(work, FREE, engine, ONE, failures=replace(died, back_s=100))
    assert alone.seconds == 5.5 + 100 + 6
    unharmed = simulate(work, FREE, engine, Fleet(2, max_tasks=1), failures=Failures(((5.5, 1),)))
    assert (unharmed.seconds, unharmed.kills) == (10, 0)


def test_an_engine_without_campaigns_runs_scene_after_scene() -> None:
    """Three scenes of two tiles take three times one, also if four workers wait."""
    engine = Engine("dask", is_per_scene=True, scene_s=1)
    done = simulate(Work(3, 2, 1, wait_s=5), FREE, engine, Fleet(4))
    assert (done.seconds, done.tasks, done.computed) == (3 * (1 + 5), 6, 6)
    assert done.stored == {0: 2, 1: 2, 2: 2}
    assert simulate(Work(3, 2, 1, wait_s=5), FREE, replace(engine, is_per_scene=False), Fleet(4)).seconds == 1 + 10  # fmt: skip  # noqa: E501


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    scenes=st.integers(1, 5), columns=st.integers(1, 6), rows=st.integers(1, 6),
    workers=st.integers(1, 5), slots=st.integers(1, 3), threads=st.integers(1, 4),
    per_hour=st.sampled_from([0.0, 60.0, 300.0]), seed=st.integers(1, 99),
    service_s=st.sampled_from([0.0, 0.7]), is_per_scene=st.booleans(),
)  # fmt: skip
def test_every_tile_is_stored_exactly_once(  # noqa: PLR0913, PLR0917  # the axes of a campaign
    scenes: int, columns: int, rows: int, workers: int, slots: int, threads: int,
    per_hour: float, seed: int, service_s: float, is_per_scene: bool,
) -> None:  # fmt: skip
    """Whatever is killed; and without kills nothing is computed twice."""
    work = Work(scenes, columns, rows, cpu_s=1, wait_s=1, service_s=service_s, write_bytes=1)
    done = simulate(
        work, Costs(chunk_s=0.1), Engine("e", control_s=0.1, seen_s=5, is_per_scene=is_per_scene),
        Fleet(workers, slots, threads, hosts=1, cores=2), Limits(2, 100, 100, 0.01),
        Failures(per_hour=per_hour, back_s=3, seed=seed),
    )  # fmt: skip
    assert done.stored == dict.fromkeys(range(scenes), columns * rows)
    assert done.computed >= work.tiles
    assert done.computed == work.tiles or done.kills
    assert all(0 <= share <= 1 + 1e-9 for share in done.busy.values())


def test_more_workers_are_never_slower_without_failures() -> None:
    """The same tasks; and kills are what makes a campaign slower than without."""
    work, engine = Work(20, 5, 5, cpu_s=1, wait_s=0.5), Engine("e", control_s=0.05, task_cpu_s=1)
    times = [
        simulate(work, FREE, engine, Fleet(n, max_tasks=64, sized_for=16)).seconds
        for n in (1, 2, 3, 5, 8, 13, 21, 64, 100)
    ]
    assert times == sorted(times, reverse=True)
    assert times[-1] == times[-2]  # 64 tasks: more workers have nothing to do
    calm, rough = (
        simulate(work, FREE, engine, Fleet(8), failures=Failures(per_hour=rate)).seconds
        for rate in (0, 60)
    )
    assert rough > calm


def test_the_bottleneck_is_named() -> None:
    """One case of each."""
    work, fleet = Work(4, 8, 8, wait_s=1), Fleet(4)
    cases = {
        "plan": (Costs(plan_s=1e6), PLAIN, fleet, Limits()),
        "publish": (Costs(publish_tile_s=100), PLAIN, fleet, Limits()),
        "workers": (FREE, PLAIN, fleet, Limits()),
        "control": (FREE, Engine("e", control_s=100), fleet, Limits()),
        "tasks": (FREE, PLAIN, Fleet(100, max_tasks=8), Limits()),
        "service": (FREE, PLAIN, replace(fleet, threads=8), Limits(service_slots=1)),
    }
    for name, (costs, engine, machines, limits) in cases.items():
        tiles = replace(work, service_s=1) if name == "service" else work
        assert simulate(tiles, costs, engine, machines, limits).bottleneck == name


@pytest.mark.parametrize(("scenes", "side", "most"), [(3, 2, 5), (2, 5, 7), (4, 3, 64)])
def test_tasks_are_those_of_the_product(tmp_path: Path, scenes: int, side: int, most: int) -> None:
    """Scene by scene and tile by tile, as `plan_campaign` divides real files."""
    from pesto_runtime.campaigns import (
        CampaignSettings,
        load_campaign,
        plan_campaign,
        planned_scene,
        read_scenes,
    )
    from pesto_runtime.pipeline import Sizing
    from pesto_runtime.run.services import resolve_services
    from pesto_runtime.tiling import tile_count

    pipeline = pipeline_of(0.0)
    services = resolve_services(pipeline, base=tmp_path)
    listed = read_scenes(scenes_of(tmp_path, scenes, side), pipeline, common={})
    sizing = Sizing(workers=2, max_tasks=most, tile=512)
    settings = CampaignSettings(folder=tmp_path / "out", sizing=sizing, member="model")
    campaign = load_campaign(plan_campaign(pipeline, services, listed, settings))
    plans = [planned_scene(campaign, each) for each in campaign.scenes]
    chunks = [each.phases[0].chunks for each in plans if each]
    real = [
        [
            (part.scene, tile_count(window, (512, 512)))
            for part in task
            for window in chunks[part.scene][part.start : part.stop]
        ]
        for task in campaign.tasks[0]
    ]
    fleet = Fleet(2, max_tasks=most)
    assert tasks_of(Work(scenes, side, side), PLAIN, fleet) == real
    assert tasks_of(Work(scenes, side, side), PLAIN, replace(fleet, max_tasks=2)) != real


def test_fitting_finds_the_costs_by_which_runs_were_made() -> None:
    """Times simulated with known costs; and with a cost more, a fit that differs."""
    costs = Costs(plan_s=0.1, chunk_s=0.01, tile_s=0.01)
    made = Engine("e", serial_s=4, control_s=0.05, task_cpu_s=0.2, task_wait_s=0.5)
    cases = [Case(Work(2, 8, 8, wait_s=0.1), 2, 2, tasks) for tasks in (4, 32)]

    def run(engine: Engine, case: Case) -> list[Ran]:
        tasks = tasks_of(case.work, engine, case.fleet)
        control_s, chunks = 3 + len(tasks) * engine.control_s, sum(map(len, tasks))
        cpu_s = 4 + control_s + len(tasks) * engine.task_cpu_s + chunks * costs.chunk_s
        seconds = simulate(case.work, costs, engine, case.fleet).seconds
        return [Ran(seconds, cpu_s=cpu_s, control_s=control_s)]

    def runs(engine: Engine) -> list[list[Ran]]:
        return [run(engine, case) for case in cases]

    found = fitted(Engine("e"), costs, cases, runs(made))
    for name in ("serial_s", "control_s", "task_cpu_s", "task_wait_s"):
        assert getattr(found, name) == pytest.approx(getattr(made, name), rel=1e-3), name
    slower = fitted(Engine("e"), costs, cases, runs(replace(made, task_wait_s=1)))
    assert slower.task_wait_s == pytest.approx(1, rel=1e-3)
