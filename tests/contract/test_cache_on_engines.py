"""Airflow's operators, Conductor's activities and a bucket share the blocks of the local engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_airflow import PestoMapOperator, PestoPlanOperator, PestoPublishOperator
from pesto_conductor.attempts import ProgressTracker
from pesto_conductor.binding import TaskContext
from pesto_conductor.verbs import binding_of
from pesto_runtime.run.cache_pruning import listed_cache, prune_cache
from tests.support.airflow_tasks import Run
from tests.support.buckets import BUCKET, moto_server, variables
from tests.support.file_server import use
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import CLOUD_COVER, PROCESSES, chain, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

pytestmark = pytest.mark.contract

FIRST, SECOND = "0,0,2000,1900", "300,200,2000,1904"
EXPECTED = (12, 4)
"""Tiles of the second window, computed and reused: with a margin of 1, columns 1 and 2 (812 to
1836) and rows 1 and 2 (712 to 1736) of 4 x 4 lie inside both windows."""


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene of noise."""
    return write_scene(tmp_path / "s.tif", noise(2600, 2300), options={"tiled": True})


@pytest.fixture(params=["folder", "bucket"])
def cache(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The place of a cache."""
    if request.param == "folder":
        yield str(tmp_path / "cache")
        return
    with moto_server() as port:
        use(variables(port), monkeypatch)
        yield f"{BUCKET}/cache"


def test_each_engine_computes_only_missing_blocks(tmp_path: Path, scene: Path, cache: str) -> None:
    """Over another window than the local engine that filled the cache, by calls of the process."""
    run_local(chain("grow"), tmp_path / "first", {"scene": f"{scene}#window={FIRST}"}, tile=512,
              cache=cache)  # fmt: skip
    image = f"{scene}#window={SECOND}"
    reference = run_local(chain("grow"), tmp_path / "reference", {"scene": image}, tile=512)
    assert on_airflow(tmp_path / "airflow", image, cache) == (*EXPECTED, reference.sha256())
    assert on_conductor(tmp_path / "conductor", image, cache) == (0, 16, reference.sha256())
    (entry,) = listed_cache(cache)
    assert entry.process == "grow"
    assert prune_cache(cache, size=0).kept == 0
    assert listed_cache(cache) == []
    assert on_conductor(tmp_path / "again", image, cache) == (16, 0, reference.sha256())


def on_airflow(folder: Path, image: str, cache: str) -> tuple[int, int, str]:
    """Tiles computed and reused, and the sha256 of the product."""
    run = Run()
    PestoPlanOperator(
        task_id="plan", pipeline=chain("grow"), base=CLOUD_COVER.parent, folder=folder,
        inputs={"scene": image}, tile=512, max_tasks=1, cache=cache,
    ).perform(run.context)  # fmt: skip
    plan = str(run.pushed["plan"])
    done = PestoMapOperator(task_id="m", plan=plan, chunk=0).perform(run.context)
    PestoPublishOperator(task_id="p", plan=plan, folder=folder).perform(run.context)
    assert isinstance(done, dict)
    return int(str(done["tiles"])), int(str(done["reused"])), sha256_of(folder / "image.tif")


def on_conductor(folder: Path, image: str, cache: str) -> tuple[int, int, str]:
    """The same, by activities."""
    progress = ProgressTracker()
    task = TaskContext("http://127.0.0.1:9/api", "w", progress.observer, progress.log)
    document: dict[str, JsonValue] = {**chain("grow")}
    given: dict[str, JsonValue] = {
        "pipeline": document, "inputs": {"scene": image}, "folder": str(folder), "tile": 512,
        "max_tasks": 1, "cache": cache, "services": {"grow": f"{PROCESSES}:grow"},
    }  # fmt: skip
    plan = binding_of("pesto_plan").run(given, task)["plan"]
    chunk: dict[str, JsonValue] = {"plan": plan, "phase": 0, "start": 0, "stop": 1}
    done = binding_of("pesto_process").run(chunk, task)
    binding_of("pesto_publish").run({"plan": plan, "folder": str(folder)}, task)
    return int(str(done["tiles"])), int(str(done["reused"])), sha256_of(folder / "image.tif")
