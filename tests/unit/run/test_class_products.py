"""A product with classes: its colour table and its tag, read by rasterio; its pixels unchanged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from tests.support.rasters import write_scene
from tests.support.runs import run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

CLASSES = [
    {"value": 0, "name": "land", "color_hint": "e8e2d0"},
    {"value": 1, "name": "water", "color_hint": "1f6fb4", "description": "Open water"},
    {"value": 7, "name": "ice"},
]
PROCESS = """
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process


@process(version="1", margin=0)
def classify(image: np.ndarray) -> Annotated[np.ndarray, Raster(name="image", {declared})]:
    return (image > 100).astype({dtype!r}).repeat({bands}, axis=0)
"""


@pytest.mark.parametrize("as_cog", [False, True])
@pytest.mark.parametrize(
    ("dtype", "bands", "has_table"),
    [("uint8", 1, True), ("uint16", 1, True), ("int16", 1, False), ("uint8", 2, False)],
)
def test_a_product_has_its_classes(
    tmp_path: Path, dtype: str, bands: int, has_table: bool, as_cog: bool
) -> None:
    """A table where GeoTIFF has one; the tag everywhere. Control: without classes, neither."""
    pixels = np.arange(40 * 30, dtype=np.uint8).reshape(1, 30, 40)
    scene = write_scene(tmp_path / "s.tif", pixels)
    found = {}
    for name, classes in (("plain", ""), ("classes", f", classes={CLASSES}")):
        declared = f"bands={bands}, dtype={dtype!r}{classes}"
        code = PROCESS.format(declared=declared, dtype=dtype, bands=bands)
        (tmp_path / f"{name}.py").write_text(code)
        document: dict[str, JsonValue] = {
            "name": "test",
            "inputs": {"scene": "image"},
            "services": {"classify": f"{tmp_path / name}.py:classify"},
            "stages": [{"id": "s", "process": "classify", "inputs": {"image": "$inputs.scene"}}],
            "outputs": {"image": "$s.image"},
        }
        done = run_local(document, tmp_path / name / "out", {"scene": scene}, as_cog=as_cog)
        with rasterio.open(done.folder / "image.tif") as dataset:
            tag = dataset.tags(1).get("classification_classes")
            try:
                table = dataset.colormap(1)
            except ValueError:
                table = None
            found[name] = (tag, table, dataset.read())
    tag, table, values = found["classes"]
    assert json.loads(tag) == CLASSES
    assert (table is not None) == has_table
    if table is not None:
        assert (table[0][:3], table[1][:3]) == ((0xE8, 0xE2, 0xD0), (0x1F, 0x6F, 0xB4))
    assert found["plain"][:2] == (None, None)
    assert np.array_equal(values, found["plain"][2])
    assert np.array_equal(values[0], (pixels[0] > 100).astype(dtype))
