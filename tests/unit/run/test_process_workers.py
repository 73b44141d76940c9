"""Worker processes of the local engine against code that does what it likes with its process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import psutil  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.support.rasters import noise, write_scene
from tests.support.runs import Done, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

CODE = """
import os, subprocess, sys, time
from pathlib import Path
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process


@process(version="1", margin=0)
def grow(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")]:
    flag = Path(__file__).with_name("once")
    {does}
    return image.copy()
"""
DOES = {
    "reads its input": "assert sys.stdin.readline() == ''",
    "prints": "print('{\"result\": 1}', flush=True); os.write(1, b'x' * 100)",
    "starts a child that reads": "assert subprocess.check_output(['cat']) == b''",
    "changes directory": "os.chdir('/')",
    "dies once with a child": (
        "first = not flag.exists(); flag.touch()\n"
        "    if first and os.fork() == 0: time.sleep(60)\n"
        "    if first: os._exit(1)"
    ),
}


def run(folder: Path, does: str) -> tuple[Done, np.ndarray]:
    code = folder / "code.py"
    code.write_text(CODE.replace("{does}", does))
    pixels = noise(600, 300)
    scene = write_scene(folder / "s.tif", pixels)
    done = run_local(
        chain("grow"),
        folder / "out",
        {"scene": scene},
        executor="processes",
        services=(f"grow={code}:grow",),
    )
    return done, pixels


@pytest.mark.parametrize("does", DOES)
def test_the_run_ends_and_is_right(tmp_path: Path, does: str) -> None:
    """Its pipes are for the parent alone, and a child of a dead worker does not hold it up."""
    begun = time.monotonic()
    done, pixels = run(tmp_path, DOES[does])
    assert done.result["status"] == "COMPLETE"
    assert np.array_equal(done.pixels(), pixels)
    assert time.monotonic() - begun < 40
    assert not any(map(is_worker, psutil.Process().children(recursive=True)))


def is_worker(process: psutil.Process) -> bool:
    try:
        return "chunk_process" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False
