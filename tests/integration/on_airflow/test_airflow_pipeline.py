"""Pipelines on a real Airflow: the local engine's bytes, small tasks, and nothing asked twice."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from pesto_airflow.catalog import write_catalog
from pesto_runtime.contract import Pipeline
from pesto_runtime.raster.identity import identity_of
from pesto_runtime.run.services import resolve_services
from tests.support.airflow_runs import add_pipeline
from tests.support.airflow_standalone import until
from tests.support.commands import saved, served
from tests.support.rasters import ReplaceableScene, noise, pixels_of, sha256_of, write_scene
from tests.support.runs import CLOUD_COVER, PROCESSES, SCENE, chain, pipeline, run_local, stage

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.airflow_standalone import Airflow

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(300)]

WIDTH, HEIGHT, TILE = 1100, 600, 200  # 3 x 2 blocks, and as many chunks
MARKER = 250
PLAN_ONLY = """
from airflow.sdk import dag
from pesto_airflow import PestoPlanOperator


@dag(schedule=None)
def ten_thousand_tiles():
    for most in (64, 256):
        PestoPlanOperator(
            task_id=f"plan_{{most}}", pipeline={pipeline!r}, folder={folder!r},
            inputs={{"scene": {scene!r}}}, tile=512, max_tasks=most,
        )


ten_thousand_tiles()
"""
BRANCHES = """
from airflow.sdk import dag, task

from pesto_airflow import pesto_pipeline


@dag(schedule=None)
def branches():
    @task
    def place() -> str:
        return {folder!r}

    @task.branch
    def choice(mean: float) -> str:
        return "bright" if mean > 50 else "dark"

    @task
    def bright() -> None: ...

    @task
    def dark() -> None: ...

    group = pesto_pipeline(
        {pipeline!r}, services={services!r}, scene={scene!r}, folder=place(), group_id="run"
    )
    choice(group.output["mean"]) >> [bright(), dark()]


branches()
"""


def test_cloud_cover_gives_the_local_engines_bytes(airflow: Airflow, tmp_path: Path) -> None:
    """`dags/cloud_cover.py` as it is; the result names Airflow's run, Assets are told of it."""
    local = run_local(json.loads(CLOUD_COVER.read_text()), tmp_path / "local", {"scene": SCENE})
    airflow.api.await_dag("cloud_cover")
    conf: dict[str, JsonValue] = {"scene": str(SCENE), "folder": str(tmp_path / "out")}

    run_id, state = airflow.run("cloud_cover", conf)

    assert state == "success", airflow.logs("cloud_cover", run_id)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert sha256_of(tmp_path / "out" / "mask.tif") == local.sha256("mask")
    assert result["outputs"]["cover"]["value"] == local.value("cover")
    assert result["engine"] == {"name": "airflow", "run": run_id, "dag": "cloud_cover"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "mask.tif", "cover.json", "report.html", "result.json"
    }  # fmt: skip
    chunk = airflow.task("cloud_cover", run_id, "cloud-cover.map_mask_clean", map_index=1)
    assert chunk.name == "1: col 512 row 0, 115 x 512"
    published = airflow.task("cloud_cover", run_id, "cloud-cover.publish")
    told = airflow.api.xcoms("cloud_cover", run_id, published)["return_value"]
    assert isinstance(told, dict)
    assert (told["status"], told["outputs"]) == (
        "COMPLETE",
        {
            "mask": {
                "href": (tmp_path / "out" / "mask.tif").as_uri(),
                "sha256": local.sha256("mask"),
            },
            "cover": local.value("cover"),
        },
    )


def test_a_new_scene_begins_a_run(airflow: Airflow, tmp_path: Path) -> None:
    """`dags/on_new_scene.py`: an event of the Asset says which scene, and where its outputs go."""
    airflow.api.await_dag("on_new_scene")
    folder = tmp_path / "out"

    airflow.api.emit_asset_event("landsat-scenes", {"scene": str(SCENE), "folder": str(folder)})

    until(lambda: airflow.api.runs("on_new_scene"), timeout_s=60)
    (run_id,) = airflow.api.runs("on_new_scene")
    state = airflow.api.await_end("on_new_scene", run_id)
    assert state == "success", airflow.logs("on_new_scene", run_id)
    assert json.loads((folder / "result.json").read_text())["engine"]["run"] == run_id


def empty_scene(path: Path, *, side: int) -> Path:
    """A scene of so many pixels a side, none of which is on the disk."""
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", tiled=True,
        SPARSE_OK=True, crs="EPSG:32616", transform=rasterio.Affine(30, 0, 0, 0, -30, 0),
    ) as dataset:  # fmt: skip
        dataset.set_band_description(1, "grey")
    return path


def test_ten_thousand_tiles_are_few_tasks_that_say_little(airflow: Airflow, tmp_path: Path) -> None:
    """At most 64 mapped tasks, 256 if asked for; no task tells the others more than 4 KB."""
    scene = empty_scene(tmp_path / "s.tif", side=100 * 512)
    source = PLAN_ONLY.format(
        pipeline=Pipeline.parse(chain("grow", "grow_far", "grow")).to_json(),
        folder=str(tmp_path / "out"),
        scene=str(scene),
    )
    dag_id = airflow.add("ten_thousand_tiles", source)

    run_id, state = airflow.run(dag_id)

    assert state == "success", airflow.logs(dag_id, run_id)
    for most in (64, 256):
        task = airflow.task(dag_id, run_id, f"plan_{most}")
        told = airflow.api.xcoms(dag_id, run_id, task)
        chunks = told["return_value"]
        assert isinstance(chunks, list)
        assert most / 2 < len(chunks) <= most
        assert sum(len(json.dumps(value)) for value in told.values()) <= 4096


def test_a_failing_tile_alone_is_asked_again(airflow: Airflow, tmp_path: Path) -> None:
    """A tile fails until told otherwise: red, not retried; cleared, it is the only one computed."""
    pixels = noise(WIDTH, HEIGHT)
    pixels[0, 300, 700] = MARKER
    scene = write_scene(tmp_path / "s.tif", pixels)
    broken, log = tmp_path / "broken", tmp_path / "log"
    broken.touch()
    document = chain("watched", broken=str(broken), log=str(log))
    dag = add_pipeline(
        airflow, "one_bad_tile", document, scene=scene, folder=tmp_path / "out", tile=TILE
    )

    run_id = dag.begin()
    assert dag.end(run_id) == "failed"
    before = Counter(log.read_text().splitlines())
    failed = [task for task in dag.tasks(run_id, "map") if task.state == "failed"]
    assert [task.tries for task in failed] == [1]
    assert not (tmp_path / "out" / "result.json").exists()

    broken.unlink()
    cleared = airflow.api.clear_failed(dag.dag_id, run_id)
    dag.succeed(run_id)

    assert [each for each in cleared if each[0].startswith("run.map")] == [
        ("run.map_s0", failed[0].map_index)
    ]
    after = Counter(log.read_text().splitlines()) - before
    assert set(before.values()) == {1}
    assert list(after.items()) == [(next(iter(after)), 1)]
    assert next(iter(after)) in before
    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif"), pixels)


def test_a_scene_that_is_replaced_fails_its_chunks_at_once(
    airflow: Airflow, tmp_path: Path
) -> None:
    """No retry, both identities in the log; the old scene put back, cleared tasks complete it."""
    scene = ReplaceableScene(tmp_path / "s.tif", WIDTH, HEIGHT)
    planned, log = identity_of(str(scene.path)), tmp_path / "log"
    document = chain("paced", log=str(log), seconds=0.4)
    dag = add_pipeline(
        airflow, "replaced_scene", document, scene=scene.path, folder=tmp_path / "out", tile=TILE
    )
    run_id = dag.begin()
    until(log.exists, timeout_s=90)
    scene.replace()

    assert dag.end(run_id) == "failed"
    failed = [task for task in dag.tasks(run_id, "map") if task.state == "failed"]
    assert len(failed) > 1, "the one that was running, and those that had not started"
    assert {task.tries for task in failed} == {1}
    text = airflow.logs(dag.dag_id, run_id)
    assert [each in text for each in (planned, identity_of(str(scene.path)))] == [True, True]
    assert not (tmp_path / "out" / "image.tif").exists()

    scene.put_back()
    airflow.api.clear_failed(dag.dag_id, run_id)
    dag.succeed(run_id)
    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif"), noise(WIDTH, HEIGHT))


def test_two_real_services_one_of_them_pesto(
    airflow: Airflow, tmp_path: Path, real_pesto: str
) -> None:
    """A service of ours, then PESTO 1.7.2 itself: the bytes of three functions here."""
    scene = write_scene(tmp_path / "s.tif", noise(600, 520))
    raster: dict[str, JsonValue] = {"bands": ["grey"], "dtype": "uint8"}

    def image(**facts: JsonValue) -> dict[str, JsonValue]:
        return {"properties": {"image": {"x-raster": {**raster, **facts}}}}

    overlay: JsonValue = {"tileable": "map", "input": image(margin=1), "output": image()}
    local = run_local(chain("grow", "grow", "grow"), tmp_path / "local", {"scene": scene})
    with served(f"{PROCESSES}:grow") as url:
        catalog = saved(
            tmp_path / "services.json",
            {"grow": url, "local-maximum": {"url": real_pesto, "overlay": overlay}},
        )
        document = chain("grow", "local_maximum", "grow")
        folder = tmp_path / "out"
        dag = add_pipeline(
            airflow, "two_services", document, scene=scene, folder=folder, catalog=catalog
        )
        dag.succeed(dag.begin())
    assert sha256_of(folder / "image.tif") == local.sha256()
    assert real_pesto in str(dag.result["stages"])
    assert url in str(dag.result["stages"])


def test_a_service_that_broke_its_word_fails_the_plan(airflow: Airflow, tmp_path: Path) -> None:
    """Its bands are others than saved: the first task fails, untried again, and no tile is run."""
    scene = write_scene(tmp_path / "s.tif", noise(600, 520))
    folder = tmp_path / "out"
    dag = add_pipeline(airflow, "drifted", chain("grow"), scene=scene, folder=folder)
    (file,) = (airflow.dags / "drifted" / "catalog").iterdir()
    document = json.loads(file.read_text())
    document["description"]["output"]["properties"]["image"]["x-raster"]["dtype"] = "uint16"
    del document["digest"]  # that of another description is refused before
    saved(file, document)

    run_id = dag.begin()

    assert dag.end(run_id) == "failed"
    states = {task.task_id: (task.state, task.tries) for task in dag.tasks(run_id)}
    assert states["run.plan"] == ("failed", 1)
    assert states["run.map_s0"][0] == "upstream_failed"
    assert "no longer" in airflow.logs(dag.dag_id, run_id)


def test_values_cross_to_other_tasks(airflow: Airflow, tmp_path: Path) -> None:
    """The folder is the result of a task before, and a task after takes a value of the run."""
    scene = write_scene(tmp_path / "s.tif", noise(300, 200))
    document = pipeline(
        stage("mean", "mean", image="$inputs.scene"), outputs={"mean": "$mean.mean"}
    )
    write_catalog(
        resolve_services(Pipeline.parse(document), base=tmp_path).found.values(), tmp_path / "cat"
    )
    source = BRANCHES.format(
        folder=str(tmp_path / "out"), pipeline=Pipeline.parse(document).to_json(),
        services=str(tmp_path / "cat"), scene=str(scene),
    )  # fmt: skip
    dag_id = airflow.add("branches", source)
    run_id, state = airflow.run(dag_id)
    assert state == "success", airflow.logs(dag_id, run_id)
    states = {task.task_id: task.state for task in airflow.api.tasks(dag_id, run_id)}
    mean = json.loads((tmp_path / "out" / "mean.json").read_text())
    taken, other = ("bright", "dark") if mean > 50 else ("dark", "bright")
    assert (states[taken], states[other]) == ("success", "skipped")
