"""A pipeline whose service, scene and outputs need connections, on a real Airflow."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.places import RemotePath
from tests.support.airflow_runs import add_bundle
from tests.support.buckets import BUCKET, put, variables
from tests.support.commands import served
from tests.support.file_server import use
from tests.support.gatekeeper import gatekeeper
from tests.support.rasters import noise, write_scene
from tests.support.runs import PROCESSES, chain, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.airflow_standalone import Airflow
    from tests.support.gatekeeper import Gatekeeper

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(300)]

TOKEN, KEY, SECRET = "t0ken-Zq9-canary", "AKIACANARY", "s3cret-Zq9-canary"  # of the test
OUT = RemotePath(f"{BUCKET}/connections/out")
CODE = """
import numpy as np
from typing import Annotated
from pesto_runtime import Raster, process

Grey = Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")]
Lighter = Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")]


@process(name="lighter", version="1", tileable="map")
def lighter(image: Grey) -> Lighter:
    return np.minimum(image, 200) + 1
"""
DAG = """
from pathlib import Path

from airflow.sdk import BaseHook, dag, task

from pesto_airflow import pesto_pipeline

OWN = Path(__file__).parent / "connections"


@dag(schedule=None)
def connections():
    @task
    def leak() -> str:
        token = BaseHook.get_connection("canary_eo").password
        print("the token is", token)
        return token

    pesto_pipeline(
        OWN / "pipeline.json", services=OWN / "catalog", group_id="run",
        scene="s3://bucket/connections/s.tif", folder="s3://bucket/connections/out",
        tile=200, max_tasks=1, conn_ids={"grow": "canary_eo"}, store_conn_id="canary_lake",
    )
    leak()


connections()
"""


def test_connections_reach_service_and_bucket_and_nothing_shows_a_secret(
    airflow: Airflow, bucket_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog has no URL of the service; code of the bundle runs in the workers.

    The worker's own variables have another key, and no guard. A task that returns its token is the
    control of the search. A wrong token fails the first task of another run, by name.
    """
    use(variables(bucket_port), monkeypatch)
    scene = write_scene(tmp_path / "s.tif", noise(600, 300))
    put("connections/s.tif", scene.read_bytes())
    with served(f"{PROCESSES}:grow", "--workers", 1) as url:
        document = chain("grow", "lighter")
        document = add_bundle(airflow.dags / "connections", document, CODE, services={"grow": url})
        local = run_local(document, tmp_path / "local", {"scene": scene})
        with guards(tmp_path, url, bucket_port) as (eo, lake):
            connect(airflow, eo, lake, token=TOKEN, is_new=True)
            dag_id = airflow.add("connections", DAG)
            run_id, state = airflow.run(dag_id)
            assert state == "success", airflow.logs(dag_id, run_id)
            connect(airflow, eo, token=f"old-{TOKEN}", is_new=False)
            wrong, _ = airflow.run(dag_id)
            asked = [request for each in (eo, lake) for request in each.requests()]

    assert (OUT / "image.tif").read_bytes() == (local.folder / "image.tif").read_bytes()
    require_requested(
        asked, "/api/v1/process", "/bucket/connections/s.tif", "/bucket/connections/out"
    )
    result = (OUT / "result.json").read_text()
    assert eo.url in result
    assert str(airflow.dags) not in result, "code by its path in the bundle"

    require_refused(airflow, dag_id, wrong)
    assert airflow.task(dag_id, run_id, "run.map_s0_s1", map_index=0).name.startswith("0: col 0")
    shown = shown_of(airflow, dag_id, run_id, wrong)
    assert TOKEN in shown.pop("leak"), "the control"
    everything = "".join([result, (OUT / "report.html").read_text(), *shown.values()])
    assert OUT.href in everything
    assert [secret in everything for secret in (TOKEN, SECRET)] == [False, False]


def require_requested(asked: list[dict[str, str]], *paths: str) -> None:
    """Some request below each path was admitted by its guard."""
    requested = {request[":path"] for request in asked if request[":status"] < "300"}
    for path in paths:
        assert any(each.startswith(path) for each in requested), path


def require_refused(airflow: Airflow, dag_id: str, run_id: str) -> None:
    """The first task failed at its first try, and named the connection."""
    failed = airflow.task(dag_id, run_id, "run.plan")
    assert (failed.state, failed.tries) == ("failed", 1)
    assert "here in connection 'canary_eo'" in airflow.api.reason(dag_id, run_id, failed)


@contextmanager
def guards(folder: Path, url: str, bucket_port: int) -> Iterator[tuple[Gatekeeper, Gatekeeper]]:
    """Proxies before the service and the bucket: one requires the token, the other the key."""
    needed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/*"}
    token = {"Authorization": f"Bearer {TOKEN}"}
    with (
        gatekeeper(folder / "eo.log", url.removesuffix("/api/v1"), token) as eo,
        gatekeeper(folder / "lake.log", f"http://127.0.0.1:{bucket_port}", needed) as lake,
    ):
        yield eo, lake


def connect(
    airflow: Airflow, eo: Gatekeeper, lake: Gatekeeper | None = None, *, token: str, is_new: bool
) -> None:
    """Create the connection of the service, or change its token; create that of the bucket."""
    airflow.api.connect("canary_eo", is_new=is_new, conn_type="pesto", host=eo.url, password=token)
    if lake is not None:
        extra = json.dumps({"endpoint_url": lake.url, "region_name": "us-east-1"})
        airflow.api.connect("canary_lake", conn_type="aws", login=KEY, password=SECRET, extra=extra)


def shown_of(airflow: Airflow, dag_id: str, *run_ids: str) -> dict[str, str]:
    """Task id -> all that Airflow shows of it, in any of the runs."""
    shown: dict[str, str] = defaultdict(str)
    for run_id in run_ids:
        for task in airflow.api.tasks(dag_id, run_id):
            if task.state in ("success", "failed"):
                shown[task.task_id] += airflow.api.shown(dag_id, run_id, task)
    return shown
