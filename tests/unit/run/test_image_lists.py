"""Lists of images as inputs: of any number, tiled together, with masks, over HTTP, in projects."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Description
from pesto_runtime.contract.image_lists import gathered, spread, with_items
from pesto_runtime.errors import InvalidContract, InvalidInput, InvalidPipeline, PestoError
from pesto_runtime.processor import load_processor
from tests.support import stacks
from tests.support.commands import served
from tests.support.rasters import noise, write_scene
from tests.support.runs import ROOT, refer_always, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.runs import Done

COMPOSITE = f"{ROOT}/examples/composite.py:median_composite"
SIZE = (301, 263)


def pipeline(target: str, process: str, **inputs: JsonValue) -> dict[str, JsonValue]:
    output = "composite" if process == "median-composite" else "image"
    return {
        "name": "stack",
        "inputs": {"dates": "images", **{name: "image" for name in inputs if name != "dates"}},
        "services": {process: target, "plus-one": f"{stacks.__file__}:plus_one"},
        "stages": [
            {"id": "m", "process": process, "inputs": {"dates": "$inputs.dates", **inputs}},
        ],
        "outputs": {"image": f"$m.{output}"},
    }


def dates(folder: Path, count: int, *, bands: int = 2) -> tuple[list[str], np.ndarray]:
    """Write scenes of the same place with other pixels; about a fifth of them is nodata (0)."""
    stack = [
        noise(*SIZE, bands=bands, dtype="uint16", seed=n, below=5) * np.uint16(100 + n)
        for n in range(count)
    ]
    paths = [
        write_scene(folder / f"date{n}.tif", pixels, names=["a", "b"], nodata=0)
        for n, pixels in enumerate(stack)
    ]
    return [str(path) for path in paths], np.stack(stack)


def numpy_median(stack: np.ndarray) -> np.ndarray:
    """A pixel is valid if one of its bands is."""
    valid = (stack != 0).any(axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of pixels without a valid date
        found = np.nanmedian(np.where(valid, stack.astype("float32"), np.float32(np.nan)), axis=0)
    return np.asarray(found)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("tile", [64, 150, 512])
def test_the_median_of_masked_dates_is_that_of_numpy(tmp_path: Path, count: int, tile: int) -> None:
    """Any number of dates, any tiling."""
    paths, stack = dates(tmp_path, count)
    made = run_local(
        pipeline(COMPOSITE, "median-composite"), tmp_path / "out", {"dates": paths}, tile=tile
    )
    np.testing.assert_array_equal(made.pixels(), numpy_median(stack))


def test_a_service_gives_the_same_bytes_by_pixels_and_by_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks come from the runtime for pixels, and from the service for references."""
    paths, _ = dates(tmp_path, 3)

    def run(target: str, folder: str) -> str:
        document = pipeline(target, "median-composite")
        return run_local(document, tmp_path / folder, {"dates": paths}, tile=128).sha256()

    here = run(COMPOSITE, "here")
    with served(COMPOSITE, "--local-files") as url:
        assert run(url, "pixels") == here
        refer_always(monkeypatch)
        assert run(url, "references") == here


def test_margins_and_fills_hold_for_each_image_of_a_list(tmp_path: Path) -> None:
    """The same bytes for every tiling, and as one call of the whole images."""
    paths, stack = dates(tmp_path, 3, bands=1)
    document = pipeline(
        f"{stacks.__file__}:spread_of_means", "spread-of-means", first="$inputs.first"
    )
    inputs = {"dates": paths[:2], "first": paths[2]}
    made = [run_local(document, tmp_path / f"o{tile}", inputs, tile=tile) for tile in (64, 512)]
    assert made[0].sha256() == made[1].sha256()
    around = np.pad(stack[:2].astype("float32"), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    rows, cols = SIZE[::-1]
    sums = sum(around[..., y : y + rows, x : x + cols] for y in range(3) for x in range(3))
    expected = np.max(sums, axis=0) / np.float32(9) - stack[2]
    np.testing.assert_array_equal(made[0].pixels(), expected)


def test_a_list_mixes_inputs_stages_and_literals(tmp_path: Path) -> None:
    """An input of type `images` stands for all its images; each image has its place."""
    paths, stack = dates(tmp_path, 4, bands=1)
    document = pipeline(f"{stacks.__file__}:order_matters", "order-matters")
    document["inputs"] = {"dates": "images", "single": "image"}
    document["stages"] = [
        {"id": "p", "process": "plus-one", "inputs": {"image": "$inputs.single"}},
        {
            "id": "m",
            "process": "order-matters",
            "inputs": {"dates": ["$p.image", "$inputs.dates", paths[3], "$inputs.dates.1"]},
        },
    ]
    made = run_local(document, tmp_path / "o", {"dates": paths[:2], "single": paths[2]}, tile=64)
    given = [stack[2] + 1, stack[0], stack[1], stack[3], stack[1]]
    expected = sum((n + 1) * each.astype("uint32") for n, each in enumerate(given))
    np.testing.assert_array_equal(made.pixels(), expected.astype("uint16"))


def test_order_and_content_of_a_list_are_part_of_its_keys(tmp_path: Path) -> None:
    """Another order is another product; the same list is the same one."""
    paths, _ = dates(tmp_path, 2, bands=1)
    document = pipeline(f"{stacks.__file__}:order_matters", "order-matters")
    store = (tmp_path / "store").as_uri()

    def run(folder: str, listed: list[str]) -> Done:
        inputs = {"dates": listed}
        return run_local(document, tmp_path / folder, inputs, store=store, keep=True)

    first = run("a", paths)
    assert run("b", paths).tiles[:2] == (0, first.tiles[0])
    turned = run("c", paths[::-1])
    assert turned.tiles[:2] == first.tiles[:2]
    assert turned.sha256() != first.sha256()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "must be a list of images, not []"),
        ("DATE0", None),
        ('["DATE0", "DATE1"]', None),
        (["DATE0", "nix.tif"], "nix.tif does not exist"),
        (["DATE0"] * 5, "/stages/0/inputs/dates: takes at most 4 images, not 5"),
        (["DATE0", "OTHER"], "'dates.0'"),
    ],
)
def test_wrong_lists_are_told_before_work(tmp_path: Path, given: object, told: str | None) -> None:
    """By the name of the input, the image and the limit."""
    paths, _ = dates(tmp_path, 3, bands=1)
    other = write_scene(tmp_path / "other.tif", noise(80, 60, dtype="uint16"))
    text = json.dumps(given).replace("DATE0", paths[0]).replace("DATE1", paths[1])
    text = text.replace("OTHER", str(other))
    document = pipeline(
        f"{stacks.__file__}:spread_of_means", "spread-of-means", first="$inputs.first"
    )
    inputs = {"dates": json.loads(text), "first": paths[2]}
    if told is None:
        run_local(document, tmp_path / "o", inputs)
        return
    with pytest.raises(PestoError) as error:
        run_local(document, tmp_path / "o", inputs)
    assert told in error.value.detail + "".join(map(str, getattr(error.value, "fields", ())))
    assert not (tmp_path / "o" / "image.tif").exists()


@pytest.mark.parametrize(
    ("binding", "told"),
    [
        ("$inputs.first", "the port takes a list of images"),
        ("$p.image", "the port takes a list of images"),
        (["$p.nothing"], "$p.nothing does not exist"),
        (["$inputs.dates", "$later.image"], "$later.image is an output of a later stage"),
    ],
)
def test_wrong_bindings_of_lists_are_errors(tmp_path: Path, binding: JsonValue, told: str) -> None:
    """Each with its place, and without any input."""
    document = pipeline(f"{stacks.__file__}:order_matters", "order-matters")
    document["inputs"] = {"dates": "images", "first": "image"}
    document["stages"] = [
        {"id": "p", "process": "plus-one", "inputs": {"image": "$inputs.first"}},
        {"id": "m", "process": "order-matters", "inputs": {"dates": binding}},
        {"id": "later", "process": "plus-one", "inputs": {"image": "$inputs.first"}},
        {"id": "q", "process": "order-matters", "inputs": {"dates": ["$inputs.dates"]}},
    ]
    with pytest.raises(InvalidPipeline) as error:
        run_local(document, tmp_path / "o", {})
    assert any(
        told in each.detail and each.pointer.startswith("/stages/1/inputs/dates")
        for each in error.value.fields
    )


def test_a_list_does_not_fit_a_port_of_one_image(tmp_path: Path) -> None:
    """The error shows how one of its images is named."""
    document = pipeline(f"{stacks.__file__}:plus_one", "plus-one")
    document["stages"] = [
        {"id": "m", "process": "plus-one", "inputs": {"image": "$inputs.dates"}},
    ]
    with pytest.raises(InvalidPipeline) as error:
        run_local(document, tmp_path / "o", {})
    told = "$inputs.dates is a list of images, but the port takes one image: $inputs.dates.0 is"
    assert any(told in each.detail for each in error.value.fields)


def test_a_call_without_a_pipeline_has_the_same_rules(tmp_path: Path) -> None:
    """Masks are made for each image, sizes are extended, and the number of images is checked."""
    pixels = [noise(7, 5, dtype="uint16", seed=n, below=3) for n in range(3)]
    made = load_processor(COMPOSITE).run({"dates": pixels})["composite"]
    np.testing.assert_array_equal(made, np.median(np.stack(pixels), axis=0).astype("float32"))
    masked = load_processor(COMPOSITE).run(
        {"dates": pixels, "valid": [(each != 0).astype("uint8") for each in pixels]}
    )["composite"]
    np.testing.assert_array_equal(masked, numpy_median(np.stack(pixels)))
    odd = load_processor(f"{stacks.__file__}:spread_of_means")
    extended = odd.run({"dates": pixels, "first": pixels[0]})["image"]
    assert isinstance(extended, np.ndarray)
    assert extended.shape == (1, 5, 7)
    with pytest.raises(InvalidInput, match="1 error") as error:
        odd.run({"dates": pixels * 2, "first": pixels[0]})
    assert error.value.fields[0].detail == "takes at most 4 images, not 6"


def test_spreading_is_undone_by_gathering() -> None:
    """Names, order, and a description with a port for each image."""
    said = load_processor(COMPOSITE).description
    inputs = {"dates": ["a", "b"], "valid": ["x", "y"]}
    flat = spread(said, inputs)
    assert flat == {"dates.0": "a", "dates.1": "b", "valid.0": "x", "valid.1": "y"}
    assert gathered(said, dict(reversed(flat.items()))) == inputs
    assert gathered(said, spread(said, {"dates": []})) == {"dates": []}
    known = with_items(said, {"dates": 2})
    assert {name: known.masks[name] for name in known.masks} == {
        "valid.0": "dates.0",
        "valid.1": "dates.1",
    }
    assert [port.name for port in known.data_inputs] == ["dates.0", "dates.1"]


def test_one_mask_for_a_list_is_refused() -> None:
    """A list has a list of masks."""
    document = load_processor(COMPOSITE).description.to_json()
    document["input"]["properties"]["valid"]["$ref"] = "#/definitions/Image"  # type: ignore[index,call-overload]
    with pytest.raises(InvalidContract) as error:
        Description.parse(document)
    assert "a list of masks" in error.value.fields[0].detail


def test_a_project_takes_a_list(tmp_path: Path) -> None:
    """PESTO's `Images`, with a raster contract in its schema, in a pipeline."""
    folder = tmp_path / "project"
    write: dict[str, JsonValue] = {
        "api/description.json": {"name": "summed", "version": "1.0.0", "tileable": "map"},
        "api/input_schema.json": {
            "images": {"$ref": "#/definitions/Images", "x-raster": {"margin": 0}},
            "required": ["images"],
        },
        "api/output_schema.json": {
            "image": {"$ref": "#/definitions/Image", "x-raster": {"dtype": "uint16"}},
        },
        "api/version.json": {"version": "1.0.0"},
    }
    for name, document in write.items():
        path = folder / "pesto" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    algorithm = folder / "algorithm"
    algorithm.mkdir()
    (algorithm / "process.py").write_text(
        "class Process:\n    def process(self, images):\n"
        "        return {'image': sum(images[1:], images[0].copy())}\n"
    )
    paths, stack = dates(tmp_path, 3, bands=1)
    document = pipeline(str(folder), "summed")
    document["stages"] = [
        {"id": "m", "process": "summed", "inputs": {"images": "$inputs.dates"}},
    ]
    made = run_local(document, tmp_path / "o", {"dates": paths}, tile=128)
    np.testing.assert_array_equal(made.pixels(), stack.sum(axis=0).astype("uint16"))
