"""Many scenes on machines that are killed, and runs that people and calendars steer."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.places import RemotePath
from tests.support.airflow_cluster import Cluster
from tests.support.airflow_runs import MEAN, add_bundle
from tests.support.airflow_standalone import until
from tests.support.buckets import BUCKET, put, variables
from tests.support.commands import served
from tests.support.file_server import use
from tests.support.machines import HOST
from tests.support.rasters import noise, write_scene
from tests.support.runs import ROOT, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.airflow_standalone import Airflow

pytestmark = [
    pytest.mark.integration, pytest.mark.airflow, pytest.mark.endurance, pytest.mark.timeout(900),
]  # fmt: skip

KEY, SECRET = "key-of-lake", "secret-of-lake"  # of the test
SCENES = ("a", "b", "c")
CODE = (
    MEAN
    + """

import time


@process(version="1", tileable="map")
def slow(
    image: Grey, seconds: float
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")]:
    time.sleep(seconds)
    return image + 1
"""
)
DOCUMENT = pipeline(
    stage("slow", "slow", image="$inputs.scene", seconds=0.5),
    stage("mean", "mean", image="$slow.image"),
    outputs={"image": "$slow.image", "mean": "$mean.mean"},
)
DAGS = """
from datetime import datetime
from pathlib import Path

from airflow.sdk import dag, task

from pesto_airflow import PestoProcessOperator, pesto_campaign, pesto_pipeline

OWN = Path(__file__).parent / "many"
COMMON = {{"services": OWN / "catalog", "group_id": "run", "tile": 200, "store_conn_id": "many"}}


@dag(schedule=None)
def many_scenes():
    @task
    def listed() -> list[str]:
        return ["s3://bucket/many/" + name + ".tif" for name in {scenes!r}]

    pesto_campaign(
        OWN / "pipeline.json", scenes=listed(), folder="s3://bucket/many/out", max_tasks=6,
        workers=16, **COMMON
    )
    PestoProcessOperator.partial(
        task_id="errand", pesto_conn_id="errands", mode="deferrable",
    ).expand(inputs=[{{"path": {log!r}, "name": str(n), "gate": {gate!r}}} for n in range(4)])


@dag(schedule="@daily", start_date=datetime(2026, 1, 1), end_date=datetime(2026, 2, 28),
     catchup=False, params={{"folder": ""}})
def calendar():
    pesto_pipeline(
        OWN / "pipeline.json", scene="s3://bucket/many/a.tif", workers=16, pool="one",
        folder="s3://bucket/calendar/{{{{ params.folder or ds }}}}", **COMMON
    )


many_scenes()
calendar()
"""


@pytest.fixture(scope="module")
def expected(
    airflow: Airflow, bucket_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, bytes]]:
    """The DAGs of this file; of each scene, the local engine's product.

    `log` and `gate` are files of the service of errands: each writes its begin and its end into the
    first, and waits for the second.
    """
    folder = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        use(variables(bucket_port), patch)
        errands = served(f"{ROOT}/tests/contract/errands.py:errand", "--workers", 4)
        with errands as url:
            document = add_bundle(airflow.dags / "many", DOCUMENT, CODE, services={})
            extra = json.dumps({"endpoint_url": f"http://{HOST}:{bucket_port}"})
            airflow.api.connect("many", conn_type="aws", login=KEY, password=SECRET, extra=extra)
            host = url.replace("127.0.0.1", HOST)
            airflow.api.connect("errands", conn_type="pesto", host=host)
            airflow.api.create("pools", name="one", slots=1)
            gate, log = str(folder / "gate"), str(folder / "log")
            airflow.add("many_scenes", DAGS.format(scenes=SCENES, gate=gate, log=log))
            yield {name: product(document, folder, name) for name in SCENES}


def product(document: dict[str, JsonValue], folder: Path, name: str) -> bytes:
    """The local engine's product of a scene, which is put into the bucket."""
    scene = write_scene(folder / f"{name}.tif", noise(1000, 600, seed=ord(name)))
    put(f"many/{name}.tif", scene.read_bytes())
    run_local(document, folder / name, {"scene": scene})
    return (folder / name / "image.tif").read_bytes()


def running(airflow: Airflow, run_id: str) -> set[str]:
    """Machines that compute scenes now."""
    tasks = airflow.api.instances("many_scenes", run_id, "run.map_slow")
    return {str(each["hostname"]) for each in tasks if each["state"] == "running"}


def states(airflow: Airflow, dag_id: str, run_id: str, task_id: str) -> Counter[JsonValue]:
    """State -> number of mapped tasks."""
    return Counter(each["state"] for each in airflow.api.instances(dag_id, run_id, task_id))


def test_scenes_outlive_a_worker_the_scheduler_and_the_triggerer(
    airflow: Airflow, expected: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SIGKILL of all three while scenes are computed and jobs are waited for."""
    folder = tmp_path_factory.getbasetemp() / "many0"
    cluster = airflow.standalone
    assert isinstance(cluster, Cluster)
    run_id = airflow.api.trigger("many_scenes")
    until(lambda: "worker-b" in running(airflow, run_id), timeout_s=200)
    until(lambda: states(airflow, "many_scenes", run_id, "errand")["deferred"] == 4)

    cluster.kill_machine("worker-b")
    airflow.kill("scheduler")
    airflow.kill("triggerer")
    (folder / "gate").touch()
    cluster.begin("triggerer")
    cluster.begin_worker("worker-b")
    airflow.restart("scheduler")

    state = airflow.api.await_end("many_scenes", run_id, timeout_s=400)
    assert state == "success", airflow.logs("many_scenes", run_id)
    for name, data in expected.items():
        assert RemotePath(f"{BUCKET}/many/out/{name}/image.tif").read_bytes() == data, name
    mapped = airflow.api.instances("many_scenes", run_id, "run.map_slow")
    assert len(mapped) == 6
    assert {each["try_number"] for each in mapped} == {1, 2}, "the killed tasks alone are retried"
    jobs = airflow.api.instances("many_scenes", run_id, "errand")
    assert {each["try_number"] for each in jobs} == {1}
    told = Counter((folder / "log").read_text().splitlines())
    assert told == {f"{what} {n}": 1 for what in ("begin", "end") for n in range(4)}


def test_dates_share_a_pool_of_one(airflow: Airflow, expected: dict[str, bytes]) -> None:
    """A backfill of three dates: every folder is right, and no two mapped tasks overlap."""
    airflow.api.update("dags/calendar", is_paused=False)
    airflow.api.create(
        "backfills", dag_id="calendar", from_date="2026-02-01T00:00:00Z",
        to_date="2026-02-03T00:00:00Z", max_active_runs=2,
    )  # fmt: skip
    until(lambda: len(airflow.api.runs("calendar")) >= 3)
    runs = [each for each in airflow.api.runs("calendar") if each.startswith("backfill")]
    assert len(runs) == 3
    for run_id in runs:
        state = airflow.api.await_end("calendar", run_id, timeout_s=400)
        assert state == "success", airflow.logs("calendar", run_id)
    for day in ("2026-02-01", "2026-02-02", "2026-02-03"):
        product = RemotePath(f"{BUCKET}/calendar/{day}/image.tif")
        assert product.read_bytes() == expected["a"], day
    tasks = [each for run_id in runs
             for each in airflow.api.instances("calendar", run_id, "run.map_slow")]  # fmt: skip
    spans = sorted((str(each["start_date"]), str(each["end_date"])) for each in tasks)
    assert len(spans) == 12
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_a_pause_delays_and_a_mark_of_success_hides_nothing(
    airflow: Airflow, expected: dict[str, bytes]
) -> None:
    """A chunk that a person marks as a success has no blocks: the task after it computes them."""
    run_id = airflow.api.trigger("calendar", {"folder": "paused"})
    until(lambda: states(airflow, "calendar", run_id, "run.map_slow")["running"], timeout_s=200)
    airflow.api.update("dags/calendar", is_paused=True)
    until(lambda: not states(airflow, "calendar", run_id, "run.map_slow")["running"])
    before = states(airflow, "calendar", run_id, "run.map_slow")
    assert before["success"] < 4
    assert airflow.api.state("calendar", run_id) == "running"

    airflow.api.mark("calendar", run_id, "success", task="run.map_slow/3")
    airflow.api.update("dags/calendar", is_paused=False)

    assert airflow.api.await_end("calendar", run_id, timeout_s=400) == "success"
    (never,) = [each for each in airflow.api.instances("calendar", run_id, "run.map_slow")
                if each["map_index"] == 3]  # fmt: skip
    assert (never["state"], never["pid"]) == ("success", None)
    assert RemotePath(f"{BUCKET}/calendar/paused/image.tif").read_bytes() == expected["a"]
