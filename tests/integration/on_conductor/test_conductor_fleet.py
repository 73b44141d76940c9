"""Two servers over Postgres, 100 task threads, 8 replicas of two services, and a kill each 10 s."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import ROOT
from tests.support.commands import PESTO, waited
from tests.support.conductor_database import PostgresDatabase, lose_join
from tests.support.conductor_replicas import PROPERTIES, ReplicatedDesk, conductor_on_postgres
from tests.support.conductor_workers import Worker, conductor_worker, repeated, windows
from tests.support.deployment import free_port
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import PROCESSES, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue


pytestmark = [
    pytest.mark.integration, pytest.mark.conductor, pytest.mark.endurance,
    pytest.mark.timeout(3000),
]  # fmt: skip

_LOG = logging.getLogger(__name__)
MINUTES = float(os.environ.get("PESTO_TEST_FLEET_MINUTES", "3"))
PROCESSES_OF_WORKERS, AT_ONCE = 4, 25
REPLICAS = 4
TILES, CHUNKS = 64, 16
KILL_EACH_S = 10.0
SEED = 7


@dataclass
class Service:
    """A replica of a service, that can be killed and started again."""

    process_name: str
    port: int = field(default_factory=free_port)
    running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    def start(self) -> None:
        """Start it; it need not be ready."""
        words = ["serve", f"{PROCESSES}:{self.process_name}", "--port", str(self.port),
                 "--workers", "1"]  # fmt: skip
        silent = subprocess.DEVNULL
        self.running = subprocess.Popen([*PESTO, *words], cwd=ROOT, stdout=silent, stderr=silent)

    def kill(self) -> None:
        """SIGKILL it."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()


@dataclass
class Fleet:
    """All processes, and the workflows that they run."""

    desk: ReplicatedDesk
    folder: Path
    workers: list[Worker]
    services: list[Service]
    runs: dict[str, Path] = field(default_factory=dict)
    kills: list[str] = field(default_factory=list)

    def document(self, folder: Path, seconds: float = 0.2) -> dict[str, JsonValue]:
        """Two chained services, each of which writes down its calls."""
        return pipeline(
            stage("a", "paced", image="$inputs.scene", log=str(folder / "a"), seconds=seconds),
            stage("b", "watched", image="$a.image", log=str(folder / "b"), broken=""),
            outputs={"image": "$b.image"},
        )

    def start(self, scene: Path) -> None:
        """Start a workflow in a folder of its own."""
        # A start without a response has made its folder, and may have started its workflow.
        folder = self.folder / f"run-{len(list(self.folder.glob('run-*')))}"
        folder.mkdir()
        urls: dict[str, JsonValue] = {
            name: [each.url for each in self.services if each.process_name == name]
            for name in ("paced", "watched")
        }
        inputs: dict[str, JsonValue] = {
            "scene": str(scene), "folder": str(folder / "out"), "tile": 512, "services": urls,
            "concurrency": 1, "workers": CHUNKS, "max_tasks": CHUNKS, "keep": True,
        }  # fmt: skip
        try:
            identity = self.desk.start(self.document(folder), inputs, domains={"*": "fleet"})
        except Exception as error:  # noqa: BLE001  # the server that had the connection was killed
            _LOG.warning("start failed: %s", error)
            return
        self.runs[identity] = folder

    def kill_one(self, dice: random.Random) -> None:
        """SIGKILL a worker, a service or a server; all of them come back."""
        kind = dice.choice(("worker", "worker", "service", "service", "server"))
        if kind == "worker":
            found = list(dice.choice(self.workers).family - {w.process.pid for w in self.workers})
            for pid in found[:1]:
                os.kill(pid, signal.SIGKILL)
        elif kind == "service":
            service = dice.choice(self.services)
            service.kill()
            service.start()
        else:
            ready = [each for each in self.desk.replicas if each.is_ready()]
            if len(ready) < 2:
                return
            server = dice.choice(ready)
            server.kill()
            server.start()
        self.kills.append(kind)


@contextmanager
def fleet_of(desk: ReplicatedDesk, folder: Path) -> Iterator[Fleet]:
    """Start services and workers; end them with the block."""
    services = [Service(name) for name in ("paced", "watched") for _ in range(REPLICAS)]
    with ExitStack() as stack:
        for service in services:
            stack.callback(service.kill)
            service.start()
        workers = [
            stack.enter_context(
                conductor_worker(desk.url, folder, "--domain", "fleet", at_once=AT_ONCE)
            )
            for _ in range(PROCESSES_OF_WORKERS)
        ]
        yield Fleet(desk, folder, workers, services)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedDesk]:
    """Two servers."""
    with conductor_on_postgres(tmp_path_factory.mktemp("servers"), replicas=2) as desk:
        yield desk


def test_the_page_has_the_properties_of_these_servers() -> None:
    """Those of the database differ."""
    page = (ROOT / "docs" / "conductor" / "production.md").read_text()
    for name, value in PROPERTIES.items():
        assert f"\n{name}={value}\n" in page


def test_a_fleet_with_random_kills_gives_the_same_bytes(
    desk: ReplicatedDesk, tmp_path: Path
) -> None:
    """Each run has the bytes of the local engine; a tile is repeated only if it was in hand."""
    dice = random.Random(SEED)  # noqa: S311  # no secret
    scene = write_scene(tmp_path / "s.tif", noise(4096, 4096))
    quick = tmp_path / "quick"
    quick.mkdir()
    with fleet_of(desk, tmp_path) as fleet:
        local = run_local(fleet.document(quick, 0.0), tmp_path / "l", {"scene": scene}, tile=512)
        _keep_busy(fleet, scene, dice)
        calls, again, again_by_hand = 0, 0, 0
        for identity, folder in fleet.runs.items():
            workflow = desk.ended(identity, 600)
            # A JOIN that is evaluated too early, or a plan while a replica is away for minutes.
            if workflow["status"] == "FAILED":
                again_by_hand += 1
                workflow = desk.retried(identity, 600)
            assert workflow["status"] == "COMPLETED", workflow.get("reasonForIncompletion")
            assert sha256_of(folder / "out" / "image.tif") == local.sha256()
            found = windows(folder / "a")
            assert len(set(found)) == TILES
            calls, again = calls + len(found), again + repeated(found)
        in_hand = AT_ONCE * TILES // CHUNKS  # a process that is killed has so many chunks at most
        _LOG.warning(
            "%d runs, %d calls, %d repeated, %d retried by hand, %s",
            len(fleet.runs),
            calls,
            again,
            again_by_hand,
            fleet.kills,
        )
        assert len(fleet.kills) > 0
        assert again <= in_hand * len(fleet.kills)


def _keep_busy(fleet: Fleet, scene: Path, dice: random.Random) -> None:
    """Have three runs in flight, and kill something every ten seconds."""
    end = time.monotonic() + 60 * MINUTES
    next_kill = time.monotonic() + KILL_EACH_S
    while time.monotonic() < end:
        if _running(fleet) < 3:
            fleet.start(scene)
        if time.monotonic() > next_kill:
            fleet.kill_one(dice)
            next_kill = time.monotonic() + KILL_EACH_S
        time.sleep(0.5)


def _running(fleet: Fleet) -> int:
    return sum(not (folder / "out" / "result.json").exists() for folder in fleet.runs.values())


def paced(folder: Path) -> dict[str, JsonValue]:
    """A pipeline of one slow stage."""
    return pipeline(
        stage("a", "paced", image="$inputs.scene", log=str(folder / "log"), seconds=0.2),
        outputs={"image": "$a.image"},
    )


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_pipeline_and_a_campaign_end_with_the_same_bytes_on_two_servers(
    desk: ReplicatedDesk, tmp_path: Path, is_killed: bool
) -> None:
    """Also if one of the two servers is killed on the way."""
    waited(lambda: all(each.is_ready() for each in desk.replicas), timeout_s=600)
    scenes = [write_scene(tmp_path / f"s{n}.tif", noise(1024, 1024, seed=n)) for n in range(3)]
    document, log = paced(tmp_path), tmp_path / "log"
    inputs: dict[str, JsonValue] = {"tile": 256, "workers": 4}
    one: dict[str, JsonValue] = {"scene": str(scenes[0]), "folder": str(tmp_path / "one")}
    many: dict[str, JsonValue] = {
        "scenes": [str(each) for each in scenes], "folder": str(tmp_path / "many"),
    }  # fmt: skip
    with conductor_worker(desk.url, tmp_path, "--domain", "two", at_once=4):
        runs = [
            desk.start(document, inputs | one, domains={"*": "two"}),
            desk.start(document, inputs | many, domains={"*": "two"}, is_campaign=True),
        ]
        if is_killed:
            waited(lambda: len(windows(log)) > 10, 120)
            desk.replicas[1].kill()
        for identity in runs:
            assert desk.ended(identity, 600)["status"] == "COMPLETED"
        calls = len(windows(log))
    if is_killed:
        desk.replicas[1].start()
    assert calls == 16 * (1 + len(scenes))
    for scene in scenes:
        local = run_local(document, tmp_path / f"l-{scene.stem}", {"scene": scene}, tile=256)
        assert sha256_of(tmp_path / "many" / scene.stem / "image.tif") == local.sha256()
    assert (
        sha256_of(tmp_path / "one" / "image.tif")
        == run_local(document, tmp_path / "l", {"scene": scenes[0]}, tile=256).sha256()
    )


def test_a_server_that_is_killed_leaves_its_workflows_to_the_other(
    desk: ReplicatedDesk, tmp_path: Path
) -> None:
    """Ten workflows in flight; the worker completes a JOIN that the killed one had in hand."""
    waited(lambda: all(each.is_ready() for each in desk.replicas), timeout_s=600)
    scene = write_scene(tmp_path / "s.tif", noise(1024, 1024))
    document = paced(tmp_path)
    with conductor_worker(desk.url, tmp_path, "--domain", "lost", at_once=4):
        runs = [
            desk.start(document, {"scene": str(scene), "folder": str(tmp_path / str(number)),
                                  "tile": 256, "workers": 4}, domains={"*": "lost"})
            for number in range(10)
        ]  # fmt: skip
        waited(lambda: len(windows(tmp_path / "log")) > 40, 120)
        desk.replicas[0].kill()
        for identity in runs:
            assert desk.ended(identity, 600)["status"] == "COMPLETED"
    desk.replicas[0].start()
    local = run_local(document, tmp_path / "local", {"scene": scene}, tile=256).sha256()
    assert {sha256_of(tmp_path / str(number) / "image.tif") for number in range(10)} == {local}


def test_a_join_that_is_left_to_a_lost_server_is_completed_by_a_worker(
    desk: ReplicatedDesk, tmp_path: Path
) -> None:
    """Neither of two servers has it: some 75 s after the last task, the worker completes it."""
    waited(lambda: all(each.is_ready() for each in desk.replicas), timeout_s=600)
    scene = write_scene(tmp_path / "s.tif", noise(600, 500))
    document = paced(tmp_path)
    with conductor_worker(desk.url, tmp_path, "--domain", "join", at_once=1) as worker:
        inputs: dict[str, JsonValue] = {
            "scene": str(scene), "folder": str(tmp_path / "out"), "tile": 64, "workers": 1,
        }  # fmt: skip
        identity = desk.start(document, inputs, domains={"*": "join"})
        waited(lambda: bool(windows(tmp_path / "log")))
        (join,) = desk.tasks(identity, "JOIN")
        lose_join(PostgresDatabase(desk.database_port), str(join["taskId"]))
        assert desk.ended(identity, 300)["status"] == "COMPLETED"
        assert f"workflow {identity}: completed JOIN join_0" in worker.said
    (join,) = desk.tasks(identity, "JOIN")
    last = max(int(str(each["endTime"])) for each in desk.tasks(identity))
    assert int(str(join["endTime"])) - last > 60_000  # the control: no server has completed it
