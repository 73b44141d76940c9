"""`pesto plan` says what memory a run takes, within -5 and +30 %.

Memory is compared as it is estimated: the anonymous pages of all processes, and libraries once.
Time is not compared, because other programs use the machines of tests.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.support.commands import PESTO, ROOT, pesto
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CODE = """
from typing import Annotated
import numpy as np
from scipy import ndimage
from pesto_runtime import Named, Raster, process

Grey = Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")]
NewGrey = Annotated[np.ndarray, Raster(name="made", bands=["grey"], dtype="uint8")]
Four = Annotated[np.ndarray, Raster(bands=["a", "b", "c", "d"], dtype="float32")]

@process(version="1", margin=0, releases_gil=True)
def invert(image: Grey) -> NewGrey:
    return ~image

@process(version="1", margin=12, releases_gil=True)
def smooth(image: Grey) -> NewGrey:
    return ndimage.gaussian_filter(image[0], 3.0, mode="nearest", truncate=4.0)[np.newaxis]

@process(version="1", margin=4, releases_gil=True)
def mean(
    image: Four
) -> Annotated[np.ndarray, Raster(name="made", bands=["a", "b", "c", "d"], dtype="float32")]:
    return np.stack([ndimage.uniform_filter(band, 9, mode="nearest") for band in image])

def finish(partial: dict[str, np.ndarray]) -> Annotated[list[int], Named("made")]:
    return partial["counts"].tolist()

@process(version="1", reduce={"counts": "sum"}, finish=finish, releases_gil=True)
def histogram(image: Grey) -> dict[str, np.ndarray]:
    return {"counts": np.bincount(image.ravel(), minlength=256)}
"""
CASES = [
    (("invert",), 4096, "threads"),
    (("smooth", "invert", "smooth"), 2048, "threads"),
    (("histogram",), 2048, "threads"),
    (("mean",), 2048, "processes"),
]


@dataclass(frozen=True)
class Run:
    """A pipeline over a scene."""

    words: tuple[str, ...]
    folder: Path


@pytest.mark.parametrize(("names", "side", "executor"), CASES)
def test_a_plan_knows_the_memory_of_a_run(
    names: Sequence[str], side: int, executor: str, tmp_path: Path
) -> None:
    """The estimate is between 95 and 130 % of the measured peak."""
    run = a_run(names, side, executor, tmp_path)
    ratio = estimated(run)["memory_bytes"] / measured(run)
    assert 0.95 <= ratio <= 1.30, f"estimated {ratio:.2f} of the measured memory"


def test_the_estimate_is_of_this_run_and_no_other(tmp_path: Path) -> None:
    """Control: the estimate with threads is too small for worker processes."""
    run = a_run(("smooth",), 2048, "threads", tmp_path / "threads")
    other = a_run(("smooth",), 2048, "processes", tmp_path / "processes")
    assert estimated(run)["memory_bytes"] / measured(other) < 0.95


def a_run(names: Sequence[str], side: int, executor: str, folder: Path) -> Run:
    """Write a scene, the code, and the pipeline of these processes one after another."""
    folder.mkdir(exist_ok=True)
    code = folder / "code.py"
    code.write_text(CODE)
    is_four = names == ("mean",)
    base = noise(512, 512, bands=4 if is_four else 1, dtype="float32" if is_four else "uint8")
    scene = write_scene(
        folder / "scene.tif",
        np.tile(base, (1, side // 512, side // 512)),
        names=("a", "b", "c", "d") if is_four else ("grey",),
        options={"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"},
    )
    reads = ["$inputs.scene", *(f"$s{n}.made" for n in range(len(names)))]
    document = {
        "name": "costs",
        "inputs": {"scene": "image"},
        "services": {name: f"{code}:{name}" for name in names},
        "stages": [
            {"id": f"s{n}", "process": name, "inputs": {"image": reads[n]}}
            for n, name in enumerate(names)
        ],
        "outputs": {"made": reads[-1]},
    }
    pipeline = folder / "pipeline.json"
    pipeline.write_text(json.dumps(document))
    words = (str(pipeline), "-i", f"scene={scene}", "--workers", "2",
             "--executor", executor)  # fmt: skip
    return Run(words, folder)


def estimated(run: Run) -> dict[str, float]:
    """Return what `pesto plan` says of it."""
    said = pesto("plan", *run.words, "--json")
    assert said.returncode == 0, said.stderr
    cost: dict[str, float] = json.loads(said.stdout)["cost"]
    return cost


def measured(run: Run) -> int:
    """Run it, and return the highest sum of the memory of its processes, bytes."""
    highest = 0
    with started(run) as process:
        while process.poll() is None:
            highest = max(highest, used(process.pid))
            time.sleep(0.01)
    assert process.returncode == 0
    return highest


def started(run: Run) -> subprocess.Popen[bytes]:
    """Start it."""
    words = [*PESTO, "run", *run.words, "-o", str(run.folder / "out")]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def used(pid: int) -> int:
    """Return the anonymous pages of a process and its descendants, and the largest other part."""
    try:
        family = [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0
    anonymous, other = 0, 0
    for each in family:
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it has just ended
            continue
        found = {name: int(number) << 10 for name, number, *_ in map(str.split, lines)}
        anonymous += found["Anonymous:"]
        other = max(other, found["Rss:"] - found["Anonymous:"])
    return anonymous + other
