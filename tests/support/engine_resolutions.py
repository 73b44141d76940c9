"""A warp, images of two resolutions and folded values, on any engine: the same results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support import resolutions
from tests.support.commands import saved
from tests.support.rasters import UTM, noise, pixels_of, sha256_of, write_scene
from tests.support.runs import run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.runs import Done

SIZE = (600, 530)  # 2 x 2 tiles
VALUES = ("pixels", "total", "brightest", "corners")
DOCUMENT: dict[str, JsonValue] = {
    "name": "resolutions",
    "inputs": {"colour": "image", "grey": "image"},
    "services": {
        name: f"{resolutions.__file__}:{name}" for name in ("sharpened", "counted", "bright")
    },
    "stages": [
        {"id": "warped", "process": "warp", "inputs": {
            "image": "$inputs.grey", "like": "$inputs.colour", "ratio": 2, "resampling": "cubic",
            "nodata": 0}},
        {"id": "sharp", "process": "sharpened", "inputs": {
            "colour": "$inputs.colour", "grey": "$warped.image"}},
        {"id": "count", "process": "counted", "inputs": {"image": "$sharp.image"}},
        # Its input is a value of the whole scene: it starts when the first phase is closed.
        {"id": "bright", "process": "bright", "inputs": {
            "image": "$inputs.colour", "above": "$count.brightest"}},
    ],
    "outputs": {
        "image": "$count.image", "bright": "$bright.pixels",
        **{name: f"$count.{name}" for name in VALUES},
    },
}  # fmt: skip


class TwoPlaces:
    """Two pairs of a colour image and a grey one in degrees, which has less than the whole place.

    Attributes:
        folder: Of the images and of outputs.
        file: Of the pipeline.
    """

    names = ("north", "south")

    def __init__(self, folder: Path) -> None:
        """Write the images."""
        self.folder, self.file = folder, saved(folder / "resolutions.json", DOCUMENT)
        for number, name in enumerate(self.names):
            colour = noise(*SIZE, bands=2, dtype="uint16", seed=number, below=60_000)
            grey = noise(700, 640, dtype="uint16", seed=10 + number, below=2)
            moved = [*UTM[:5], UTM[5] - 20_000 * number]
            degrees = [0.0003, 0, -87.48, 0, -0.0003, 30.815 - 0.18 * number]
            write_scene(folder / f"{name}_colour.tif", colour, transform=moved)
            write_scene(folder / f"{name}_grey.tif", grey, crs="EPSG:4326", transform=degrees)

    def given(self, name: str) -> dict[str, str]:
        """Return the inputs of one place."""
        return {each: str(self.folder / f"{name}_{each}.tif") for each in ("colour", "grey")}

    @property
    def scenes(self) -> list[JsonValue]:
        """Both places, as a campaign takes them."""
        return [{"id": name, **self.given(name)} for name in self.names]

    def local(self, name: str) -> Done:
        """Return the run of one place by the local engine, in few tasks; its values are checked."""
        out = self.folder / f"local_{name}"
        done = run_local(DOCUMENT, out, self.given(name), tile=None, max_tasks=2, report="none")
        made, colour = done.pixels(), pixels_of(self.folder / f"{name}_colour.tif")
        assert made.shape == (2, 2 * SIZE[1], 2 * SIZE[0])
        assert 0.02 < (made == 0).mean() < 0.2, "a part of the place is without grey pixels"
        assert done.value("pixels") == made[0].size
        assert done.value("total") == pytest.approx(made.sum(dtype="float64"), rel=1e-12)
        assert done.value("brightest") == made.max()
        assert done.value("bright") == int((colour > made.max()).sum()) > 100
        assert done.value("corners") == [[row, col] for row in (0, 1024) for col in (0, 1024)]
        return done

    def require_local_results(self, *outputs: tuple[str, Path]) -> None:
        """Compare folders of outputs, each of a place, with runs of it by the local engine.

        All bytes and values are compared.
        """
        local = {name: self.local(name) for name, _ in outputs}
        for name, folder in outputs:
            assert sha256_of(folder / "image.tif") == local[name].sha256(), folder
            for each in (*VALUES, "bright"):
                found = json.loads((folder / f"{each}.json").read_text())
                assert found == local[name].value(each), (folder, each)
