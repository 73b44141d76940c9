"""Threads share tiles where chunks are few; chunks run in an order that shares decoded blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import RunFailed
from pesto_runtime.pipeline import Sizing
from pesto_runtime.run import readers
from pesto_runtime.run.context import begin_run, load_context
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import plan
from pesto_runtime.run.readers import neighbours_first
from pesto_runtime.run.services import resolve_services
from tests.support.rasters import noise, write_scene
from tests.support.runs import chain, run_local

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
    BOTH.wait(timeout=20)
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


def test_chunks_of_a_wide_scene_run_in_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four columns of chunks in two bands; the control has room for whole rows."""
    scene = write_scene(tmp_path / "s.tif", noise(2000, 1000))
    pipeline = Pipeline.parse(chain("grow"))
    services = resolve_services(pipeline, base=tmp_path, options=(), catalog=None)
    planned = plan(
        pipeline, services, read_inputs(pipeline, services, {"scene": str(scene)}),
        store=f"file://{tmp_path}/store", folder=tmp_path,
        sizing=Sizing(workers=2, max_tasks=8, tile=512, memory_bytes=1 << 30),
    ).plan  # fmt: skip
    context = load_context(begin_run(planned))
    assert len(planned.phases[0].chunks) == 8
    for cells, order in ((4, [0, 1, 4, 5, 2, 3, 6, 7]), (8, list(range(8)))):
        monkeypatch.setattr(readers, "CACHE_BYTES", cells * 512 * 512)
        assert neighbours_first(context, 0, range(8)) == order
