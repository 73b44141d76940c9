"""Dask and Spark: the bytes of the local engine; a dead worker costs its tiles, and no more."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.errors import InvalidInput, RunFailed
from tests.support.buckets import variables
from tests.support.clusters import (
    dask_cluster,
    dask_workers,
    run_on,
    spark_workers,
    why_no_java,
)
from tests.support.commands import is_alive, saved, served, started, waited
from tests.support.conductor_workers import repeated, windows
from tests.support.engine_buckets import require_bytes_of_the_disk
from tests.support.engine_resolutions import DOCUMENT, TwoPlaces
from tests.support.file_server import use
from tests.support.processes import MARKER
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import PROCESSES, chain, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

WIDTH, HEIGHT = 1100, 600  # 3 x 2 blocks
TILES_OF_A_BLOCK = 64  # of 64 pixels

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("without_pictures"),
]
_NEEDS_JAVA = pytest.mark.skipif(bool(why_no_java()), reason=why_no_java())
DASK = [pytest.param("dask", marks=pytest.mark.dask)]
SPARK = [pytest.param("spark", marks=[pytest.mark.spark, _NEEDS_JAVA])]
ENGINES = [*DASK, *SPARK]


@dataclass(frozen=True)
class Running:
    """A cluster that runs: the name of its engine, and how to find its workers' pids."""

    engine: str
    workers: Callable[[], list[int]]


@pytest.fixture(scope="module", params=ENGINES)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bucket_port: int
) -> Iterator[Running]:
    """A cluster that all tests share: two workers of Dask, or a Spark of two threads.

    Its workers know the bucket.
    """
    with pytest.MonkeyPatch.context() as patch:
        use(variables(bucket_port), patch)
        if request.param == "dask":
            with dask_cluster(tmp_path_factory.mktemp("dask")) as (address, pid):
                patch.setenv("PESTO_DASK_ADDRESS", address)
                yield Running("dask", lambda: dask_workers(pid))
            return
        from pyspark import SparkConf, SparkContext

        patch.setenv("PYSPARK_PYTHON", sys.executable)
        conf = SparkConf().setMaster("local[2,1]").set("spark.log.level", "OFF")
        conf.set("spark.ui.enabled", "false")
        conf.set("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        with SparkContext(conf=conf):
            yield Running("spark", lambda: spark_workers(os.getpid()))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = noise(WIDTH, HEIGHT)
    pixels[0, 530, 610] = MARKER
    return write_scene(tmp_path / "s.tif", pixels)


def two_phases(broken: Path) -> dict[str, JsonValue]:
    """Two maps and a reduce, then a map that needs the reduce; the first fails at the marker."""
    return pipeline(
        stage("same", "fragile", image="$inputs.scene", broken=str(broken)),
        stage("mean", "mean", image="$same.image"),
        stage("above", "above", image="$inputs.scene", level="$mean.mean"),
        stage("grown", "grow_far", image="$same.image"),
        outputs={"image": "$grown.image", "mean": "$mean.mean", "above": "$above.image"},
    )


def test_a_cluster_writes_the_bytes_of_the_local_engine(
    tmp_path: Path, cluster: Running, scene: Path
) -> None:
    """Two phases, products and a value; `result.json` names the engine."""
    document = two_phases(tmp_path / "never")
    local = run_local(document, tmp_path / "local", {"scene": scene})
    done = run_on(cluster.engine, document, tmp_path / "out", {"scene": scene})
    for name in ("image", "above"):
        assert done.sha256(name) == local.sha256(name)
    assert done.value("mean") == local.value("mean")
    assert done.tiles == local.tiles
    engine = done.result["engine"]
    assert isinstance(engine, dict)
    assert (engine["name"], engine["workers"]) == (cluster.engine, 2)
    assert tree(done.folder) == tree(local.folder)


@pytest.mark.usefixtures("bucket_port")
def test_a_run_in_a_bucket_gives_the_bytes_of_the_disk(tmp_path: Path, cluster: Running) -> None:
    """Workers share no folder with each other, and none with the command."""
    require_bytes_of_the_disk(tmp_path, cluster.engine)


def test_warped_images_of_two_resolutions_and_their_values_are_those_of_the_local_engine(
    tmp_path: Path, cluster: Running
) -> None:
    """Two phases; values are folded over tiles of several workers."""
    places, out = TwoPlaces(tmp_path), tmp_path / "out"
    run_on(cluster.engine, DOCUMENT, out, places.given("north"), tile=None, max_tasks=4,
           report="none")  # fmt: skip
    places.require_local_results(("north", out))


def test_a_hole_is_that_of_the_local_engine(tmp_path: Path, cluster: Running, scene: Path) -> None:
    """PARTIAL, with the same pixels; the correction computes only the hole."""
    broken = tmp_path / "broken"
    broken.touch()
    document = two_phases(broken)
    local = run_local(document, tmp_path / "local", {"scene": scene})
    done = run_on(cluster.engine, document, tmp_path / "out", {"scene": scene})
    assert done.result["status"] == local.result["status"] == "PARTIAL"
    assert done.sha256() == local.sha256()
    assert done.tiles == local.tiles
    assert done.tiles[2] > 0
    broken.unlink()
    again = run_on(cluster.engine, document, tmp_path / "out", {"scene": scene})
    assert again.result["status"] == "COMPLETE"
    assert again.tiles[1] >= local.tiles[0] - local.tiles[2]  # reused


def test_a_service_is_called_from_the_workers(
    tmp_path: Path, cluster: Running, scene: Path
) -> None:
    """The bytes of the function that it serves."""
    local = run_local(chain("grow_far"), tmp_path / "local", {"scene": scene})
    with served(f"{PROCESSES}:grow_far") as url:
        done = run_on(
            cluster.engine, chain("grow_far"), tmp_path / "out", {"scene": scene},
            services=(f"grow-far={url}",),
        )  # fmt: skip
    assert done.sha256() == local.sha256()
    assert url in json.dumps(done.result["stages"])


def test_a_worker_that_dies_once_costs_nothing_else(
    tmp_path: Path, cluster: Running, scene: Path
) -> None:
    """The algorithm ends its own process at one tile: the run goes on with another worker."""
    flag = tmp_path / "flag"
    document = chain("deadly", flag=str(flag))
    done = run_on(cluster.engine, document, tmp_path / "out", {"scene": scene})
    assert flag.exists()
    assert done.result["status"] == "COMPLETE"
    local = run_local(document, tmp_path / "local", {"scene": scene})
    assert done.sha256() == local.sha256()


def test_a_killed_worker_costs_its_tiles(tmp_path: Path, cluster: Running) -> None:
    """SIGKILL from outside: at most one unfinished block is computed again, the bytes are right."""
    scene, log = write_scene(tmp_path / "s.tif", noise(1024, 1024)), tmp_path / "log"
    killed: list[int] = []

    def kill_one() -> None:
        waited(lambda: len(windows(log)) >= 100, timeout_s=90)
        killed.append(cluster.workers()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = Thread(target=kill_one)
    killer.start()
    document = chain("paced", log=str(log), seconds=0.02)
    done = run_on(cluster.engine, document, tmp_path / "out", {"scene": scene}, tile=64)
    killer.join()
    assert not is_alive(killed[0])
    assert len(set(windows(log))) == 4 * TILES_OF_A_BLOCK
    assert 0 < repeated(windows(log)) <= TILES_OF_A_BLOCK
    other = chain("paced", log=str(tmp_path / "other"), seconds=0.0)
    local = run_local(other, tmp_path / "local", {"scene": scene}, tile=64)
    assert done.sha256() == local.sha256()


@pytest.mark.parametrize("engine", ENGINES)
def test_ctrl_c_stops_the_workers_and_any_engine_resumes(tmp_path: Path, engine: str) -> None:
    """As a terminal sends it, to the whole group: exit code 130, nothing published, no worker."""
    scene, log = write_scene(tmp_path / "s.tif", noise(1024, 1024)), tmp_path / "log"
    words = paced_run(tmp_path, scene, log, engine)
    with started(*words) as process:
        waited(lambda: len(windows(log)) >= 150, timeout_s=90)
        os.killpg(process.pid, signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    assert "the same command resumes the run" in told
    assert "Traceback" not in told
    assert all(name.startswith(".pesto/") for name in tree(tmp_path / "out"))
    before = len(windows(log))
    time.sleep(0.5)
    assert len(windows(log)) == before

    document = chain("paced", log=str(log), seconds=0.02)
    again = run_local(document, tmp_path / "out", {"scene": scene}, tile=64)

    assert again.tiles[1] > 0  # reused
    assert len(set(windows(log))) == 4 * TILES_OF_A_BLOCK
    assert repeated(windows(log)) <= 2 * TILES_OF_A_BLOCK
    assert np.array_equal(again.pixels(), noise(1024, 1024))


@pytest.mark.parametrize("cluster", DASK, indirect=True)
def test_a_killed_command_leaves_no_task_on_a_scheduler(tmp_path: Path, cluster: Running) -> None:
    """The workers of others stop before their next tile, and take the next run."""
    scene, log = write_scene(tmp_path / "s.tif", noise(1024, 1024)), tmp_path / "log"
    with started(*paced_run(tmp_path, scene, log, "dask")) as process:
        waited(lambda: len(windows(log)) >= 20, timeout_s=90)
        process.kill()
    time.sleep(1)
    before = len(windows(log))
    time.sleep(1)
    assert len(windows(log)) == before < 4 * TILES_OF_A_BLOCK
    again = run_on(cluster.engine, chain("grow"), tmp_path / "other", {"scene": scene})
    assert again.result["status"] == "COMPLETE"


@pytest.mark.parametrize("cluster", SPARK, indirect=True)
def test_an_algorithm_that_always_kills_its_worker_ends_the_run(
    tmp_path: Path, cluster: Running, scene: Path
) -> None:
    """After a few attempts without progress, with the cause and the way out."""
    with pytest.raises(RunFailed, match="died 4 times without finishing a chunk"):
        run_on(
            cluster.engine,
            chain("deadly", flag=""),
            tmp_path / "out",
            {"scene": scene},
            max_tasks=1,
        )
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize("cluster", SPARK, indirect=True)
def test_a_context_of_another_master_is_refused(
    tmp_path: Path, cluster: Running, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process has one context of Spark; the variable names another cluster."""
    monkeypatch.setenv("PESTO_SPARK_MASTER", "spark://127.0.0.1:1")
    with pytest.raises(InvalidInput, match=r"PESTO_SPARK_MASTER.*local"):
        run_on(cluster.engine, chain("grow"), tmp_path / "out", {"scene": scene})


def paced_run(folder: Path, scene: Path, log: Path, engine: str) -> list[object]:
    """The command of a run of 4 blocks that takes its time."""
    file = saved(folder / "p.json", chain("paced", log=str(log), seconds=0.02))
    return ["run", file, "-i", f"scene={scene}", "-o", folder / "out", "--engine", engine,
            "--tile", 64, "--workers", 2, "--no-report"]  # fmt: skip
