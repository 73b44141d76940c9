"""Many scenes of many chunks, and many dates, on the two machines of two slots each.

`PESTO_SCENES` and `PESTO_DATES` set how many. Times are logged (`--log-cli-level=INFO`), and not
judged: they depend on what else the machine does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from pesto_runtime.places import RemotePath
from tests.support.airflow_cluster import Cluster
from tests.support.airflow_runs import MEAN, add_bundle
from tests.support.airflow_standalone import until
from tests.support.buckets import BUCKET, put, variables
from tests.support.file_server import use
from tests.support.machines import HOST
from tests.support.rasters import noise, write_scene
from tests.support.runs import pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.airflow_standalone import Airflow

pytestmark = [
    pytest.mark.integration, pytest.mark.airflow, pytest.mark.endurance, pytest.mark.timeout(3600),
]  # fmt: skip

SCENES = int(os.environ.get("PESTO_SCENES", "20"))
DATES = int(os.environ.get("PESTO_DATES", "10"))
KEY, SECRET = "key-of-lake", "secret-of-lake"  # of the test
SIDE, CHUNKS = 4096, 64
"""Pixels of a scene's side, and its blocks of 512 pixels: each is a chunk of one tile."""
ALONE = 256 // CHUNKS
"""Scenes whose chunks can have a task each."""
TIMEOUT_S = 1800
log = logging.getLogger(__name__)
CODE = (
    MEAN
    + """

@process(version="1", tileable="map")
def brighter(
    image: Grey
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")]:
    return image + 1
"""
)
DOCUMENT = pipeline(
    stage("brighter", "brighter", image="$inputs.scene"),
    stage("mean", "mean", image="$brighter.image"),
    outputs={"image": "$brighter.image", "mean": "$mean.mean"},
)
DAGS = """
from datetime import datetime
from pathlib import Path

from airflow.sdk import dag

from pesto_airflow import pesto_campaign, pesto_pipeline

OWN = Path(__file__).parent / "sizes_own"
COMMON = {"services": OWN / "catalog", "group_id": "run", "tile": 512, "store_conn_id": "sizes",
          "folder": "s3://bucket/sizes/{{ params.folder }}"}


@dag(schedule=None, params={"folder": "one"})
def one_scene():
    pesto_pipeline(OWN / "pipeline.json", scene="s3://bucket/sizes/s00.tif", workers=64, **COMMON)


@dag(schedule=None, params={"folder": "", "scenes": [], "tasks": 256})
def scenes():
    pesto_campaign(
        OWN / "pipeline.json", scenes="{{ params.scenes | tojson }}", workers="{{ params.tasks }}",
        max_tasks="{{ params.tasks }}", **COMMON
    )


@dag(schedule="@daily", start_date=datetime(2026, 1, 1), end_date=datetime(2026, 2, 28),
     catchup=False)
def dates():
    settings = {**COMMON, "folder": "s3://bucket/sizes/{{ ds }}"}
    pesto_pipeline(
        OWN / "pipeline.json", scene="s3://bucket/sizes/small.tif", workers=8, max_tasks=2,
        pool="single", **settings,
    )


one_scene()
scenes()
dates()
"""


class Times(NamedTuple):
    """Seconds of mapped tasks: of a slot per task, and of a task itself."""

    per_task: float
    median: float


@pytest.fixture(scope="module")
def expected(
    airflow: Airflow, bucket_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The DAGs of this file; scene -> sha256 of the local engine's product."""
    folder = tmp_path_factory.mktemp("sizes")
    with pytest.MonkeyPatch.context() as patch:
        use(variables(bucket_port), patch)
        document = add_bundle(airflow.dags / "sizes_own", DOCUMENT, CODE, services={})
        extra = json.dumps({"endpoint_url": f"http://{HOST}:{bucket_port}"})
        airflow.api.connect("sizes", conn_type="aws", login=KEY, password=SECRET, extra=extra)
        airflow.api.create("pools", name="single", slots=1)
        airflow.add("dates", DAGS)
        sides = {**{f"s{number:02}": SIDE for number in range(SCENES)}, "small": 1024}
        yield {name: product(document, folder, name, sides[name]) for name in sides}


def product(document: dict[str, JsonValue], folder: Path, name: str, side: int) -> str:
    """The sha256 of the local engine's product of a scene, which is put into the bucket."""
    coarse = noise(side // 64, side // 64, seed=int.from_bytes(name.encode()))
    scene = write_scene(
        folder / f"{name}.tif", np.kron(coarse, np.ones((64, 64), "uint8")),
        options={"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"},
    )  # fmt: skip
    put(f"sizes/{name}.tif", scene.read_bytes())
    run_local(document, folder / name, {"scene": scene}, tile=512)
    return sha256_at((folder / name / "image.tif").read_bytes())


def sha256_at(data: bytes) -> str:
    """Of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def made(folder: str) -> str:
    """The sha256 of the product in a folder of the bucket."""
    return sha256_at(RemotePath(f"{BUCKET}/sizes/{folder}/image.tif").read_bytes())


def mapped(airflow: Airflow, dag_id: str, run_id: str) -> list[dict[str, JsonValue]]:
    """The mapped tasks of a run."""
    return airflow.api.instances(dag_id, run_id, "run.map_brighter")


def times(tasks: list[dict[str, JsonValue]]) -> Times:
    """What tasks took: the whole time by their number, and the time of the median one."""
    spans = [tuple(datetime.fromisoformat(str(each[key])) for key in ("start_date", "end_date"))
             for each in tasks]  # fmt: skip
    begins, ends = zip(*spans, strict=True)
    whole = (max(ends) - min(begins)).total_seconds()
    return Times(whole / len(tasks), median((b - a).total_seconds() for a, b in spans))


def campaign(airflow: Airflow, folder: str, *, count: int, tasks: int) -> str:
    """Trigger a campaign of the first scenes; answers its run."""
    hrefs: JsonValue = [f"{BUCKET}/sizes/s{number:02}.tif" for number in range(count)]
    conf: dict[str, JsonValue] = {"folder": folder, "scenes": hrefs, "tasks": tasks}
    return airflow.api.trigger("scenes", conf)


def test_a_task_of_many_scenes_costs_what_one_of_a_scene_does(
    airflow: Airflow, expected: dict[str, str]
) -> None:
    """64 mapped tasks of one scene; then 256 of four, of a chunk each."""
    count = min(ALONE, SCENES)
    run_id, state = airflow.run("one_scene", timeout_s=TIMEOUT_S)
    assert state == "success", airflow.logs("one_scene", run_id)
    assert made("one") == expected["s00"]
    alone = mapped(airflow, "one_scene", run_id)
    assert len(alone) == CHUNKS
    run_id = campaign(airflow, "four", count=count, tasks=256)
    state = airflow.api.await_end("scenes", run_id, timeout_s=TIMEOUT_S)
    assert state == "success", airflow.logs("scenes", run_id)
    for name in (f"s{number:02}" for number in range(count)):
        assert made(f"four/{name}") == expected[name]
    shared = mapped(airflow, "scenes", run_id)
    assert len(shared) == count * CHUNKS
    assert {each["try_number"] for each in (*alone, *shared)} == {1}
    for name, tasks in (("one_scene", alone), ("scenes", shared)):
        log.info("%s, %d tasks: %s", name, len(tasks), times(tasks))


def test_twenty_scenes_outlive_kills(airflow: Airflow, expected: dict[str, str]) -> None:
    """SIGKILL of a worker, the scheduler and the triggerer; each scene has the right bytes."""
    cluster = airflow.standalone
    assert isinstance(cluster, Cluster)
    run_id = campaign(airflow, "twenty", count=SCENES, tasks=128)

    def done() -> int:
        return Counter(each["state"] for each in mapped(airflow, "scenes", run_id))["success"]

    kills: dict[int, Callable[[], None]] = {
        16: lambda: cluster.kill_machine("worker-b"),
        48: lambda: airflow.kill("scheduler"),
        80: lambda: airflow.kill("triggerer"),
    }
    for after, kill in kills.items():
        until(lambda after=after: done() >= after, timeout_s=TIMEOUT_S)  # type: ignore[misc]  # as it is now
        kill()
        if after == 16:
            cluster.begin_worker("worker-b")
        else:
            airflow.restart("scheduler" if after == 48 else "triggerer")
    state = airflow.api.await_end("scenes", run_id, timeout_s=TIMEOUT_S)
    assert state == "success", airflow.logs("scenes", run_id)
    names = [f"s{number:02}" for number in range(SCENES)]
    assert {name: made(f"twenty/{name}") for name in names} == {n: expected[n] for n in names}
    tasks = mapped(airflow, "scenes", run_id)
    assert len(tasks) == 128
    retried = sum(int(str(each["try_number"])) > 1 for each in tasks)
    assert 1 <= retried <= len(tasks) / 4, "those that were killed, or had no heartbeat"
    log.info("%d scenes, %d tasks: %s", SCENES, len(tasks), times(tasks))


def test_dates_of_a_backfill_share_a_pool_of_one(
    airflow: Airflow, expected: dict[str, str]
) -> None:
    """Each date has the right bytes, and no two mapped tasks overlap."""
    last = f"2026-02-{DATES:02}"
    airflow.api.update("dags/dates", is_paused=False)
    airflow.api.create(
        "backfills", dag_id="dates", from_date="2026-02-01T00:00:00Z",
        to_date=f"{last}T00:00:00Z", max_active_runs=3,
    )  # fmt: skip
    until(lambda: len(backfilled(airflow)) >= DATES)
    runs = backfilled(airflow)
    assert len(runs) == DATES
    for run_id in runs:
        state = airflow.api.await_end("dates", run_id, timeout_s=TIMEOUT_S)
        assert state == "success", airflow.logs("dates", run_id)
    days = [f"2026-02-{number:02}" for number in range(1, DATES + 1)]
    assert {made(day) for day in days} == {expected["small"]}
    tasks = [each for run_id in runs for each in mapped(airflow, "dates", run_id)]
    assert len(tasks) == 2 * DATES
    spans = sorted((str(each["start_date"]), str(each["end_date"])) for each in tasks)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def backfilled(airflow: Airflow) -> list[str]:
    """The runs of the backfill."""
    return [each for each in airflow.api.runs("dates") if each.startswith("backfill")]
