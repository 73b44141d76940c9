"""Converters: proposed where nothing is lost, inserted as stages of the file, and run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.finished_run import Run
from tests.support.rasters import write_scene

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.commands import Command

CODE = """
from typing import Annotated
import numpy as np
from pesto_runtime import Raster, process

One = Annotated[np.ndarray, Raster(bands=1, dtype="uint16")]
Floats = Annotated[np.ndarray, Raster(bands=1, dtype="float32")]

@process(version="1.0.0", margin=0)
def counts(
    scene: One,
) -> Annotated[np.ndarray, Raster(name="counts", bands=1, dtype="uint16", nodata=0)]:
    return scene

@process(version="1.0.0", margin=0)
def halved(
    scene: One,
) -> Annotated[np.ndarray, Raster(name="half", bands=1, dtype="uint16", nodata=0, scale="1/2")]:
    return scene[:, ::2, ::2]

@process(version="1.0.0", margin=0)
def total(
    a: Floats, b: Floats
) -> Annotated[np.ndarray, Raster(name="sum", bands=1, dtype="float32", nodata=float("nan"))]:
    return a + b

@process(version="1.0.0", margin=0)
def narrow(
    a: Annotated[np.ndarray, Raster(bands=1, dtype="uint8")]
) -> Annotated[np.ndarray, Raster(name="out", bands=1, dtype="uint8")]:
    return a
"""


def write_pipeline(folder: Path, last: Mapping[str, object], output: str) -> Path:
    """A pipeline of the counts of a scene, their half, and another stage."""
    (folder / "code.py").write_text(CODE)
    names = ("counts", "halved", "total", "narrow")
    stages = [
        {"id": "c", "process": "counts", "inputs": {"scene": "$inputs.scene"}},
        {"id": "h", "process": "halved", "inputs": {"scene": "$inputs.scene"}},
        last,
    ]
    path = folder / "p.json"
    document = {"name": "p", "inputs": ["scene"], "stages": stages, "outputs": {"sum": output},
                "services": {name: f"code.py:{name}" for name in names}}  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def test_proposed_converters_are_inserted_and_run(tmp_path: Path, pesto: Command) -> None:
    """Numbers first, then the grid; the values are those of numpy, nodata is NaN."""
    last = {"id": "t", "process": "total", "inputs": {"a": "$c.counts", "b": "$h.half"}}
    path = write_pipeline(tmp_path, last, "$t.sum")
    before = path.read_text()
    refused = pesto("check", path)
    assert refused.code == 2
    assert refused.err.count("proposed: ") == 2
    assert "stage 't', input 'a': $c.counts is uint16, not float32" in refused.err
    assert path.read_text() == before

    assert pesto("check", path, "--insert-converters").code == 0
    stages = json.loads(path.read_text())["stages"]
    assert [each["process"] for each in stages] == [
        "counts", "halved", "to-float32", "to-float32", "enlarge-2", "total",
    ]  # fmt: skip
    pixels = np.arange(1, 6 * 8 + 1, dtype="uint16").reshape(1, 6, 8)
    pixels[0, 0, 1] = 0
    scene = write_scene(tmp_path / "scene.tif", pixels)
    assert pesto("run", path, "-i", f"scene={scene}", "-o", tmp_path / "out").code == 0
    found = Run.of(tmp_path / "out").read("sum")
    half = pixels[:, ::2, ::2].repeat(2, 1).repeat(2, 2)
    wanted = pixels.astype("float32") + half
    wanted[pixels == 0] = np.nan
    np.testing.assert_array_equal(found, wanted)


def test_a_raster_that_two_inputs_need_is_converted_once(tmp_path: Path, pesto: Command) -> None:
    """One stage, two bindings; a second insertion changes nothing."""
    last = {"id": "t", "process": "total", "inputs": {"a": "$c.counts", "b": "$c.counts"}}
    path = write_pipeline(tmp_path, last, "$t.sum")
    assert pesto("check", path, "--insert-converters").code == 0
    once = path.read_text()
    stages = json.loads(once)["stages"]
    assert [each["process"] for each in stages] == ["counts", "halved", "to-float32", "total"]
    assert stages[3]["inputs"]["a"] == stages[3]["inputs"]["b"] == "$to-float32-of-c-counts.image"
    assert pesto("check", path, "--insert-converters").code == 0
    assert path.read_text() == once


def test_a_conversion_that_loses_something_is_not_proposed(tmp_path: Path, pesto: Command) -> None:
    """uint16 to uint8: the error stays, and the file stays as it was."""
    last = {"id": "n", "process": "narrow", "inputs": {"a": "$c.counts"}}
    path = write_pipeline(tmp_path, last, "$n.out")
    before = path.read_text()
    done = pesto("check", path, "--insert-converters")
    assert done.code == 2
    assert "proposed" not in done.err
    assert path.read_text() == before
