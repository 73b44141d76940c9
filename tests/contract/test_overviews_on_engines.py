"""Airflow's operators and Conductor's activities write the local engine's overviews."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_airflow import PestoMapOperator, PestoPlanOperator, PestoPublishOperator
from pesto_conductor.attempts import ProgressTracker
from pesto_conductor.binding import TaskContext
from pesto_conductor.verbs import binding_of
from tests.support.airflow_tasks import Run
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import CLOUD_COVER, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.runs import Settings

pytestmark = pytest.mark.contract


@pytest.mark.parametrize("form", ["as_cog", "overviews"])
def test_each_engine_writes_the_same_overviews(tmp_path: Path, form: str) -> None:
    """By the same settings; a plain product (control) is another file."""
    scene = write_scene(tmp_path / "s.tif", noise(700, 600))
    settings: Settings = {"as_cog": form == "as_cog", "overviews": form == "overviews"}
    local = run_local(chain("grow"), tmp_path / "local", {"scene": scene}, **settings)
    out, run = tmp_path / "out", Run()
    PestoPlanOperator(
        task_id="plan", pipeline=chain("grow"), base=CLOUD_COVER.parent, folder=out,
        inputs={"scene": str(scene)}, tile=200, max_tasks=1,
    ).perform(run.context)  # fmt: skip
    plan = str(run.pushed["plan"])
    PestoMapOperator(task_id="m", plan=plan, chunk=0).perform(run.context)
    found = {}
    for wanted in (form, ""):
        as_cog, overviews = wanted == "as_cog", wanted == "overviews"
        PestoPublishOperator(
            task_id="p", plan=plan, folder=out, keep=True, as_cog=as_cog,
            overviews=overviews,
        ).perform(run.context)  # fmt: skip
        found["airflow", wanted] = sha256_of(out / "image.tif")
        progress = ProgressTracker()
        task = TaskContext("http://127.0.0.1:9/api", "w", progress.observer, progress.log)
        given: dict[str, JsonValue] = {"plan": plan, "folder": str(out), "keep": True}
        given |= {wanted: True} if wanted else {}
        binding_of("pesto_publish").run(given, task)
        found["conductor", wanted] = sha256_of(out / "image.tif")
    assert {found["airflow", form], found["conductor", form]} == {local.sha256()}
    assert local.sha256() not in {found["airflow", ""], found["conductor", ""]}
