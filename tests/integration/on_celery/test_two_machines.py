"""Pipelines on an Airflow whose workers share a bucket, and no disk."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.places import RemotePath
from tests.support.airflow_runs import MEAN, add_bundle
from tests.support.airflow_standalone import until
from tests.support.buckets import BUCKET, names, put, variables
from tests.support.commands import served
from tests.support.file_server import use
from tests.support.gatekeeper import gatekeeper
from tests.support.machines import HOST
from tests.support.rasters import noise, sha256_of, tree, write_scene
from tests.support.runs import PROCESSES, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.airflow_standalone import Airflow
    from tests.support.runs import Done

pytestmark = [
    pytest.mark.integration, pytest.mark.airflow, pytest.mark.endurance, pytest.mark.timeout(900),
]  # fmt: skip

TOKEN, KEY, SECRET = "t0ken", "key-of-lake", "secret-of-lake"  # of the test
CODE = (
    MEAN
    + """

@process(version="1", tileable="map")
def above(
    image: Grey, level: float
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")]:
    return (image > level).astype(np.uint8) + 1
"""
)
DOCUMENT = pipeline(
    stage("grown", "grow", image="$inputs.scene"),
    stage("mean", "mean", image="$grown.image"),
    stage("above", "above", image="$grown.image", level="$mean.mean"),
    outputs={"image": "$above.image", "mean": "$mean.mean"},
)
DAGS = """
from pathlib import Path

from airflow.sdk import Asset, dag, task

from pesto_airflow import pesto_pipeline

OWN = Path(__file__).parent / "own"


@dag(schedule=None)
def two_machines():
    @task
    def place(name: str) -> str:
        return "s3://bucket/two/" + name

    pesto_pipeline(
        OWN / "pipeline.json", services=OWN / "catalog", group_id="run",
        inputs={"scene": place.override(task_id="scene")("s.tif")},
        folder=place.override(task_id="folder")("out"),
        store=place.override(task_id="store")("store"),
        tile=200, conn_ids={"grow": "eo"}, store_conn_id="lake",
        operator_args={"above": {"queue": "gpu"}},
    )


@dag(schedule=[Asset("two_machines.run.image")])
def after_two_machines():
    @task
    def look(triggering_asset_events) -> dict:
        ((event,),) = triggering_asset_events.values()
        return event.extra

    look()


@dag(schedule=None, default_args={"queue": "cpu"})
def one_disk():
    for kind in ("refuse", "warn"):
        pesto_pipeline(
            OWN / "pipeline.json", services=OWN / "catalog", group_id=kind, preflight=kind,
            scene="s3://bucket/two/s.tif", folder="/var/tmp/" + kind, tile=200, max_tasks=1,
            conn_ids={"grow": "eo"}, store_conn_id="lake",
            operator_args={"grown": {"queue": "gpu", "retries": 0}},
        )


two_machines()
after_two_machines()
one_disk()
"""


@pytest.fixture(scope="module")
def local(
    airflow: Airflow, bucket_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Done]:
    """The DAGs of this file with connections for them; the local engine's outputs of the scene.

    Only the connection has the token that the service requires.
    """
    folder = tmp_path_factory.mktemp("two_machines")
    with pytest.MonkeyPatch.context() as patch:
        use(variables(bucket_port), patch)
        scene = write_scene(folder / "s.tif", noise(1000, 1000))
        put("two/s.tif", scene.read_bytes())
        with served(f"{PROCESSES}:grow", "--allow", BUCKET) as url, guarded(folder, url) as eo:
            document = add_bundle(airflow.dags / "own", DOCUMENT, CODE, services={"grow": url})
            airflow.api.connect("eo", conn_type="pesto", host=eo, password=TOKEN)
            extra = json.dumps({"endpoint_url": f"http://{HOST}:{bucket_port}"})
            airflow.api.connect("lake", conn_type="aws", login=KEY, password=SECRET, extra=extra)
            airflow.add("two_machines", DAGS)
            yield run_local(document, folder / "local", {"scene": scene})


@contextmanager
def guarded(folder: Path, url: str) -> Iterator[str]:
    """The service behind a guard, by the name that other machines know."""
    token = {"Authorization": f"Bearer {TOKEN}"}
    with gatekeeper(folder / "eo.log", url.removesuffix("/api/v1"), token) as guard:
        yield guard.url.replace("127.0.0.1", HOST)


def test_machines_that_share_a_bucket_make_the_local_engines_bytes(
    airflow: Airflow, local: Done
) -> None:
    """Places from other tasks, credentials by id, a queue for one stage."""
    run_id, state = airflow.run("two_machines")
    assert state == "success", airflow.logs("two_machines", run_id)

    out = RemotePath(f"{BUCKET}/two/out")
    for name in ("image.tif", "mean.json"):
        assert (out / name).read_bytes() == (local.folder / name).read_bytes(), name
    assert names(out.href) == tree(local.folder)
    assert not names(f"{BUCKET}/two/store"), "the run store of a complete run is removed"

    hosts = {
        name: {each["hostname"] for each in airflow.api.instances("two_machines", run_id, name)}
        for name in ("run.map_grown", "run.map_above")
    }
    assert hosts == {"run.map_grown": {"worker-a", "worker-b"}, "run.map_above": {"worker-b"}}

    until(lambda: airflow.api.runs("after_two_machines"))
    (after,) = airflow.api.runs("after_two_machines")
    assert airflow.api.await_end("after_two_machines", after) == "success"
    looked = airflow.task("after_two_machines", after, "look")
    told = airflow.api.xcoms("after_two_machines", after, looked)["return_value"]
    assert isinstance(told, dict)
    assert (told["href"], told["sha256"]) == (f"{out.href}/image.tif", local.sha256())


def test_openlineage_is_told_what_was_read_and_written(airflow: Airflow, local: Done) -> None:
    """The event of the run before: the scene by its ETag, which is its MD5; sha256 of products."""
    logs = airflow.standalone.home / "logs"
    (event,) = [json.loads(each.read_text()) for each in logs.glob("lineage-*publish-COMPLETE*")]
    told = {
        kind: {(each["namespace"], each["name"]): each["facets"]["version"]["datasetVersion"]
               for each in event[kind]}
        for kind in ("inputs", "outputs")
    }  # fmt: skip
    scene = hashlib.md5((local.folder.parent / "s.tif").read_bytes()).hexdigest()  # noqa: S324
    ((read, version),) = told["inputs"].items()
    assert read == ("s3://bucket", "two/s.tif")
    assert scene in version
    mean = sha256_of(local.folder / "mean.json")
    assert told["outputs"] == {
        ("s3://bucket", "two/out/image.tif"): local.sha256(),
        ("s3://bucket", "two/out/mean.json"): mean,
    }


def test_a_folder_of_one_disk_is_refused_or_explained(airflow: Airflow, local: Done) -> None:
    """The control: one worker does not have what the other one has written to its disk."""
    run_id, state = airflow.run("one_disk")
    assert state == "failed"
    failed = {
        task.task_id: (task.tries, airflow.api.reason("one_disk", run_id, task))
        for task in airflow.api.tasks("one_disk", run_id)
        if task.state == "failed"
    }
    assert set(failed) == {"refuse.plan", "warn.map_grown"}
    tries, reason = failed["refuse.plan"]
    assert tries == 1
    assert "/folder: file:///var/tmp/refuse is on this machine" in reason
    _, reason = failed["warn.map_grown"]
    assert "the task `plan` wrote it, perhaps on another machine; give folder=" in reason
