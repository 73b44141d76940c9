"""A server that is lost between two writes: workers have its workflows completed nevertheless."""

from __future__ import annotations

import os
import re
import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.commands import started, waited
from tests.support.conductor_database import SqliteDatabase, lose_join
from tests.support.conductor_workers import conductor_worker, windows
from tests.support.rasters import noise, pixels_of, write_scene
from tests.support.runs import PROCESSES, chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk, Worker

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(300)]

PIXELS = noise(600, 500)


@dataclass
class BegunTwice:
    """A workflow of which the server has begun a second attempt to plan, and not ended the first.

    Attributes:
        conductor: The server.
        worker: The worker of the first attempt, which is stopped.
        service: Pid of the service that both attempts wait for, which is stopped.
        identity: Id of the workflow.
        inputs: Its input.
        first: Id of the first attempt.
    """

    conductor: Desk
    worker: Worker
    service: int
    identity: str
    inputs: dict[str, JsonValue]
    first: str = ""

    def plans(self) -> list[str]:
        """Statuses of the attempts to plan."""
        return [str(e["status"]) for e in self.conductor.tasks(self.identity, "pesto_plan")]

    def has_second_attempt(self) -> bool:
        """Whether there is one, after a decision of the server."""
        with self.conductor.conductor() as server:
            server.decide(self.identity)
        return self.plans() == ["TIMED_OUT", "SCHEDULED"]

    def begin_again(self) -> None:
        """Stop the worker until its lease has ended; then a write of the server is lost."""
        waited(lambda: self.plans() == ["IN_PROGRESS"])
        self.first = str(self.conductor.tasks(self.identity, "pesto_plan")[0]["taskId"])
        os.kill(self.worker.child, signal.SIGSTOP)
        waited(self.has_second_attempt)
        SqliteDatabase(self.conductor.folder).change_task(self.first, {
            "status": "IN_PROGRESS", "executed": False, "retried": False, "endTime": 0,
        })  # fmt: skip

    def resume(self) -> None:
        """Let service and worker go on."""
        for pid in (self.service, self.worker.child):
            os.kill(pid, signal.SIGCONT)


DOCUMENT = chain("grow")


@contextmanager
def begun_twice(conductor: Desk, folder: Path) -> Iterator[BegunTwice]:
    scene = write_scene(folder / "s.tif", PIXELS)
    with (
        started("serve", f"{PROCESSES}:grow", "--port", 0, "--workers", 1) as service,
        conductor_worker(conductor.url, folder, "--domain", folder.name) as worker,
    ):
        assert service.stderr is not None
        found = re.search(r"http://\S+/api/v1", service.stderr.readline())
        assert found is not None
        os.kill(service.pid, signal.SIGSTOP)
        inputs: dict[str, JsonValue] = {
            "scene": str(scene), "folder": str(folder / "out"), "services": {"grow": found[0]},
        }  # fmt: skip
        identity = conductor.start(DOCUMENT, inputs, domains={"*": folder.name})
        run = BegunTwice(conductor, worker, service.pid, identity, inputs)
        try:
            run.begin_again()
            yield run
        finally:
            with suppress(ProcessLookupError):
                run.resume()


def test_an_attempt_whose_lease_ended_is_not_reported(conductor: Desk, tmp_path: Path) -> None:
    """The server goes on from the second attempt, and the run completes."""
    with begun_twice(conductor, tmp_path) as run:
        run.resume()
        ended = f"pesto_plan {run.first} "
        waited(lambda: ended in run.worker.said, 150)
        # A worker that has seen the second attempt before the first one ends stops that one.
        if f"{ended}COMPLETED" in run.worker.said:
            waited(lambda: "the result of this one is dropped" in run.worker.said)
        workflow = conductor.ended(run.identity, 120)
    assert workflow["status"] == "COMPLETED", workflow.get("reasonForIncompletion")
    assert run.plans()[1] == "COMPLETED"
    assert (tmp_path / "out" / "image.tif").exists()


def test_the_report_of_such_an_attempt_fails_the_workflow(conductor: Desk, tmp_path: Path) -> None:
    """The control: the fork would read the output of the second attempt, which has none yet.

    The way out is a start with the same input: a retry fails in the same way.
    """
    with begun_twice(conductor, tmp_path) as run:
        with conductor.conductor() as server:
            server.complete(run.first, run.identity, {"plan": "file:///p.json", "chunks": [[]]})
        workflow = conductor.ended(run.identity)
        assert workflow["status"] == "FAILED"
        assert "forkTaskInputs=null" in str(workflow["reasonForIncompletion"])
        run.resume()
        again = conductor.retried(run.identity, 120, times=1)
        assert "forkTaskInputs=null" in str(again.get("reasonForIncompletion"))
        other = conductor.start(DOCUMENT, run.inputs, domains={"*": tmp_path.name})
        assert conductor.ended(other, 120)["status"] == "COMPLETED"


def test_a_join_that_is_left_to_a_lost_server_is_completed_by_a_worker(
    conductor: Desk, tmp_path: Path
) -> None:
    """Without a command: some 75 s after its last task; the log says so."""
    scene, log = write_scene(tmp_path / "s.tif", PIXELS), tmp_path / "log"
    document = chain("paced", log=str(log), seconds=1.0)
    with conductor_worker(conductor.url, tmp_path, "--domain", "lost") as worker:
        identity = conductor.start(
            document,
            {"scene": str(scene), "folder": str(tmp_path / "out"), "tile": 256, "workers": 1},
            domains={"*": "lost"},
        )
        waited(lambda: bool(windows(log)))
        (join,) = conductor.tasks(identity, "JOIN")
        lose_join(SqliteDatabase(conductor.folder), str(join["taskId"]))
        workflow = conductor.ended(identity, 200)
        assert f"workflow {identity}: completed JOIN join_0" in worker.said
    assert workflow["status"] == "COMPLETED", workflow.get("reasonForIncompletion")
    (join,) = conductor.tasks(identity, "JOIN")
    chunks = conductor.tasks(identity)
    assert join["outputData"] == {str(e["referenceTaskName"]): e["outputData"] for e in chunks}
    last = max(int(str(each["endTime"])) for each in chunks)
    assert int(str(join["endTime"])) - last > 60_000  # the control: no server has completed it
    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif"), PIXELS)
