"""Images of several resolutions in one stage: any tiling, by value and by reference, in chains."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio

from pesto_runtime.contract import Description
from pesto_runtime.errors import GridMismatch, InvalidContract, InvalidInput, InvalidPipeline
from pesto_runtime.processor import load_processor
from tests.support import resolutions
from tests.support.commands import pesto, served
from tests.support.rasters import noise, write_scene
from tests.support.resolutions import smooth
from tests.support.runs import refer_always, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

SIZE = (147, 121)


def pipeline(process: str, *, chain: bool = False) -> dict[str, JsonValue]:
    first, second = ("fine", "coarse") if process == "combined" else ("colour", "grey")
    stages: list[JsonValue] = [
        {"id": "m", "process": process,
         "inputs": {first: f"$inputs.{first}", second: f"$inputs.{second}"}},
    ]  # fmt: skip
    if chain:  # its result has the resolution of the fine image
        stages.append({"id": "n", "process": "combined",
                       "inputs": {"fine": "$m.image", "coarse": f"$inputs.{first}"}})  # fmt: skip
    return {
        "name": "resolutions",
        "inputs": {first: "image", second: "image"},
        "services": {
            name: f"{resolutions.__file__}:{name}" for name in ("sharpened", "combined", "mirrored")
        },
        "stages": stages,
        "outputs": {"image": "$n.image" if chain else "$m.image"},
    }  # fmt: skip


def placed(pixel: float, origin: tuple[float, float] = (600_000.0, 5_700_000.0)) -> list[float]:
    return [pixel, 0.0, origin[0], 0.0, -pixel, origin[1]]


def pair(folder: Path, *, size: tuple[int, int] = SIZE) -> dict[str, str]:
    """Write a colour image of 30 m and a grey one of 15 m of the same place."""
    width, height = size
    colour = noise(width, height, bands=2, dtype="uint16", seed=1)
    grey = noise(2 * width, 2 * height, bands=1, dtype="uint16", seed=2, below=250)
    return {
        "colour": str(write_scene(folder / "colour.tif", colour, transform=placed(30))),
        "grey": str(write_scene(folder / "grey.tif", grey, transform=placed(15), nodata=7)),
    }


def read(path: str) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


def expected_sharpened(paths: dict[str, str]) -> np.ndarray:
    colour, grey = read(paths["colour"]), read(paths["grey"])
    coarse = smooth(colour, 1).repeat(2, axis=1).repeat(2, axis=2)
    return np.asarray((coarse * smooth(grey, 3) * (grey[0] != 7)).astype("float32"))


@pytest.mark.parametrize("tile", [32, 50, 90, 512])
def test_a_finer_second_image_is_tiled_with_the_first(tmp_path: Path, tile: int) -> None:
    """Margins of both, in pixels of each; the product has the place of the fine image."""
    paths = pair(tmp_path)
    done = run_local(pipeline("sharpened"), tmp_path / "out", dict(paths), tile=tile)
    np.testing.assert_array_equal(done.pixels(), expected_sharpened(paths))
    with rasterio.open(tmp_path / "out" / "image.tif") as made, rasterio.open(paths["grey"]) as of:
        assert (made.transform, made.crs, made.shape) == (of.transform, of.crs, of.shape)


@pytest.mark.parametrize("tile", [33, 64, 512])
def test_a_coarser_second_image_and_a_chain_of_both(tmp_path: Path, tile: int) -> None:
    """The result of the first stage is the fine image of the second; the place is that of it."""
    paths = pair(tmp_path)
    done = run_local(pipeline("sharpened", chain=True), tmp_path / "out", dict(paths), tile=tile)
    fine = expected_sharpened(paths)
    mean = smooth(read(paths["colour"]), 1).mean(axis=0, keepdims=True)
    added = mean.repeat(2, axis=1).repeat(2, axis=2)
    rows = np.arange(fine.shape[1])[:, np.newaxis] % 7
    np.testing.assert_array_equal(done.pixels(), (smooth(fine, 1) + added + rows).astype("float32"))


@pytest.mark.parametrize("tile", [40, 64, 512])
def test_mirrored_edges_are_those_of_each_image(tmp_path: Path, tile: int) -> None:
    """Each image is mirrored at its own edge, without repeating its own edge pixels."""
    paths = pair(tmp_path, size=(90, 64))
    done = run_local(pipeline("mirrored"), tmp_path / "out", dict(paths), tile=tile)
    whole = {}
    for name, margin in (("colour", 2), ("grey", 4)):
        image = read(paths[name])
        padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), "reflect")
        whole[name] = smooth(padded, margin)[:, margin:-margin, margin:-margin]
    coarse = whole["colour"].repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(done.pixels(), (coarse - whole["grey"]).astype("float32"))


def test_a_service_gives_the_same_bytes_by_pixels_and_by_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image is sent, or read by the service, in the window that belongs to it."""
    paths = pair(tmp_path)
    local = run_local(pipeline("sharpened"), tmp_path / "local", dict(paths), tile=64)
    target = f"{resolutions.__file__}:sharpened"
    with served(target, "--allow", str(tmp_path)) as url:
        sent = run_local(pipeline("sharpened"), tmp_path / "sent", dict(paths), tile=64,
                         services=(f"sharpened={url}",))  # fmt: skip
        refer_always(monkeypatch)
        named = run_local(pipeline("sharpened"), tmp_path / "named", dict(paths), tile=64,
                          services=(f"sharpened={url}",))  # fmt: skip
    assert local.sha256() == sent.sha256() == named.sha256()


@pytest.mark.parametrize(
    ("grey", "words"),
    [
        ({"transform": placed(30)}, "pixels of 15 x -15 against 30 x -30"),
        ({"transform": placed(15, (600_007.5, 5_700_000.0))}, "origins 0.5 columns"),
        (
            {"transform": placed(15), "size": (2 * SIZE[0] - 1, 2 * SIZE[1])},
            "width 294 against 293",
        ),
    ],
)
def test_a_scene_that_is_not_of_the_ratio_is_refused(
    tmp_path: Path, grey: dict[str, Any], words: str
) -> None:
    """Before any work, with the difference in pixels; the control has the ratio."""
    paths = pair(tmp_path)
    width, height = grey.pop("size", (2 * SIZE[0], 2 * SIZE[1]))
    pixels = noise(width, height, bands=1, dtype="uint16", seed=2)
    write_scene(tmp_path / "grey.tif", pixels, **grey)
    with pytest.raises(GridMismatch, match=words) as found:
        run_local(pipeline("sharpened"), tmp_path / "out", dict(paths))
    assert "2 pixels of the second are needed per pixel of the first" in str(found.value)


def test_a_direct_call_needs_images_of_the_ratio() -> None:
    """The error names the image, both sizes and the size that it must have."""
    processor = load_processor(f"{resolutions.__file__}:sharpened")
    colour, grey = np.ones((1, 6, 4), "uint8"), np.ones((1, 12, 8), "uint8")
    assert processor.run({"colour": colour, "grey": grey})["image"].shape == (1, 12, 8)  # type: ignore[attr-defined]  # an array
    with pytest.raises(InvalidInput, match=r"has 6 rows and 8 columns.*must have 12 rows and 8"):
        processor.run({"colour": colour, "grey": grey[:, :6]})


def test_a_window_cuts_the_same_area_of_all_images(tmp_path: Path) -> None:
    """In pixels of the first image; an area is extended to whole pixels of the coarsest."""
    paths = pair(tmp_path)
    (tmp_path / "p.json").write_text(json.dumps(pipeline("sharpened")))
    given = [arg for name, path in paths.items() for arg in ("-i", f"{name}={path}")]
    run = ["run", str(tmp_path / "p.json"), *given, "-o", str(tmp_path / "out")]
    assert pesto(*run, "--window", "40,20,50,30").returncode == 0
    colour, grey = read(paths["colour"])[:, 20:50, 40:90], read(paths["grey"])[:, 40:100, 80:180]
    coarse = smooth(colour, 1).repeat(2, axis=1).repeat(2, axis=2)
    wanted = (coarse * smooth(grey, 3) * (grey[0] != 7)).astype("float32")
    np.testing.assert_array_equal(read(str(tmp_path / "out" / "image.tif")), wanted)


def test_a_window_that_cuts_pixels_of_a_coarse_image_is_refused(tmp_path: Path) -> None:
    """It names the multiple, and a window that fits."""
    paths = pair(tmp_path, size=(40, 30))
    (tmp_path / "p.json").write_text(json.dumps(pipeline("combined")))
    given = ["-i", f"fine={paths['grey']}", "-i", f"coarse={paths['colour']}"]
    run = ["run", str(tmp_path / "p.json"), *given, "-o", str(tmp_path / "out")]
    refused = pesto(*run, "--window", "3,4,20,20")
    assert refused.returncode
    assert "multiples of 2 x 2 pixels of 'fine', as [2, 4, 22, 20]" in refused.stderr
    assert pesto(*run, "--window", "2,4,22,20").returncode == 0


@pytest.mark.parametrize(
    ("port", "raster", "words"),
    [
        ("colour", {"ratio": 2}, "the first image has ratio 1"),
        ("grey", {"ratio": "2/3"}, "neither a whole number nor 1/N"),
        ("grey", {"ratio": 2, "tile": {"fixed": 127}}, "no square of whole pixels"),
        ("valid", {"ratio": 2, "mask": True}, "a mask has the ratio of its image"),
    ],
)
def test_ratios_that_have_no_meaning_are_refused(
    port: str, raster: dict[str, JsonValue], words: str
) -> None:
    document = load_processor(f"{resolutions.__file__}:sharpened").description.to_json()
    document["input"]["properties"][port]["x-raster"] = raster  # type: ignore[index,call-overload]  # JSON
    with pytest.raises(InvalidContract, match=words):
        Description.parse(document)


def test_a_stage_whose_rasters_are_of_another_ratio_does_not_check(tmp_path: Path) -> None:
    """Found without scenes: an output of scale 2 where one of ratio 1 / 2 is needed."""
    document = pipeline("sharpened", chain=True)
    document["stages"][1]["inputs"]["coarse"] = "$m.image"  # type: ignore[index,call-overload]  # JSON
    with pytest.raises(InvalidPipeline, match="coarse has 2 where the ratio of the port is 1/2"):
        run_local(document, tmp_path / "out", dict(pair(tmp_path)))
