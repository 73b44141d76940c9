"""What must never be a green run, on machines that share a bucket: each in a group of one DAG."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.places import RemotePath
from tests.support.airflow_cluster import Cluster
from tests.support.airflow_runs import MEAN, add_bundle
from tests.support.airflow_standalone import until
from tests.support.buckets import BUCKET, proxy_before, put, variables
from tests.support.file_server import use
from tests.support.machines import HOST
from tests.support.processes import MARKER
from tests.support.rasters import noise, write_scene
from tests.support.runs import pipeline, stage

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_airflow.trial.rest import TaskInstanceState
    from tests.support.airflow_standalone import Airflow

pytestmark = [
    pytest.mark.integration, pytest.mark.airflow, pytest.mark.endurance, pytest.mark.timeout(900),
]  # fmt: skip

KEY, SECRET = "key-of-lake", "secret-of-lake"  # of the test
CODE = (
    MEAN
    + """

@process(version="1", tileable="map")
def marked(
    image: Grey
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8", nodata=255)]:
    if (image == 250).any():
        raise ZeroDivisionError
    return image + 1
"""
)
DOCUMENT = pipeline(
    stage("marked", "marked", image="$inputs.scene"),
    stage("mean", "mean", image="$marked.image"),
    outputs={"image": "$marked.image", "mean": "$mean.mean"},
)
DAGS = """
from pathlib import Path

from airflow.sdk import Asset, dag, task

from pesto_airflow import pesto_pipeline

OWN = Path(__file__).parent / "faults_own"


def group(name, *, scene="a", conn="faults", queue="cpu", folder="", **settings):
    pesto_pipeline(
        OWN / "pipeline.json", services=OWN / "catalog", group_id=name, tile=200, workers=16,
        pool="gate", scene=f"s3://bucket/faults/{scene}.tif", store_conn_id=conn,
        folder=f"s3://bucket/faults/{folder or name}",
        operator_args={"marked": {"queue": queue}}, **settings,
    )


@dag(schedule=None, default_args={"queue": "cpu"})
def faults():
    group("partial", scene="marked", holes="keep")
    group("mixed", queue="gpu")
    group("replaced", scene="replaced")
    group("away", conn="faults_away")
    group("first")


@dag(schedule=None)
def in_the_same_folder():
    group("second", scene="b", folder="first")


def after(output):
    @dag(f"after_{output}", schedule=[Asset(f"faults.partial.{output}")])
    def consumer():
        @task
        def look(triggering_asset_events):
            ((event,),) = triggering_asset_events.values()
            return event.extra

        look()

    consumer()


faults()
in_the_same_folder()
after("image")
after("mean")
"""


def write(folder: Path, name: str, *, seed: int, marker: bool = False) -> None:
    """Put a scene into the bucket, as it was or with other pixels."""
    pixels = noise(600, 300, seed=seed)
    pixels[0, 250, 550] = MARKER if marker else 0
    put(f"faults/{name}.tif", write_scene(folder / f"{name}.tif", pixels).read_bytes())


def reasons(airflow: Airflow, run_id: str, *, dag_id: str = "faults") -> dict[str, tuple[int, str]]:
    """Failed task -> its tries and its error."""
    return {
        task.task_id: (task.tries, airflow.api.reason(dag_id, run_id, task))
        for task in airflow.api.tasks(dag_id, run_id)
        if task.state == "failed"
    }


def test_nothing_wrong_is_green(
    airflow: Airflow, bucket_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hole, other code on one machine, another scene, a bucket that is away, a folder of another.

    All wait at a pool without slots until they are planned; then the world changes.
    """
    use(variables(bucket_port), monkeypatch)
    cluster = airflow.standalone
    assert isinstance(cluster, Cluster)
    for seed, name in enumerate(("a", "b", "replaced", "marked")):
        write(tmp_path, name, seed=seed, marker=name == "marked")
    add_bundle(airflow.dags / "faults_own", DOCUMENT, CODE, services={})
    airflow.api.create("pools", name="gate", slots=0)
    with proxy_before(bucket_port) as proxy:
        connect(airflow, faults=bucket_port, faults_away=proxy.port)
        airflow.add("faults", DAGS)
        run_id = airflow.api.trigger("faults")
        until(lambda: all(t.state in ("success", "failed") for t in plans(airflow, run_id)),
              timeout_s=200)  # fmt: skip

        require_refused(airflow)
        write(tmp_path, "replaced", seed=9)
        cluster.replace("worker-b", "faults_own/code.py", CODE.replace("image + 1", "image + 2"))
        proxy.fault = lambda _number: "drop"
        airflow.api.update("pools/gate", pool="gate", slots=8, include_deferred=False)
        until(lambda: retried(airflow, run_id), timeout_s=200)
        proxy.fault = lambda _number: ""
        assert airflow.api.await_end("faults", run_id, timeout_s=300) == "failed"

    failed = reasons(airflow, run_id)
    assert {task: tries for task, (tries, _) in failed.items()} == {
        "mixed.map_marked": 1, "replaced.map_marked": 1
    }, "no retry can help"  # fmt: skip
    assert failed["mixed.map_marked"][1].startswith("Process changed")
    assert failed["replaced.map_marked"][1].startswith("Scene changed")
    there = {name: (RemotePath(f"{BUCKET}/faults/{name}") / "result.json").exists()
             for name in ("partial", "mixed", "replaced", "away", "first")}  # fmt: skip
    assert {name for name, is_there in there.items() if is_there} == {"partial", "away", "first"}
    require_partial(airflow, run_id)


def connect(airflow: Airflow, **ports: int) -> None:
    """Create connections of the bucket, by id; each with the port of a server."""
    for conn_id, port in ports.items():
        extra = json.dumps({"endpoint_url": f"http://{HOST}:{port}"})
        airflow.api.connect(conn_id, conn_type="aws", login=KEY, password=SECRET, extra=extra)


def require_refused(airflow: Airflow) -> None:
    """Another run, of another scene, in a folder that a run owns: its first task fails at once."""
    run_id, state = airflow.run("in_the_same_folder")
    assert state == "failed"
    ((task, (tries, reason)),) = reasons(airflow, run_id, dag_id="in_the_same_folder").items()
    assert (task, tries) == ("second.plan", 1)
    assert reason.startswith("Folder in use"), reason


def plans(airflow: Airflow, run_id: str) -> list[TaskInstanceState]:
    """The tasks that plan."""
    return [t for t in airflow.api.tasks("faults", run_id) if t.task_id.endswith(".plan")]


def retried(airflow: Airflow, run_id: str) -> bool:
    """Whether a task of the bucket that is away waits for its next try."""
    tasks = airflow.api.instances("faults", run_id, "away.map_marked")
    return any(each["state"] == "up_for_retry" for each in tasks)


def require_partial(airflow: Airflow, run_id: str) -> None:
    """A product with a hole says so to the DAG after it; one that was not made starts none."""
    published = airflow.task("faults", run_id, "partial.publish")
    told = airflow.api.xcoms("faults", run_id, published)["return_value"]
    assert isinstance(told, dict)
    assert (told["status"], told["skipped"]) == ("PARTIAL", ["mean"])
    until(lambda: airflow.api.runs("after_image"))
    (after,) = airflow.api.runs("after_image")
    assert airflow.api.await_end("after_image", after) == "success"
    extra = airflow.api.xcoms("after_image", after, airflow.task("after_image", after, "look"))
    assert isinstance(extra["return_value"], dict)
    assert extra["return_value"]["status"] == "PARTIAL"
    assert airflow.api.runs("after_mean") == []
