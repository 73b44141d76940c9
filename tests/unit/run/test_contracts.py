"""Outputs of a function are checked against contract and plan, like those of a service."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.errors import ContractBroken
from tests.support.rasters import noise, write_scene
from tests.support.runs import run_local

if TYPE_CHECKING:
    from pydantic import JsonValue

MODULE = """
from typing import Annotated
import numpy as np
from pesto_runtime import Raster, process

One = Annotated[np.ndarray, Raster(name="out", bands=["a"], dtype="uint8")]
Open = Annotated[np.ndarray, Raster(name="out")]

@process(margin=0)
def doubled(image: np.ndarray) -> One:
    return np.concatenate([image, image])

@process(margin=0)
def first(image: np.ndarray) -> Open:
    return image[:1].copy()

@process(margin=0)
def flagged(image: np.ndarray) -> One:
    return image[:1] > 5

@process(margin=0)
def short(image: np.ndarray) -> One:
    return image[:1, 1:]

@process(margin=0)
def right(image: np.ndarray) -> One:
    return image[:1].copy()
"""


@pytest.mark.parametrize("tile", [64, 1024])
@pytest.mark.parametrize(
    ("process", "message"),
    [
        ("doubled", "bands"),
        ("first", "3 bands, got 1"),
        ("flagged", "bool"),
        ("short", "rows"),
    ],
)
def test_what_is_not_as_declared_ends_the_run(
    tmp_path: Path, process: str, message: str, tile: int
) -> None:
    """Bands, dtype and shape, reported with the stage; nothing is published."""
    with pytest.raises(ContractBroken, match=message) as broken:
        done(tmp_path, process, tile=tile)
    assert "stage 's'" in str(broken.value)
    assert not (tmp_path / "out" / "kept.tif").exists()


def test_what_is_as_declared_is_published(tmp_path: Path) -> None:
    """The control: the same pixels, one band of three."""
    pixels = done(tmp_path, "right", tile=64)
    assert np.array_equal(pixels, noise(90, 70, bands=3)[:1])


def done(tmp_path: Path, process: str, *, tile: int) -> np.ndarray:
    (tmp_path / "code.py").write_text(MODULE)
    scene = write_scene(tmp_path / "scene.tif", noise(90, 70, bands=3))
    document: dict[str, JsonValue] = {
        "name": "held",
        "inputs": {"image": "image"},
        "services": {process: f"{tmp_path}/code.py:{process}"},
        "stages": [{"id": "s", "process": process, "inputs": {"image": "$inputs.image"}}],
        "outputs": {"kept": "$s.out"},
    }
    return run_local(document, tmp_path / "out", {"image": scene}, tile=tile).pixels("kept")
