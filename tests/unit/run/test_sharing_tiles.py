"""Threads without a chunk of their own share the tiles of another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.errors import RunFailed
from tests.support.rasters import noise, write_scene
from tests.support.runs import run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

MEET = '''
import threading
from typing import Annotated
import numpy as np
from pesto_runtime import Raster, process

BOTH = threading.Barrier(2)


@process(version="1", margin=0)
def meet(
    image: Annotated[np.ndarray, Raster(dtype="uint8")],
) -> Annotated[np.ndarray, Raster(name="image")]:
    """Return the image when two tiles are here at once."""
    BOTH.wait(timeout=10)
    return image
'''


@pytest.mark.parametrize("workers", [2, 1])
def test_a_scene_of_one_block_runs_on_all_workers(tmp_path: Path, workers: int) -> None:
    """Four tiles, two at a time; the control has one worker, and they never meet."""
    (tmp_path / "meet.py").write_text(MEET)
    pixels = noise(400, 400)
    pipeline: dict[str, JsonValue] = {
        "name": "meet",
        "inputs": {"scene": "image"},
        "services": {"meet": f"{tmp_path}/meet.py:meet"},
        "stages": [{"id": "meet", "process": "meet", "inputs": {"image": "$inputs.scene"}}],
        "outputs": {"image": "$meet.image"},
    }
    scene = {"scene": write_scene(tmp_path / "s.tif", pixels)}
    if workers == 1:
        with pytest.raises(RunFailed, match="BrokenBarrierError"):
            run_local(pipeline, tmp_path / "out", scene, workers=1)
        return
    done = run_local(pipeline, tmp_path / "out", scene, workers=2)
    assert np.array_equal(done.pixels(), pixels)
    assert done.tiles == (4, 0, 0)
