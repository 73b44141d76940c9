"""Scenes whose bands are in files of their own: the pixels and facts of one raster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Window
from pesto_runtime.errors import InvalidInput, RasterUnreadable, SceneChanged
from pesto_runtime.hrefs import image_reference
from pesto_runtime.raster.identity import require_unchanged
from pesto_runtime.raster.read import read_image, read_scene
from tests.support.file_server import serving
from tests.support.rasters import write_scene

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_runtime.contract import ImageReference

PIXELS = np.random.default_rng(5).integers(0, 4000, (3, 70, 90), "uint16")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A file for each band of `PIXELS`; the last is the second one in its file."""
    return {
        "blue": write_scene(tmp_path / "b #1.tif", PIXELS[:1]),
        "green": write_scene(tmp_path / "g.tif", PIXELS[1:2]),
        "nir": write_scene(tmp_path / "n.tif", PIXELS[[0, 2]]),
    }


def stack(files: dict[str, Path]) -> ImageReference:
    """The scene as its user writes it."""
    return image_reference({"stack": {
        "nir": {"href": str(files["nir"]), "band": 2, "scale": 0.5, "offset": -1, "nodata": 9},
        "blue": str(files["blue"]), "green": files["green"].as_uri(),
    }})  # fmt: skip


def test_pixels_and_facts_are_those_of_one_raster(files: dict[str, Path]) -> None:
    """In the order that was given; a part of it by names; grid as in the files."""
    scene, image = read_scene(stack(files)), read_image(stack(files))
    np.testing.assert_array_equal(image.pixels, PIXELS[[2, 0, 1]])
    assert scene.bands == ("nir", "blue", "green")
    single = read_scene(files["blue"].as_uri())
    assert (scene.crs, scene.transform, scene.tags) == (single.crs, single.transform, single.tags)
    assert (scene.nodata, scene.driver) == (9, "")
    assert [(each.scale, each.offset) for each in scene.values] == [(0.5, -1), (1, 0), (1, 0)]
    part = stack(files).model_copy(update={"bands": ("green",), "window": Window(3, 4, 10, 20)})
    np.testing.assert_array_equal(read_image(part).pixels[0], PIXELS[1, 4:24, 3:13])


def test_a_change_of_any_file_is_another_scene(files: dict[str, Path]) -> None:
    """Also of the last; the control is a file that is no part of it."""
    scene = read_scene(stack(files))
    write_scene(files["blue"].with_name("other.tif"), PIXELS[:1])
    require_unchanged(scene.href, scene.identity)
    write_scene(files["green"], PIXELS[:1])
    with pytest.raises(SceneChanged):
        require_unchanged(scene.href, scene.identity)
    files["green"].unlink()
    with pytest.raises(SceneChanged, match="no longer exists"):
        require_unchanged(scene.href, scene.identity)


def test_files_of_a_web_server_are_a_scene(files: dict[str, Path], tmp_path: Path) -> None:
    """The identity is that of all files, as the server states it."""
    with serving(tmp_path, tmp_path / "log") as server:
        hrefs = {name: f"{server.url}/{file.name}" for name, file in files.items()
                 if name != "blue"}  # fmt: skip
        scene = read_scene(image_reference({"stack": hrefs}))
        assert len(scene.identity.split(" ")) == 2
        pixels = read_image(image_reference({"stack": hrefs})).pixels
    np.testing.assert_array_equal(pixels, PIXELS[[1, 0]])


def test_files_that_are_no_scene_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    """Another grid, another dtype, a band that a file does not have, a VRT of a user."""
    wrong = {
        "width": write_scene(tmp_path / "w.tif", PIXELS[:1, :, :80]),
        "dtype": write_scene(tmp_path / "d.tif", PIXELS[:1].astype("int32")),
        "transform": write_scene(tmp_path / "t.tif", PIXELS[:1], transform=(20, 0, 0, 0, -20, 0)),
    }
    for name, file in wrong.items():
        with pytest.raises(RasterUnreadable, match=f"has the {name} "):
            read_scene(stack({**files, "green": file}))
    with pytest.raises(RasterUnreadable, match="has no band 2"):
        read_scene(stack({**files, "nir": files["blue"]}))
    (tmp_path / "x.vrt").write_text("<VRTDataset/>")
    with pytest.raises(RasterUnreadable, match="is not a raster that can be read"):
        read_scene(stack({**files, "green": tmp_path / "x.vrt"}))
    wrong_values: tuple[object, ...] = ([], {}, {"red": {"band": 1}})
    for value in wrong_values:
        with pytest.raises(InvalidInput):
            image_reference({"stack": value})
