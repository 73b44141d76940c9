"""Killed, interrupted and started again: the same bytes, no more work than was lost, no orphans."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import numpy as np
import pytest

from tests.support.commands import descendants, is_alive, pesto, saved, started, waited
from tests.support.conductor_workers import repeated, windows
from tests.support.packs import packed_blocks
from tests.support.rasters import noise, pixels_of, sha256_of, tree, write_scene
from tests.support.runs import chain

pytestmark = pytest.mark.integration

WIDTH, HEIGHT = 1100, 600  # 3 x 2 blocks
COUNTS = {(0, 0): 9, (0, 1): 9, (0, 2): 3, (1, 0): 3, (1, 1): 3, (1, 2): 1}  # tiles of 200
SECONDS = 0.1
RESULTS = {"image.tif", "report.html", "result.json"}


class Job:
    """A run that takes its time, and one that does not to compare it with."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.pixels = noise(WIDTH, HEIGHT)
        self.scene = write_scene(folder / "s.tif", self.pixels)
        document = chain("slow", seconds=SECONDS)
        self.pipeline = saved(folder / "pipeline.json", document)

    def words(self, *more: object, workers: int = 2) -> list[object]:
        """The command."""
        return ["run", self.pipeline, "-i", f"scene={self.scene}", "-o", self.out,
                "--tile", 200, "--workers", workers, *more]  # fmt: skip

    def blocks(self) -> set[tuple[int, int]]:
        """Blocks (row, col) in the packs of the run store."""
        return {each.index for each in packed_blocks(self.out / ".pesto")}

    def undisturbed(self, folder: Path) -> str:
        """sha256 of what a run that nobody disturbs gives."""
        words = self.words()
        words[words.index(self.out)] = folder
        assert pesto(*words).returncode == 0
        return sha256_of(folder / "image.tif")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def tiles(out: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((out / "result.json").read_text())["tiles"]
    return found


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_killed_run_goes_on_with_what_it_lost(tmp_path: Path, job: Job, executor: str) -> None:
    """SIGKILL half-way: tiles computed afterwards are exactly those of the missing blocks."""
    with started(*job.words("--executor", executor)) as process:
        waited(lambda: len(job.blocks()) >= 2)
        workers = descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        waited(lambda: not any(is_alive(pid) for pid in workers), timeout_s=30)
    assert bool(workers) == (executor == "processes")
    there = job.blocks()
    assert 0 < len(there) < len(COUNTS)
    assert all(name.startswith(".pesto/") for name in tree(job.out))

    again = pesto(*job.words("--executor", executor))

    assert again.returncode == 0, again.stderr
    wanted = sum(count for index, count in COUNTS.items() if index not in there)
    assert tiles(job.out) == {
        "computed": wanted, "reused": sum(COUNTS.values()) - wanted, "holes": 0
    }  # fmt: skip
    assert np.array_equal(pixels_of(job.out / "image.tif"), job.pixels)
    assert sha256_of(job.out / "image.tif") == job.undisturbed(tmp_path / "other")
    assert tree(job.out) == RESULTS


@pytest.mark.parametrize(
    ("executor", "signal_"),
    [("threads", signal.SIGINT), ("processes", signal.SIGINT), ("threads", signal.SIGTERM)],
)
def test_an_interrupted_run_stops_clean_and_says_that_it_resumes(
    job: Job, executor: str, signal_: signal.Signals
) -> None:
    """Exit code 130, no traceback, nothing published, no worker left; the same command resumes."""
    with started(*job.words("--executor", executor)) as process:
        waited(lambda: len(job.blocks()) >= 1)
        workers = descendants(process.pid)
        process.send_signal(signal_)
        _, told = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "resume" in told
    assert "Traceback" not in told
    assert all(name.startswith(".pesto/") for name in tree(job.out))
    waited(lambda: not any(is_alive(pid) for pid in workers), timeout_s=30)

    there = job.blocks()
    again = pesto(*job.words("--executor", executor))

    assert again.returncode == 0, again.stderr
    assert there
    wanted = sum(count for index, count in COUNTS.items() if index not in there)
    assert tiles(job.out)["computed"] == wanted
    assert np.array_equal(pixels_of(job.out / "image.tif"), job.pixels)


def test_ctrl_c_of_a_terminal_reaches_workers_too(job: Job) -> None:
    """A terminal interrupts the whole group: the workers leave that to their parent."""
    with started(*job.words("--executor", "processes")) as process:
        waited(lambda: len(job.blocks()) >= 1)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert "resume" in told


@pytest.mark.parametrize("delay_s", [0.0, 0.2, 0.4, 0.6])
def test_an_interrupt_before_the_first_tile_leaves_no_traceback(job: Job, delay_s: float) -> None:
    """While modules load, the pipeline is checked or the plan is made."""
    with started(*job.words()) as process:
        time.sleep(0.1)
        waited(lambda: catches_interrupts(process.pid) or process.poll() is not None)
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert "interrupted" in told.lower()
    assert not job.out.exists() or all(name.startswith(".pesto/") for name in tree(job.out))


def catches_interrupts(pid: int) -> bool:
    """Whether the command has begun: it catches SIGTERM from its first line on."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line for line in status if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_kill_costs_at_most_one_unfinished_block_and_two_seconds(tmp_path: Path) -> None:
    """Counted by the process. A block takes 2.5 s; row by row over three, all would be lost."""
    scene, log = write_scene(tmp_path / "s.tif", noise(1536, 512)), tmp_path / "log"
    pipeline = saved(tmp_path / "p.json", chain("paced", log=str(log), seconds=0.04))
    words = ["run", pipeline, "-i", f"scene={scene}", "-o", tmp_path / "out",
             "--tile", 64, "--workers", 1, "--max-tasks", 1]  # fmt: skip
    with started(*words) as process:
        waited(lambda: len(windows(log)) >= 150)
        process.send_signal(signal.SIGKILL)
    before = len(windows(log))
    assert 150 <= before < 192
    assert pesto(*words).returncode == 0
    assert len(set(windows(log))) == 192
    assert repeated(windows(log)) <= 64


def test_worker_processes_have_no_names_that_could_stay(job: Job) -> None:
    """Nothing of theirs is in /dev/shm, so that no kill can leave it there."""
    with started(*job.words("--executor", "processes")) as process:
        waited(lambda: len(job.blocks()) >= 1)
        family = [process.pid, *descendants(process.pid)]
        assert len(family) == 3
        mapped = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in family)
        assert "/dev/shm/" not in mapped  # noqa: S108  # it is looked for, not written
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_another_run_in_the_same_folder_is_refused_while_one_runs(tmp_path: Path, job: Job) -> None:
    """And disturbs the first one in nothing, which is stopped for as long as the second takes."""
    other = job.words()
    other[other.index(job.pipeline)] = saved(tmp_path / "other.json", chain("grow"))
    with started(*job.words()) as process:
        waited(lambda: len(job.blocks()) >= 1)
        process.send_signal(signal.SIGSTOP)
        second = pesto(*other, "--take-over")
        process.send_signal(signal.SIGCONT)
        told = process.communicate(timeout=60)[1]
    assert second.returncode == 2
    assert f"is in use by run {run_of(job.out)}" in second.stderr
    assert f"process {process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert process.returncode == 0, told
    assert np.array_equal(pixels_of(job.out / "image.tif"), job.pixels)


def test_the_same_run_started_twice_gives_one_result(job: Job) -> None:
    """The second waits for the first, and computes nothing."""
    with started(*job.words()) as first:
        waited(lambda: len(job.blocks()) >= 1)
        first.send_signal(signal.SIGSTOP)
        Timer(10, first.send_signal, [signal.SIGCONT]).start()
        second = pesto(*job.words())
        told = first.communicate(timeout=60)[1]
    assert first.returncode == 0, told
    assert second.returncode == 0, second.stderr
    assert "the same run is at work already" in second.stderr
    assert "already complete" in second.stderr
    assert np.array_equal(pixels_of(job.out / "image.tif"), job.pixels)


def run_of(out: Path) -> str:
    found: str = json.loads((out / "result.json").read_text())["run"]
    return found


def test_a_run_killed_while_it_writes_its_product_resumes(tmp_path: Path, job: Job) -> None:
    """Every block is there, the mosaic is not: no tile is computed again."""
    expected = job.undisturbed(tmp_path / "other")
    blocker = (
        "import os, signal, sys\n"
        "def killed(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.fsync = killed\n"
        "from pesto_runtime.cli import main\n"
        "main()\n"
    )
    words = [sys.executable, "-c", blocker, *map(str, job.words())]
    killed = subprocess.run(words, capture_output=True, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert "image.tif" not in tree(job.out)
    assert any(name.endswith("image.tif.part") for name in tree(job.out))

    again = pesto(*job.words())

    assert again.returncode == 0, again.stderr
    assert tiles(job.out)["computed"] == 0
    assert sha256_of(job.out / "image.tif") == expected
    assert tree(job.out) == RESULTS
