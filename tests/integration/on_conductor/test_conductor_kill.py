"""SIGKILL in the middle of a workflow: the same bytes, and only the tiles in hand made again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from pesto_conductor.following import tasks_of
from tests.support.commands import PESTO, ROOT, is_alive, waited
from tests.support.conductor_workers import conductor_worker, repeated, windows
from tests.support.rasters import noise, pixels_of, sha256_of, write_scene
from tests.support.runs import PROCESSES, chain, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk, Document, Worker

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(240)]

SIDE, TILE = 2048, 512
TILES = (SIDE // TILE) ** 2
AT_ONCE = 2
IN_HAND = 2 * AT_ONCE
"""Tiles of the chunks in hand: a chunk has two, and stores a finished one within 2 s."""
SECONDS = 0.4
FAMILY_S = 20


@dataclass
class Service:
    """A service on a port of its own, that can be killed and started again."""

    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    def start(self) -> None:
        """Start it; it need not be ready."""
        words = ["serve", f"{PROCESSES}:paced", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*PESTO, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """SIGKILL it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class Job:
    """A run of 16 tiles, each a block of its own, at a service that writes down every call."""

    desk: Desk
    folder: Path
    service: Service
    identity: str = ""

    def start(self) -> None:
        """Start the workflow."""
        self.pixels = noise(SIDE, SIDE)
        self.scene = write_scene(self.folder / "s.tif", self.pixels)
        self.document = chain("paced", log=str(self.log), seconds=SECONDS)
        inputs: dict[str, JsonValue] = {
            "scene": str(self.scene), "folder": str(self.folder / "out"), "tile": TILE,
            "services": {"paced": self.service.url}, "concurrency": 1,
        }  # fmt: skip
        self.identity = self.desk.start(self.document, inputs, domains={"*": "kill"})

    @property
    def log(self) -> Path:
        """Where the service writes down its calls."""
        return self.folder / "log"

    def half_way(self) -> None:
        """Wait for a fair part of the tiles."""
        waited(lambda: len(windows(self.log)) >= TILES // 3, 40)

    def ends_well(self, *, most_repeated: int) -> None:
        """Same bytes as the local engine, and no more calls than were in hand."""
        workflow = self.desk.ended(self.identity, 120)
        if ended_by_its_join(workflow):
            workflow = self.desk.retried(self.identity, 120)
        assert workflow["status"] == "COMPLETED", workflow.get("reasonForIncompletion")
        calls = windows(self.log)
        assert len(set(calls)) == TILES
        assert repeated(calls) <= most_repeated, calls
        made = self.folder / "out" / "image.tif"
        assert np.array_equal(pixels_of(made), self.pixels)
        quick = chain("paced", log=str(self.folder / "other"), seconds=0.0)
        local = run_local(quick, self.folder / "local", {"scene": self.scene}, tile=TILE)
        assert sha256_of(made) == local.sha256()


def ended_by_its_join(workflow: Document) -> bool:
    """Return whether a JOIN failed the workflow while each failed chunk already had its retry.

    A JOIN of Conductor 3.32 that is evaluated between the failure of a task and the retry of it
    fails the workflow (about one run in three here); an operator then retries the workflow.
    """
    tasks = tasks_of(workflow)
    chunks = [task for task in tasks if task["taskType"] == "pesto_process"]
    failed = [task["referenceTaskName"] for task in chunks if task["status"] == "FAILED"]
    retried = {task["referenceTaskName"] for task in chunks if task["retryCount"] == 1}
    joins = [task["status"] for task in tasks if task["taskType"] == "JOIN"]
    has_failed_join = joins[-1:] == ["FAILED"]
    return workflow["status"] == "FAILED" and has_failed_join and retried >= {*failed}


@contextmanager
def job_of(desk: Desk, folder: Path) -> Iterator[Job]:
    service = Service(_free_port())
    service.start()
    try:
        yield Job(desk, folder, service)
    finally:
        service.kill()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def working(desk: Desk, folder: Path) -> Iterator[tuple[Job, Worker]]:
    """A workflow half-way, its service and its worker."""
    with ExitStack() as stack:
        job = stack.enter_context(job_of(desk, folder))
        worker = stack.enter_context(
            conductor_worker(desk.url, folder, "--domain", "kill", at_once=AT_ONCE)
        )
        job.start()
        job.half_way()
        yield job, worker


def has_rasterio(pid: int) -> bool:
    """Return whether a process has imported it."""
    return "/rasterio/" in Path(f"/proc/{pid}/maps").read_text()


def test_a_killed_worker_is_replaced_and_its_tiles_come_back(
    conductor: Desk, tmp_path: Path
) -> None:
    """Its supervisor starts another; SIGTERM afterwards leaves nothing."""
    with working(conductor, tmp_path) as (job, worker):
        killed = worker.child
        # The next process need not import what it needs for a tile.
        assert all(has_rasterio(pid) for pid in worker.family)
        assert not has_rasterio(conductor.server.pid)
        os.kill(killed, signal.SIGKILL)
        job.ends_well(most_repeated=IN_HAND)
        assert "the worker died (by signal 9)" in worker.said
        assert worker.child != killed
        family = worker.family
        worker.process.send_signal(signal.SIGTERM)
        waited(lambda: not any(is_alive(pid) for pid in family), FAMILY_S)


def test_a_worker_without_a_supervisor_leaves_its_tasks_to_the_next_one(
    conductor: Desk, tmp_path: Path
) -> None:
    """As a platform runs it: one process, probes from other machines, a journal on a volume."""
    port = _free_port()
    options = ("--domain", "kill", "--no-supervisor", "--journal", tmp_path / "journal",
               "--metrics-port", port)  # fmt: skip
    with ExitStack() as stack:
        job = stack.enter_context(job_of(conductor, tmp_path))
        worker = stack.enter_context(
            conductor_worker(
                conductor.url,
                tmp_path,
                *options,
                "--metrics-host",
                "0.0.0.0",  # noqa: S104
                at_once=AT_ONCE,
            )
        )
        job.start()
        job.half_way()
        assert worker.family == {worker.process.pid}
        waited(lambda: ready_at(f"127.0.0.2:{port}"))
        worker.process.kill()
        worker.process.wait()
        following = stack.enter_context(
            conductor_worker(conductor.url, tmp_path, *options, at_once=AT_ONCE)
        )
        job.ends_well(most_repeated=IN_HAND)
        assert "returned: its process died" in following.said
        assert ready_at(f"127.0.0.1:{port}")
        assert not ready_at(f"127.0.0.2:{port}")  # without the option, of this machine alone


def ready_at(address: str) -> bool:
    """Return whether a worker is ready, by its probe."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://{address}/ready", trust_env=False).status_code == 200
    return False


def test_a_stopped_worker_leaves_its_tasks_to_another_after_their_lease(
    conductor: Desk, tmp_path: Path
) -> None:
    """It reports none of them when it goes on, and takes further tasks."""
    with working(conductor, tmp_path) as (job, worker):
        os.kill(worker.child, signal.SIGSTOP)
        with conductor_worker(conductor.url, tmp_path, "--domain", "kill", at_once=AT_ONCE):
            job.ends_well(most_repeated=IN_HAND)
        made = sha256_of(job.folder / "out" / "image.tif")
        statuses = [str(each["status"]) for each in conductor.tasks(job.identity)]
        assert statuses.count("TIMED_OUT") in range(1, AT_ONCE + 1), statuses
        os.kill(worker.child, signal.SIGCONT)
        again = Job(conductor, tmp_path / "again", job.service)
        again.folder.mkdir()
        again.start()
        again.ends_well(most_repeated=0)
        assert sha256_of(job.folder / "out" / "image.tif") == made
        assert [str(e["status"]) for e in conductor.tasks(job.identity)] == statuses


def test_a_worker_whose_supervisor_is_killed_drains(conductor: Desk, tmp_path: Path) -> None:
    """No orphan goes on polling; what it had is given to the next worker."""
    with working(conductor, tmp_path) as (job, worker):
        family = worker.family
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        waited(lambda: not any(is_alive(pid) for pid in family), FAMILY_S)
        with conductor_worker(conductor.url, tmp_path, "--domain", "kill", at_once=AT_ONCE):
            job.ends_well(most_repeated=IN_HAND)


def test_a_killed_service_is_asked_again_once_it_is_back(conductor: Desk, tmp_path: Path) -> None:
    """The chunk is retried as long as that takes, and nothing of the others is lost."""
    with working(conductor, tmp_path) as (job, _worker):
        job.service.kill()
        time.sleep(3)
        job.service.start()
        job.ends_well(most_repeated=IN_HAND)


def test_a_killed_server_loses_nothing(conductor: Desk, tmp_path: Path) -> None:
    """Workers finish what they have, and tell it when the server is back."""
    with working(conductor, tmp_path) as (job, worker):
        conductor.kill()
        conductor.up()
        job.ends_well(most_repeated=IN_HAND)
        assert worker.process.poll() is None


def test_all_three_killed_at_once_end_with_the_same_bytes(conductor: Desk, tmp_path: Path) -> None:
    """Worker, service and server, in the middle of it."""
    with working(conductor, tmp_path) as (job, worker):
        os.kill(worker.child, signal.SIGKILL)
        job.service.kill()
        conductor.kill()
        conductor.up()
        job.service.start()
        job.ends_well(most_repeated=IN_HAND)


def test_a_worker_that_dies_of_every_task_gives_up(conductor: Desk, tmp_path: Path) -> None:
    """Not for ever, not in silence: exit code 1, after five deaths within a minute."""
    with conductor_worker(conductor.url, tmp_path, "--domain", "none") as worker:
        for _ in range(5):
            waited(lambda: bool(worker.family - {worker.process.pid}))
            os.kill(worker.child, signal.SIGKILL)
            time.sleep(0.3)
        assert worker.process.wait(60) == 1
        assert "no further restart" in worker.said
