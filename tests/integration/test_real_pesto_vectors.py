"""A detection that PESTO 1.7.2 itself serves: it answers JSON; an overlay says it is a vector."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from tests.support.commands import saved
from tests.support.rasters import UTM, noise, sha256_of, write_scene
from tests.support.runs import ROOT, run_local

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pydantic import JsonValue

pytestmark = [pytest.mark.integration, pytest.mark.real_pesto, pytest.mark.timeout(300)]

PROJECT = ROOT / "tests" / "data" / "pesto_peaks_project"
PIXELS = noise(300, 260)
OVERLAY: dict[str, JsonValue] = {
    "tileable": "map",
    "input": {
        "properties": {"image": {"x-raster": {"bands": ["grey"], "dtype": "uint8", "margin": 1}}}
    },
    "output": {"properties": {"peaks": {"x-vector": {"geometry": "Point"}}}},
}
PIPELINE: dict[str, JsonValue] = {
    "name": "peaks",
    "inputs": {"scene": "image"},
    "stages": [{"id": "found", "process": "peaks", "inputs": {"image": "$inputs.scene"}}],
    "outputs": {"peaks": "$found.peaks"},
}


def expected() -> list[tuple[float, float, int]]:
    """Strict maxima of the 3 x 3 around a pixel, by scipy: x, y in the CRS, value."""
    around = ndimage.maximum_filter(
        PIXELS[0].astype(int), footprint=[[1, 1, 1], [1, 0, 1], [1, 1, 1]], mode="constant", cval=-1
    )
    rows, cols = np.nonzero(PIXELS[0] > around)
    return sorted(
        (UTM[2] + 30 * (col + 0.5), UTM[5] - 30 * (row + 0.5), int(PIXELS[0, row, col]))
        for row, col in zip(rows.tolist(), cols.tolist(), strict=True)
    )


def test_a_real_pesto_detection_is_tiled_like_any_other(
    tmp_path: Path, served_by_pesto: Callable[..., AbstractContextManager[str]]
) -> None:
    """The same bytes as the project loaded here, and the points that scipy finds."""
    scene = write_scene(tmp_path / "s.tif", PIXELS)
    sums: list[str] = []
    with served_by_pesto(PROJECT) as url:
        for place in (url, str(PROJECT)):
            folder = tmp_path / f"out{len(sums)}"
            entry: JsonValue = {"peaks": {"url": place, "overlay": OVERLAY}}
            catalog = saved(tmp_path / "services.json", entry)  # type: ignore[arg-type]  # an object
            done = run_local(PIPELINE, folder, {"scene": scene}, catalog=catalog, tile=100)
            sums.append(sha256_of(done.folder / "peaks.geojson"))
    assert sums[0] == sums[1]
    features = json.loads((tmp_path / "out0" / "peaks.geojson").read_text())["features"]
    found = sorted(
        (*each["geometry"]["coordinates"], each["properties"]["value"]) for each in features
    )
    assert found == expected()
