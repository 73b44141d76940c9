"""One run that is disturbed: its scene, its command, what it must give, and what may remain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDE, TILE = 1280, 40
TILES = (SIDE // TILE) ** 2
PESTO = [sys.executable, "-c", "from pesto_runtime.cli import main; main()"]
RESULTS = {"image.tif", "high.tif", "mean.json", "result.json", "report.html"}
_PRODUCTS = ("image.tif", "high.tif", "mean.json")
_PROCESSES = Path(__file__).with_name("processes.py")


@dataclass(frozen=True)
class Scenario:
    """A pipeline of two phases with a reduce, over a scene of more than 1000 tiles.

    Attributes:
        root: Folder of everything, with the temporary folder `tmp` of the runs.
        options: Of `pesto run`, beside the pipeline, its inputs and the output folder.
        services: `NAME=URL` of each process; empty for functions.
    """

    root: Path
    options: tuple[str, ...] = ()
    services: tuple[str, ...] = ()

    def command(self, out: Path) -> list[str]:
        """Return the words of the command that runs into a folder, and resumes there."""
        chosen = [word for each in self.services for word in ("-s", each)]
        return [
            *PESTO, "run", str(self.root / "pipeline.json"), "-i", f"scene={self.root / 's.tif'}",
            "-o", str(out), "--tile", str(TILE), *self.options, *chosen,
        ]  # fmt: skip

    def start(self, out: Path) -> subprocess.Popen[str]:
        """Start the command; its temporary files are in the folder `tmp`."""
        return subprocess.Popen(
            self.command(out),
            env={**os.environ, "TMPDIR": str(self.root / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def complaint(self, out: Path, expected: tuple[str, ...]) -> str:
        """Return what is wrong with a finished run; empty if nothing is."""
        found = {path.name for path in out.iterdir()}
        if found != RESULTS:
            return f"in the folder: {sorted(found ^ RESULTS)}"
        if products(out) != expected:
            return "other bytes"
        if json.loads((out / "result.json").read_text())["status"] != "COMPLETE":
            return "not COMPLETE"
        temporary = sorted(path.name for path in (self.root / "tmp").iterdir())
        return f"temporary files: {temporary}" if temporary else ""


@contextmanager
def scenario(*options: str) -> Iterator[Scenario]:
    """Write the scene and the pipeline of a scenario, and delete everything in the end."""
    with tempfile.TemporaryDirectory(prefix="pesto-reliability-") as name:
        root = Path(name)
        (root / "tmp").mkdir()
        pixels = np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE), np.uint8)
        with rasterio.open(
            root / "s.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="uint8",
            crs="EPSG:32631", transform=(10, 0, 5e5, 0, -10, 5e6), tiled=True,
            blockxsize=256, blockysize=256,
        ) as scene:  # fmt: skip
            scene.write(pixels)
        names = ("grow", "mean", "above")
        document = {
            "name": "disturbed",
            "inputs": {"scene": "image"},
            "services": {each: f"{_PROCESSES}:{each}" for each in names},
            "stages": [
                {"id": "grown", "process": "grow", "inputs": {"image": "$inputs.scene"}},
                {"id": "mean", "process": "mean", "inputs": {"image": "$grown.image"}},
                {
                    "id": "high",
                    "process": "above",
                    "inputs": {"image": "$grown.image", "level": "$mean.mean"},
                },
            ],
            "outputs": {"image": "$grown.image", "high": "$high.image", "mean": "$mean.mean"},
        }
        (root / "pipeline.json").write_text(json.dumps(document))
        yield Scenario(root, options)


def undisturbed(given: Scenario) -> tuple[str, ...]:
    """Return the checksums of the products of a run that nobody disturbs.

    Raises:
        RuntimeError: it fails.
    """
    out = given.root / "undisturbed"
    run = given.start(out)
    told = run.communicate()[1]
    if run.returncode:
        raise RuntimeError(told)
    return products(out)


def products(out: Path) -> tuple[str, ...]:
    """Return the sha256 of each product of a folder."""
    return tuple(sha256((out / name).read_bytes()).hexdigest() for name in _PRODUCTS)
