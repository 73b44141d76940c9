"""The operators of a run, one by one and without a scheduler: what each writes and refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_airflow import (
    PestoClosePhaseOperator,
    PestoMapOperator,
    PestoMergeOperator,
    PestoMosaicOperator,
    PestoReduceOperator,
)
from pesto_airflow.errors import PestoTryAgain
from pesto_airflow.pipelines import next_chunks, sizing_for_airflow
from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import Interrupted, RunFailed
from pesto_runtime.run.context import begin_run
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import plan
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.workspace import run_store
from tests.support.airflow_tasks import Run
from tests.support.rasters import sha256_of
from tests.support.runs import CLOUD_COVER, ROOT, SCENE, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

NOTHING = Run().context
DOCUMENT: dict[str, JsonValue] = {
    **json.loads(CLOUD_COVER.read_text()),
    "services": {
        name: f"{ROOT}/examples/{name.replace('-', '_')}.py:{name.replace('-', '_')}"
        for name in ("cloud-mask", "sieve", "cloud-cover", "cloud-boxes")
    },
}


def planned(folder: Path) -> str:
    """A plan of four chunks, one phase."""
    pipeline = Pipeline.parse(
        {
            **DOCUMENT,
            "stages": [
                *DOCUMENT["stages"],  # type: ignore[misc]  # a list
                {"id": "boxes", "process": "cloud-boxes", "inputs": {"mask": "$clean.cloud"}},
            ],
            "outputs": {**DOCUMENT["outputs"], "boxes": "$boxes.boxes"},  # type: ignore[dict-item]  # an object
        }
    )
    services = resolve_services(pipeline, base=ROOT)
    inputs = read_inputs(pipeline, services, {"scene": str(SCENE)})
    sizing = sizing_for_airflow(workers=4, tile=200, max_tasks=64)
    return begin_run(plan(pipeline, services, inputs, store=run_store(folder), sizing=sizing).plan)


def test_verbs_one_by_one_make_what_a_run_makes(tmp_path: Path) -> None:
    """Chunks, then mosaic, reduce and merge; before the chunks each of them refuses."""
    local = run_local(DOCUMENT, tmp_path / "local", {"scene": SCENE})
    href = planned(tmp_path / "out")
    mosaic = PestoMosaicOperator(
        task_id="mosaic", plan=href, raster="$clean.cloud", path=tmp_path / "mask.tif"
    )
    merge = PestoMergeOperator(
        task_id="merge", plan=href, vector="$boxes.boxes", path=tmp_path / "boxes.geojson"
    )
    cover = PestoReduceOperator(task_id="cover", plan=href, stage="cover")
    for early in (mosaic, merge, cover):
        with pytest.raises(RunFailed):
            early.perform(NOTHING)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]

    chunks = next_chunks(href, after=-1)
    assert chunks == [0, 1, 2, 3]
    for index in chunks:
        PestoMapOperator(task_id=f"map_{index}", plan=href, chunk=index).perform(NOTHING)

    mosaicked = mosaic.perform(NOTHING)
    assert isinstance(mosaicked, dict)
    assert mosaicked["sha256"] == local.sha256("mask") == sha256_of(tmp_path / "mask.tif")
    assert cover.perform(NOTHING) == {"fraction": local.value("cover")}
    merged = merge.perform(NOTHING)
    assert isinstance(merged, dict)
    boxes = json.loads((tmp_path / "boxes.geojson").read_text())
    assert merged["features"] == len(boxes["features"]) > 0
    assert PestoClosePhaseOperator(task_id="close", plan=href).perform(NOTHING) == []


def test_a_killed_chunk_stops_between_tiles_and_is_tried_again(tmp_path: Path) -> None:
    """`on_kill` takes effect before the next tile; the error lets Airflow retry."""
    task = PestoMapOperator(task_id="map", plan=planned(tmp_path / "out"), chunk=0)
    assert task.chunk_name == "0: col 0 row 0, 512 x 512"
    task.on_kill()
    with pytest.raises(Interrupted):
        task.perform(NOTHING)
    with pytest.raises(PestoTryAgain, match="stopped"):
        task.execute.__wrapped__(task, NOTHING)  # type: ignore[attr-defined]  # Airflow's guard off
