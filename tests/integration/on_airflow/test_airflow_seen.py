"""What a person sees of a run on a real Airflow: notes, metrics, progress; and what it has read."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from pesto_runtime.places import RemotePath
from tests.support.airflow_runs import add_pipeline
from tests.support.buckets import BUCKET, put, variables
from tests.support.file_server import use
from tests.support.processes import MARKER
from tests.support.rasters import noise, write_scene
from tests.support.runs import pipeline, run_local, stage

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from tests.support.airflow_runs import PipelineDag
    from tests.support.airflow_standalone import Airflow

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(300)]

SCENE, PRODUCTS = "seen/scene.tif", f"{BUCKET}/seen/products"
DOCUMENT = pipeline(
    stage("same", "raises", image="$inputs.scene", slug="too-large"),
    outputs={"image": "$same.image"},
)


def write(folder: Path, name: str, *, seed: int, marker: bool = False) -> bytes:
    """Put a scene into the bucket; the local engine's product of it, which may have a hole."""
    pixels = noise(300, 120, seed=seed)
    pixels[0, 110, 290] = MARKER if marker else 0
    scene = write_scene(folder / f"{name}.tif", pixels)
    put(SCENE, scene.read_bytes())
    run_local(DOCUMENT, folder / name, {"scene": scene}, tile=100)
    return (folder / name / "image.tif").read_bytes()


def run(dag: PipelineDag, name: str) -> str:
    """Run the DAG on the scene of the bucket, into a folder of this name; answers the run."""
    conf = {"scene": f"{BUCKET}/{SCENE}", "folder": f"{PRODUCTS}/{name}"}
    run_id, state = dag.airflow.run(dag.dag_id, conf)
    assert state == "success", dag.airflow.logs(dag.dag_id, run_id)
    return run_id


def sent(metrics: socket.socket, dag_id: str) -> dict[str, list[str]]:
    """Metric -> the values that tasks of a DAG have sent since the last time."""
    found: dict[str, list[str]] = {}
    with suppress(TimeoutError):
        while True:
            name, _, value = metrics.recv(65536).decode().partition(":")
            if f"dag_id={dag_id}" in name:
                found.setdefault(name.split(",")[0].removeprefix("airflow."), []).append(value)
    return found


def test_a_scene_of_a_bucket_that_is_replaced_between_two_runs_is_another_scene(
    airflow: Airflow, bucket_port: int, metrics: socket.socket, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Both have one run store, which is kept: no block of the first run is in the second product.

    The second scene has a bad tile: its run is PARTIAL, which its note says; the first has none.
    """
    use(variables(bucket_port), monkeypatch)
    token = httpx.get(f"{airflow.api.url}/auth/token").json()["access_token"]
    airflow.api.connect("notes", conn_type="http", host=airflow.api.url, password=token)
    dag = add_pipeline(
        airflow, "seen", DOCUMENT, scene=tmp_path, folder=tmp_path, tile=100, keep=True,
        store=f"{BUCKET}/seen/runs", holes="keep", note_conn_id="notes", max_tasks=1,
    )  # fmt: skip
    expected = {name: write(tmp_path, name, seed=seed, marker=name == "second")
                for seed, name in enumerate(("second", "first"))}  # fmt: skip
    runs, lines, figures = {}, {}, {}
    sent(metrics, "seen")
    for name in ("first", "second"):
        if name == "second":
            put(SCENE, (tmp_path / "second.tif").read_bytes())
        runs[name] = run(dag, name)
        (task,) = dag.tasks(runs[name], "map")
        lines[name] = airflow.api.log("seen", runs[name], task)
        figures[name] = sent(metrics, "seen")
        assert RemotePath(f"{PRODUCTS}/{name}/image.tif").read_bytes() == expected[name], name

    assert expected["first"] != expected["second"]
    assert re.search("6 of 6 tiles in .* s: 6 computed, 0 reused, 0 holes", lines["first"])
    assert re.search("6 of 6 tiles in .* s: 5 computed, 0 reused, 1 holes", lines["second"])
    counts = {name: (each["pesto.tiles.computed"], each.get("pesto.tiles.holes"))
              for name, each in figures.items()}  # fmt: skip
    assert counts == {"first": (["6|c"], None), "second": (["5|c"], ["1|c"])}
    assert "pesto.tiles_per_second" in figures["first"]
    assert airflow.api.note("seen", runs["first"]) is None
    note = str(airflow.api.note("seen", runs["second"]))
    assert note.startswith("run.publish: PARTIAL: tiles ")
    assert note.endswith(f"the outputs are in {PRODUCTS}/second")
