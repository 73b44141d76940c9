"""The tasks of Airflow and of Conductor compare the code with their plan, as the local engine does.

Each task is run as its worker runs it; only the server that would assign it is absent.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeAlias, cast

import pytest

import tests.support.airflow_home  # noqa: F401  # before any test imports Airflow
from pesto_airflow import PestoMapOperator, PestoPlanOperator
from pesto_airflow.errors import PestoTaskFailed, PestoTryAgain
from pesto_conductor.attempts import ProgressTracker
from pesto_conductor.binding import TaskContext
from pesto_conductor.errors import report_of
from pesto_conductor.verbs import binding_of
from pesto_runtime.errors import PestoError
from pesto_runtime.run.callers import close_callers
from pesto_runtime.run.context import load_context
from tests.support.airflow_tasks import Run
from tests.support.deployment import Deployment, deployed, document
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

    Planning: TypeAlias = Callable[[Path, str], str]
    Chunk: TypeAlias = Callable[[str], tuple[str, str]]

pytestmark = [pytest.mark.contract, pytest.mark.integration]

PATIENCE_S = 3.0


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Each task is in a process that knows nothing, and leaves nothing."""
    yield
    close_callers()
    load_context.cache_clear()


def airflow_plan(folder: Path, target: str) -> str:
    """Plan by the operator; return the plan's href."""
    run = Run()
    task = PestoPlanOperator(
        task_id="plan", pipeline=cast("dict[str, JsonValue]", document("shade")),
        inputs={"scene": str(folder / "s.tif")}, folder=folder / "out",
        service=[f"shade={target}"], patience=PATIENCE_S,
    )  # fmt: skip
    task.perform(run.context)
    return str(run.pushed["plan"])


def airflow_chunk(href: str) -> tuple[str, str]:
    """Run the first chunk; return what becomes of the task, and the text of its error."""
    task = PestoMapOperator(task_id="map", plan=href, chunk=0)
    try:
        task.execute.__wrapped__(task, Run().context)  # type: ignore[attr-defined]  # Airflow's guard off
    except PestoTaskFailed as error:
        return "failed", str(error)
    except PestoTryAgain as error:
        return "again", str(error)
    return "done", ""


def conductor_task() -> TaskContext:
    """The context of a task of a server that is not contacted."""
    progress = ProgressTracker()
    return TaskContext("http://127.0.0.1:9/api", "w", progress.observer, progress.log)


def conductor_plan(folder: Path, target: str) -> str:
    """Plan by the task type; return the plan's href."""
    given = {
        "pipeline": document("shade"), "inputs": {"scene": str(folder / "s.tif")},
        "folder": str(folder / "out"), "services": {"shade": target}, "patience": PATIENCE_S,
    }  # fmt: skip
    output = binding_of("pesto_plan").run(cast("dict[str, JsonValue]", given), conductor_task())
    return str(output["plan"])


def conductor_chunk(href: str) -> tuple[str, str]:
    """Run the first chunk; return what becomes of the task, and the text of its error."""
    chunk: dict[str, JsonValue] = {"plan": href, "phase": 0, "start": 0, "stop": 1}
    try:
        binding_of("pesto_process").run(chunk, conductor_task())
    except PestoError as error:
        report = report_of(error)
        states = {"FAILED_WITH_TERMINAL_ERROR": "failed", "FAILED": "again"}
        return states[report.status], report.reason
    return "done", ""


ENGINES = {
    "airflow": (airflow_plan, airflow_chunk),
    "conductor": (conductor_plan, conductor_chunk),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Planning, Chunk]:
    """How an engine plans, and runs a chunk."""
    write_scene(tmp_path / "s.tif", noise(700, 600))
    return ENGINES[request.param]


def test_a_service_replaced_after_the_plan_fails_the_chunk_for_good(
    tmp_path: Path, engine: tuple[Planning, Chunk]
) -> None:
    """Not retried; the planned code on the same port (control) computes the chunk."""
    plan, chunk = engine
    with deployed(tmp_path / "a") as service:
        href = plan(tmp_path, service.url)
        for added, expected in ((7, "failed"), (1, "done")):
            service.kill()
            service.write(added=added)
            service.ready()
            became, told = chunk(href)
            assert became == expected
            assert ("build sha256:" in told) is (expected == "failed")


def test_a_function_changed_after_the_plan_fails_the_chunk_for_good(
    tmp_path: Path, engine: tuple[Planning, Chunk]
) -> None:
    """Not retried, and nothing is computed; the planned file (control) computes the chunk."""
    plan, chunk = engine
    author = Deployment(tmp_path / "a")
    author.write()
    href = plan(tmp_path, author.target)
    author.write(added=7)
    became, told = chunk(href)
    assert became == "failed"
    assert author.target in told
    assert author.calls == 0
    author.write()
    assert chunk(href) == ("done", "")


def test_a_service_that_is_away_is_waited_for_and_then_retried(
    tmp_path: Path, engine: tuple[Planning, Chunk]
) -> None:
    """As long as the plan says, which has the engine's setting; a retry of the task may succeed."""
    plan, chunk = engine
    with deployed(tmp_path / "a") as service:
        href = plan(tmp_path, service.url)
        assert load_context(href).plan.patience_s == PATIENCE_S
        service.kill()
        begun = time.monotonic()
        became, told = chunk(href)
        waited_s = time.monotonic() - begun
    assert became == "again"
    assert "Connection refused" in told
    assert PATIENCE_S <= waited_s < PATIENCE_S + 60
