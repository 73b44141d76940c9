"""Worker processes of a service that somebody kills while they compute tiles of a run."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil  # type: ignore[import-untyped]  # it has no types

from tests.support.commands import started
from tests.support.rasters import noise, write_scene
from tests.support.runs import PROCESSES, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_repeats_the_tiles_of_a_worker_that_was_killed(tmp_path: Path) -> None:
    """SIGKILL is nobody's fault in the algorithm: no hole, and the pixels of the scene."""
    pixels = noise(700, 600)
    scene = write_scene(tmp_path / "s.tif", pixels)
    words = (f"{PROCESSES}:slow", "--port", 0, "--workers", 2, "--allow", tmp_path)
    with started("serve", *words) as service:
        assert service.stderr is not None
        url = re.search(r"http://\S+/api/v1", service.stderr.readline())
        assert url is not None
        done = threading.Event()
        killed: list[int] = []

        def kill() -> None:
            # A tile has three attempts: fewer kills cannot take them all from one tile.
            while len(killed) < 2 and not done.wait(1.5):
                for worker in psutil.Process(service.pid).children():
                    if worker.pid in killed or worker.create_time() > time.time() - 1:
                        continue  # one that still starts
                    os.kill(worker.pid, signal.SIGKILL)
                    killed.append(worker.pid)
                    break

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            made = run_local(
                chain("slow", seconds=0.8),
                tmp_path / "out",
                {"scene": scene},
                services=(f"slow={url[0]}",),
            )
        finally:
            done.set()
            killer.join()
            service.terminate()
    assert killed
    assert made.result["status"] == "COMPLETE"
    assert np.array_equal(made.pixels(), pixels)
