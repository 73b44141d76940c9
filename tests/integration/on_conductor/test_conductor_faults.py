"""What goes wrong outside of our workers: a disk, a service that refuses, a rerun into a fork."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_conductor.following import tasks_of
from tests.support.commands import pesto, served, waited
from tests.support.conductor_workers import conductor_worker, repeated, windows
from tests.support.rasters import noise, pixels_of, sha256_of, write_scene
from tests.support.runs import PROCESSES, chain, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk, Document

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(300)]


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 600 kB while the block runs."""
    folder.mkdir()
    mount = ("/bin/mount", "-t", "tmpfs", "-o", "size=600k", "none", folder)
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a full disk, which needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(("/bin/umount", folder), check=True)


def test_a_full_disk_ends_the_workflow_and_a_retry_completes_it(
    conductor: Desk, tmp_path: Path
) -> None:
    """With the cause as its reason; the retry repeats at most the tile that had no space."""
    pixels = noise(1024, 1024)
    scene = write_scene(tmp_path / "s.tif", pixels)
    with (
        small_disk(tmp_path / "small") as disk,
        conductor_worker(conductor.url, tmp_path, "--domain", "disk", at_once=1),
    ):
        inputs: dict[str, JsonValue] = {
            "scene": str(scene), "folder": str(tmp_path / "out"), "tile": 512, "workers": 4,
            "store": (disk / "store").as_uri(),
        }  # fmt: skip
        document = chain("paced", log=str(tmp_path / "log"), seconds=0.0)
        identity = conductor.start(document, inputs, domains={"*": "disk"})
        workflow = conductor.ended(identity)
        assert workflow["status"] == "FAILED"
        assert "No space left on device" in str(workflow["reasonForIncompletion"])
        failed = {str(e["status"]) for e in conductor.tasks(identity)} - {"COMPLETED", "CANCELED"}
        assert failed == {"FAILED_WITH_TERMINAL_ERROR"}

        subprocess.run(("/bin/mount", "-o", "remount,size=64m", disk), check=True)
        workflow = conductor.retried(identity)
        assert workflow["status"] == "COMPLETED", workflow.get("reasonForIncompletion")
    calls = windows(tmp_path / "log")
    assert len(set(calls)) == 4
    assert repeated(calls) <= 1
    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif"), pixels)


def workflow_of(task: Document) -> Document:
    """A definition of one task."""
    return {"name": "one_task", "version": 1, "schemaVersion": 2, "ownerEmail": "a@example.com",
            "timeoutSeconds": 0, "tasks": [{"taskReferenceName": "call", **task}]}  # fmt: skip


def test_a_refusal_is_text_of_an_http_task_and_a_reason_of_a_call(
    conductor: Desk, tmp_path: Path
) -> None:
    """Conductor puts the problem document into a Java exception; `pesto_call` names each field."""
    with (
        served(f"{PROCESSES}:grow") as url,
        conductor_worker(conductor.url, tmp_path, "--domain", "refused"),
    ):
        request: Document = {"uri": f"{url}/process", "method": "POST", "body": {"imag": 3}}
        tasks: dict[str, Document] = {
            "HTTP": {"name": "plain", "inputParameters": {"http_request": request}},
            "SIMPLE": {
                "name": "pesto_call",
                "inputParameters": {"service": url, "values": {"imag": 3}},
            },
        }
        ends = {}
        for kind, task in tasks.items():
            with conductor.conductor() as server:
                identity = server.start(
                    "one_task", {}, definition=workflow_of({"type": kind, **task}),
                    domains={"pesto_call": "refused"},
                )  # fmt: skip
            ends[kind] = conductor.ended(identity)
    wanted = {
        "HTTP": ("FAILED", "is not an input; inputs are image"),
        "SIMPLE": ("FAILED_WITH_TERMINAL_ERROR", "/inputs/imag: does not exist; there are image"),
    }
    for kind, (status, cause) in wanted.items():
        (task,) = tasks_of(ends[kind])  # the control: it is not tried again
        reason = str(task["reasonForIncompletion"])
        assert (ends[kind]["status"], task["status"]) == ("FAILED", status)
        assert cause in reason
    output = tasks_of(ends["HTTP"])[0]["outputData"]
    assert isinstance(output, dict)
    found = re.search(r'"(\{.*\})"', str(output["response"]))
    assert found is not None
    assert [e["pointer"] for e in json.loads(found[1])["errors"]] == ["/imag", "/image"]


def test_a_rerun_into_a_fork_is_named_with_the_way_out(conductor: Desk, tmp_path: Path) -> None:
    """The server deletes the other branches and the JOIN; a start with the same input completes."""
    scene = write_scene(tmp_path / "s.tif", noise(1024, 512))
    inputs: dict[str, JsonValue] = {
        "scene": str(scene), "folder": str(tmp_path / "out"), "tile": 256, "workers": 2,
        "keep": True,
    }  # fmt: skip
    with conductor_worker(conductor.url, tmp_path, "--domain", "rerun"):
        identity = conductor.start(chain("grow"), inputs, domains={"*": "rerun"})
        assert conductor.ended(identity)["status"] == "COMPLETED"
        control = pesto("conductor", "wake", identity, "--url", conductor.url)
        assert control.returncode == 0, control.stderr
        with conductor.conductor() as server:
            again = {"reRunFromTaskId": conductor.tasks(identity)[0]["taskId"]}
            server.request("POST", f"/workflow/{identity}/rerun", body=again)
        waited(lambda: [e["status"] for e in conductor.tasks(identity)] == ["COMPLETED"])
        told = pesto("conductor", "wake", identity, "--url", conductor.url)
        assert told.returncode == 1
        assert f"`pesto conductor stop {identity}` ends the workflow" in told.stderr
        assert pesto("conductor", "stop", identity, "--url", conductor.url).returncode == 0
        assert conductor.ended(identity)["status"] == "TERMINATED"
        other = conductor.start(chain("grow"), inputs, domains={"*": "rerun"})
        assert conductor.ended(other)["status"] == "COMPLETED"
    local = run_local(chain("grow"), tmp_path / "local", {"scene": scene}, tile=256)
    assert sha256_of(tmp_path / "out" / "image.tif") == local.sha256()
