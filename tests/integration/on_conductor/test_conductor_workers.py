"""Workers on a real Conductor: the same bytes, errors that a person understands, an orderly end."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_conductor.taskdefs import GPU_DOMAIN, service_definition
from pesto_runtime.raster.identity import identity_of
from pesto_runtime.run.services import find
from tests.support.commands import is_alive, pesto, served, waited
from tests.support.conductor_workers import conductor_worker, repeated, windows
from tests.support.rasters import ReplaceableScene, noise, pixels_of, sha256_of, write_scene
from tests.support.runs import CLOUD_COVER, PROCESSES, SCENE, chain, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk, Worker

pytestmark = [pytest.mark.integration, pytest.mark.conductor]

MASK = "1a2e35dd8846"
"""How the sha256 of the mask of the Landsat scene begins, from whichever engine."""
MARKER = 250


@pytest.fixture(scope="module")
def worker(conductor: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One that works for every test that needs no other."""
    folder = tmp_path_factory.mktemp("worker")
    with conductor_worker(conductor.url, folder, "--metrics-port", 0) as running:
        yield running


def scene_of(folder: Path, width: int = 1536, height: int = 1024) -> tuple[Path, np.ndarray]:
    pixels = noise(width, height)
    return write_scene(folder / "s.tif", pixels), pixels


def output_of(workflow: dict[str, JsonValue]) -> dict[str, JsonValue]:
    output = workflow["output"]
    assert isinstance(output, dict), workflow
    return output


@pytest.mark.usefixtures("worker")
def test_a_rendered_pipeline_gives_the_bytes_of_the_local_engine(
    conductor: Desk, tmp_path: Path
) -> None:
    """Over the Landsat scene; the JOIN stays small, and what went on is in the tasks' logs."""
    document = json.loads(CLOUD_COVER.read_text())
    inputs: dict[str, JsonValue] = {"scene": str(SCENE), "folder": str(tmp_path)}
    workflow = conductor.ended(conductor.start(document, inputs, base=CLOUD_COVER.parent))

    assert workflow["status"] == "COMPLETED"
    assert sha256_of(tmp_path / "mask.tif").startswith(MASK)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["engine"] == {"name": "conductor", "run": workflow["workflowId"]}
    assert output_of(workflow)["status"] == "COMPLETE"
    (join,) = conductor.tasks(str(workflow["workflowId"]), "JOIN")
    assert len(json.dumps(join["outputData"])) < 64 << 10
    chunk = conductor.tasks(str(workflow["workflowId"]))[0]
    with conductor.conductor() as client:
        (line,) = client.logs(str(chunk["taskId"]))
    assert re.fullmatch(r"1 tiles computed, 0 reused in [\d.]+ s", line)


@pytest.mark.usefixtures("worker")
def test_a_poison_tile_is_named_and_retry_computes_it_alone(
    conductor: Desk, tmp_path: Path
) -> None:
    """Its task ends at once, for good, with a reason; the others are kept."""
    pixels = noise(1536, 1024)
    pixels[0, 700, 700] = MARKER
    scene, broken = write_scene(tmp_path / "s.tif", pixels), tmp_path / "broken"
    broken.touch()
    document = chain("fragile", broken=str(broken))
    inputs: dict[str, JsonValue] = {
        "scene": str(scene), "folder": str(tmp_path / "out"), "tile": 256, "max_tasks": 2
    }  # fmt: skip
    identity = conductor.start(document, inputs)
    workflow = conductor.ended(identity)

    assert workflow["status"] == "FAILED"
    # The other chunk may still have been at work: the server cancels it, and retries it too.
    ended = [each for each in conductor.tasks(identity) if each["status"] != "CANCELED"]
    failed = [each for each in ended if each["status"] != "COMPLETED"]
    assert [each["status"] for each in failed] == ["FAILED_WITH_TERMINAL_ERROR"]
    reason = str(failed[0]["reasonForIncompletion"])
    assert re.match(r"1 of (8|16) tiles failed; the others are stored", reason)
    assert "stage 's0', tile [512, 512, 256, 256]: fragile: ZeroDivisionError" in reason

    broken.unlink()
    workflow = conductor.retried(identity)

    assert workflow["status"] == "COMPLETED", workflow["reasonForIncompletion"]
    attempts = conductor.tasks(identity)
    (again,) = [
        each["outputData"]
        for each in attempts
        if each["retryCount"]
        and each["status"] == "COMPLETED"
        and each["referenceTaskName"] == failed[0]["referenceTaskName"]
    ]
    assert isinstance(again, dict)
    # None, if the server cancelled a retry that had computed it, and it was retried once more.
    assert again["tiles"] in (0, 1)
    assert int(str(again["tiles"])) + int(str(again["reused"])) in (8, 16)
    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif"), pixels)


@pytest.mark.usefixtures("worker")
def test_a_scene_that_is_replaced_ends_the_workflow_and_a_retry_completes_the_old_one(
    conductor: Desk, tmp_path: Path
) -> None:
    """For good, with both identities as its reason; no wrong block is left for the retry."""
    scene, log = ReplaceableScene(tmp_path / "s.tif", 1536, 1024), tmp_path / "log"
    planned = identity_of(str(scene.path))
    document = chain("paced", log=str(log), seconds=0.3)
    inputs: dict[str, JsonValue] = {
        "scene": str(scene.path), "folder": str(tmp_path / "out"), "tile": 256
    }  # fmt: skip
    workflow_id = conductor.start(document, inputs)
    waited(lambda: bool(windows(log)), 60)
    scene.replace()
    workflow = conductor.ended(workflow_id)

    assert workflow["status"] == "FAILED"
    failed = [each for each in conductor.tasks(workflow_id) if "FAILED" in str(each["status"])]
    assert {each["status"] for each in failed} == {"FAILED_WITH_TERMINAL_ERROR"}
    reason = str(failed[0]["reasonForIncompletion"])
    assert [each in reason for each in (planned, identity_of(str(scene.path)))] == [True, True]
    assert not (tmp_path / "out" / "image.tif").exists()

    scene.put_back()
    workflow = conductor.retried(workflow_id)
    assert workflow["status"] == "COMPLETED", workflow["reasonForIncompletion"]
    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif"), noise(1536, 1024))


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("worker")
def test_five_identical_runs_on_one_worker_all_complete(conductor: Desk, tmp_path: Path) -> None:
    """Started by whoever follows none of them; no result is dropped, and nothing is left."""
    scene, pixels = scene_of(tmp_path)
    document, out = chain("slow", seconds=0.1), tmp_path / "out"
    inputs: dict[str, JsonValue] = {
        "scene": str(scene), "folder": str(out), "tile": 256, "max_tasks": 2
    }  # fmt: skip
    identities = [conductor.start(document, inputs) for _ in range(5)]
    # A JOIN that the server loses is completed by the worker, some 75 s after its last task.
    workflows = [conductor.ended(each, 150) for each in identities]
    assert [each["status"] for each in workflows] == ["COMPLETED"] * 5
    attempts = [task for identity in identities for task in conductor.tasks(identity)]
    assert [(e["status"], e["retryCount"]) for e in attempts] == [("COMPLETED", 0)] * 10
    assert np.array_equal(pixels_of(out / "image.tif"), pixels)
    assert not (out / ".pesto").exists()


@pytest.mark.usefixtures("worker")
def test_a_second_run_in_the_folder_of_another_is_refused(conductor: Desk, tmp_path: Path) -> None:
    """By name, when it plans; the first one (control) completes with its own picture."""
    scene, pixels = scene_of(tmp_path)
    other = write_scene(tmp_path / "o.tif", noise(512, 512, seed=3))
    document, out = chain("slow", seconds=0.3), tmp_path / "out"
    inputs: dict[str, JsonValue] = {"folder": str(out), "tile": 256, "max_tasks": 2}
    first = conductor.start(document, {**inputs, "scene": str(scene)})
    waited((out / ".pesto" / "owner.json").exists)
    second = conductor.ended(conductor.start(document, {**inputs, "scene": str(other)}))
    assert second["status"] == "FAILED"
    run = json.loads((out / ".pesto" / "owner.json").read_text())["run"]
    assert f"is in use by run {run}" in str(second["reasonForIncompletion"])
    assert conductor.ended(first)["status"] == "COMPLETED"
    assert np.array_equal(pixels_of(out / "image.tif"), pixels)


@pytest.mark.usefixtures("worker")
def test_input_that_does_not_fit_its_schema_is_refused_by_field(conductor: Desk) -> None:
    """The server stores the schema and does not enforce it: the worker does."""
    task: dict[str, JsonValue] = {
        "name": "pesto_process", "taskReferenceName": "p", "type": "SIMPLE",
        "inputParameters": {"plan": "file:///nowhere", "phase": -1, "stop": 1},
    }  # fmt: skip
    definition: dict[str, JsonValue] = {
        "name": "bad", "version": 1, "schemaVersion": 2, "ownerEmail": "pesto@example.com",
        "timeoutSeconds": 0, "tasks": [task],
    }  # fmt: skip
    with conductor.conductor() as client:
        identity = client.start("bad", {}, definition=definition)
    workflow = conductor.ended(identity)
    assert workflow["status"] == "FAILED"
    reason = str(workflow["reasonForIncompletion"])
    assert "/phase" in reason
    assert "'start' is a required property" in reason


def test_sigterm_leaves_nothing_after_seconds_and_gives_tasks_back(
    conductor: Desk, tmp_path: Path
) -> None:
    """With tiles in hand; another worker takes them at once, long before their lease is over."""
    scene, pixels = scene_of(tmp_path)
    log, out = tmp_path / "log", tmp_path / "out"
    document = chain("paced", log=str(log), seconds=1.0)
    inputs: dict[str, JsonValue] = {"scene": str(scene), "folder": str(out), "tile": 512}
    domain = {"*": "drain"}
    with conductor_worker(conductor.url, tmp_path, "--domain", "drain") as first:
        identity = conductor.start(document, inputs, domains=domain)
        waited(lambda: len(windows(log)) >= 2)
        family = first.family
        first.process.send_signal(signal.SIGTERM)
        waited(lambda: not any(is_alive(pid) for pid in family), 20)
        assert first.process.wait() == 0
    with conductor_worker(conductor.url, tmp_path, "--domain", "drain"):
        workflow = conductor.ended(identity)
    assert workflow["status"] == "COMPLETED"
    assert all(not each["retryCount"] for each in conductor.tasks(identity)), "no attempt was lost"
    assert repeated(windows(log)) <= 2
    assert np.array_equal(pixels_of(out / "image.tif"), pixels)


def test_terminating_a_workflow_ends_its_calls(conductor: Desk, tmp_path: Path) -> None:
    """A call of a service long before its end, work in the worker at its next tile."""
    scene, _ = scene_of(tmp_path)
    log = tmp_path / "log"
    document = chain("paced", log=str(log), seconds=60.0)
    with (
        served(f"{PROCESSES}:paced", "--workers", 2) as url,
        conductor_worker(conductor.url, tmp_path, "--domain", "end") as running,
    ):
        inputs: dict[str, JsonValue] = {
            "scene": str(scene), "folder": str(tmp_path / "out"), "services": {"paced": url}
        }  # fmt: skip
        identity = conductor.start(document, inputs, domains={"*": "end"})
        waited(lambda: len(windows(log)) >= 2)
        port = int(url.split(":")[2].split("/")[0])
        assert connections(port)
        with conductor.conductor() as client:
            client.terminate(identity, reason="a test")
        waited(lambda: running.said.count("no longer wanted") >= 2 and not connections(port), 30)


def connections(port: int) -> int:
    """Connections that somebody has to a port of this machine, as the kernel lists them."""
    with open("/proc/net/tcp") as file:  # noqa: PTH123  # not a path to be joined
        rows = [line.split() for line in file][1:]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_many_workers_over_replicas_make_no_tile_twice(conductor: Desk, tmp_path: Path) -> None:
    """64 tasks at once, in four processes, over 8 replicas: every window is asked for once."""
    pixels = noise(4096, 4096)
    scene = write_scene(tmp_path / "s.tif", pixels)
    log, out = tmp_path / "log", tmp_path / "out"
    document = chain("paced", log=str(log), seconds=0.02)
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        opening = [pool.submit(stack.enter_context, served(f"{PROCESSES}:paced")) for _ in range(8)]
        urls = [each.result() for each in opening]
        for _ in range(4):
            words = ("--domain", "many", "--task", "pesto_plan", "--task", "pesto_process",
                     "--task", "pesto_publish")  # fmt: skip
            stack.enter_context(conductor_worker(conductor.url, tmp_path, *words, at_once=16))
        inputs: dict[str, JsonValue] = {
            "scene": str(scene), "folder": str(out), "tile": 256, "services": {"paced": [*urls]},
            "workers": 64,
        }  # fmt: skip
        workflow = conductor.ended(conductor.start(document, inputs, domains={"*": "many"}))
    assert workflow["status"] == "COMPLETED", workflow.get("reasonForIncompletion")
    calls = windows(log)
    assert len(calls) == len(set(calls)) == 256
    local = run_local(document, tmp_path / "local", {"scene": scene}, tile=256)
    assert sha256_of(out / "image.tif") == local.sha256()


def test_a_service_that_wants_a_gpu_waits_for_a_worker_that_has_one(
    conductor: Desk, tmp_path: Path
) -> None:
    """`resources.gpu` selects the domain; a worker without it never sees the task."""
    found = find((f"{PROCESSES}:verbose",))
    gpu = found.description.overlaid({"resources": {"gpu": 1}})
    definition = service_definition(gpu, found.service.targets)
    scene, log = write_scene(tmp_path / "s.tif", noise(64, 64)), tmp_path / "log"
    task: dict[str, JsonValue] = {
        "name": definition.name, "taskReferenceName": "v", "type": "SIMPLE",
        "inputParameters": {
            "values": {"image": str(scene), "log": str(log)},
            "keep": {"image": str(tmp_path / "v.tif")},
        },
    }  # fmt: skip
    workflow: dict[str, JsonValue] = {
        "name": "on_gpu", "version": 1, "schemaVersion": 2, "ownerEmail": "pesto@example.com",
        "timeoutSeconds": 0, "tasks": [task],
    }  # fmt: skip
    assert (definition.name, definition.domain) == ("pesto_verbose", GPU_DOMAIN)
    with conductor.conductor() as client:
        client.register_tasks([definition.to_json()])
        with conductor_worker(conductor.url, tmp_path, "--task", definition.name):
            identity = client.start(
                "on_gpu", {}, definition=workflow, domains={definition.name: GPU_DOMAIN}
            )
            time.sleep(2)
            assert not log.exists()
        with conductor_worker(
            conductor.url, tmp_path, "--task", definition.name, "--domain", GPU_DOMAIN
        ):
            assert conductor.ended(identity)["status"] == "COMPLETED"
    assert log.read_text() == "call\n"


def test_without_a_server_a_worker_says_so_at_once(tmp_path: Path) -> None:
    """Without the patience that it has with a server that it has seen; by exit code and words."""
    begun = time.monotonic()
    said = pesto("conductor", "worker", "--url", "http://127.0.0.1:9/api")
    assert time.monotonic() - begun < 30
    assert said.returncode == 1
    assert "no Conductor responds at http://127.0.0.1:9/api" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_worker_tells_its_health_and_its_counts(conductor: Desk, tmp_path: Path) -> None:
    """On a port of its own."""
    port = _free_port()
    with conductor_worker(conductor.url, tmp_path, "--metrics-port", port):
        waited(lambda: b'"OK"' in _got(port, "health"))
        polls = b'pesto_worker_polls_total{outcome="answered",type="pesto_plan"}'
        waited(lambda: polls in _got(port, "metrics"))


def _got(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:  # ours
        body: bytes = answer.read()
    return body


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
