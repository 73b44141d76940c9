"""A network that requires multiples of 32, on an orchestrator: the local engine's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.support.commands import pesto, saved
from tests.support.rasters import noise, pixels_of, sha256_of, write_scene
from tests.support.runs import run_local
from tests.unit.run.test_networks import network, scored

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = noise(1403, 977)


def require_same_bytes(folder: Path, engine: str) -> None:
    """Run the U-Net on an engine and locally, by other tiles; compare with numpy, too."""
    scene, document = write_scene(folder / "s.tif", PIXELS), network("unet")
    local = run_local(document, folder / "local", {"scene": scene}, tile=512)
    path = saved(folder / "p.json", document)
    done = pesto("run", path, "--engine", engine, "-i", f"scene={scene}", "--tile", 288,
                 "--max-tasks", 4, "-o", folder / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sha256_of(folder / "out" / "image.tif") == local.sha256()
    assert np.array_equal(pixels_of(folder / "out" / "image.tif")[0], scored(PIXELS[0]))
