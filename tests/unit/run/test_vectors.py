"""Vectors on the embedded engine: what tiles find is what the whole scene would have shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from pesto_runtime.errors import ContractBroken, InvalidPipeline
from pesto_runtime.run.single_call import call_once
from tests.support.detections import BROKEN_VALUE
from tests.support.packs import drop_blocks
from tests.support.rasters import UTM, sha256_of, tree, write_scene
from tests.support.runs import Done, run_local, stage
from tests.support.runs import pipeline as of_processes

if TYPE_CHECKING:
    from pydantic import JsonValue

WIDTH, HEIGHT = 640, 540  # 2 x 2 blocks
DETECTIONS = Path(__file__).parents[2] / "support" / "detections.py"
PITCH = 17  # no tile of these tests is a multiple of it: objects lie on seams in every way
RESULTS = {"result.json", "report.html"}


def objects() -> np.ndarray:
    """Objects of 9 x 9 (band, row, col), apart from each other, each with its own pixels missing.

    The outermost ones touch the scene's edges.
    """
    random = np.random.default_rng(4)
    pixels = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    for row in range(0, HEIGHT - 9, PITCH):
        for col in range(0, WIDTH - 9, PITCH):
            inside = random.integers(0, 2, (9, 9))
            inside[0], inside[:, 0], inside[8, 8] = 1, 1, 1
            pixels[0, row : row + 9, col : col + 9] = connected(inside)
    return pixels


def connected(flags: np.ndarray) -> np.ndarray:
    """The flags (row, col) as 1, with a diagonal that ties all corners of their box together."""
    np.fill_diagonal(flags, 1)
    labels, _ = ndimage.label(flags, np.ones((3, 3)))
    return np.asarray(labels == labels[0, 0], np.uint8)


PIXELS = objects()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scene") / "s.tif", PIXELS)


def pipeline(*stages: dict[str, JsonValue], outputs: dict[str, str]) -> dict[str, JsonValue]:
    """A pipeline of the detecting processes, and of the other ones where they are named."""
    document = of_processes(*stages, outputs=outputs)
    services = document["services"]
    assert isinstance(services, dict)
    own = DETECTIONS.read_text()
    for name in services:
        if f"def {name.replace('-', '_')}(" in own:
            services[name] = f"{DETECTIONS}:{name.replace('-', '_')}"
    return document


def detected(process: str, **inputs: JsonValue) -> dict[str, JsonValue]:
    """A pipeline of one detecting stage, `boxes` its output."""
    return pipeline(
        stage("found", process, image="$inputs.scene", **inputs), outputs={"boxes": "$found.boxes"}
    )


def document_of(done: Done, name: str = "boxes") -> dict[str, JsonValue]:
    made: dict[str, JsonValue] = json.loads((done.folder / f"{name}.geojson").read_text())
    return made


def boxes_in(done: Done) -> list[tuple[tuple[float, ...], int]]:
    """(west, south, east, north) and pixels of every feature of `boxes`, sorted."""
    found = []
    features = document_of(done)["features"]
    assert isinstance(features, list)
    for feature in features:
        assert isinstance(feature, dict)
        geometry, properties = feature["geometry"], feature["properties"]
        assert isinstance(geometry, dict)
        assert isinstance(properties, dict)
        (ring,) = np.array(geometry["coordinates"])
        extent = tuple(float(n) for n in (*ring.min(axis=0), *ring.max(axis=0)))
        found.append((extent, int(str(properties["pixels"]))))
    return sorted(found)


def expected_boxes(pixels: np.ndarray) -> list[tuple[tuple[float, ...], int]]:
    """The same by scipy on the whole raster, placed by rasterio."""
    labels, _ = ndimage.label(pixels[0], np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    transform = rasterio.Affine(*UTM)
    found = []
    for (rows, cols), size in zip(ndimage.find_objects(labels), sizes, strict=True):
        west, north = transform * (cols.start, rows.start)
        east, south = transform * (cols.stop, rows.stop)
        found.append(((west, south, east, north), int(size)))
    return sorted(found)


@pytest.mark.parametrize("tile", [37, 64, 200, 512, 2000])
def test_tiles_find_what_the_whole_scene_shows(tmp_path: Path, scene: Path, tile: int) -> None:
    """Every object once, in its place, whatever seams cut it; the file is the whole's, too."""
    done = run_local(detected("boxes"), tmp_path / "out", {"scene": scene}, tile=tile)
    assert boxes_in(done) == expected_boxes(PIXELS)
    alone = run_local(detected("boxes_whole"), tmp_path / "whole", {"scene": scene})
    assert sha256_of(done.folder / "boxes.geojson") == sha256_of(alone.folder / "boxes.geojson")


def test_a_margin_that_is_a_pixel_short_is_seen(tmp_path: Path, scene: Path) -> None:
    """The control: an object that is cut off looks like another, with another centre."""
    done = run_local(detected("boxes_short"), tmp_path / "out", {"scene": scene}, tile=64)
    assert boxes_in(done) != expected_boxes(PIXELS)
    untiled = run_local(detected("boxes_short"), tmp_path / "whole", {"scene": scene}, tile=2000,
                        max_tasks=1)  # fmt: skip
    assert boxes_in(untiled) == expected_boxes(PIXELS)


def test_centres_that_no_float_is_are_the_same_bytes_in_every_tile(
    tmp_path: Path, scene: Path
) -> None:
    """Also by tasks of one chunk, and by processes; a call on the whole image writes them too."""
    document = pipeline(
        stage("found", "centres", image="$inputs.scene"), outputs={"centres": "$found.centres"}
    )
    made = set()
    for number, settings in enumerate([
        {"tile": 64}, {"tile": 201}, {"tile": 64, "max_tasks": 1, "workers": 1},
        {"tile": 300, "executor": "processes"},
    ]):  # fmt: skip
        done = run_local(document, tmp_path / str(number), {"scene": scene}, **settings)  # type: ignore[arg-type]  # as given
        made.add(sha256_of(done.folder / "centres.geojson"))
    alone = tmp_path / "alone.geojson"
    call_once(f"{DETECTIONS}:centres", {"image": str(scene)}, keep={"centres": alone})
    assert made == {sha256_of(alone)}


@pytest.mark.parametrize("tile", [64, 300])
def test_boxes_of_a_finer_grid_lie_where_the_coarse_ones_do(
    tmp_path: Path, scene: Path, tile: int
) -> None:
    """A process that makes twice the pixels returns features in those."""
    document = pipeline(
        stage("fine", "enlarged", image="$inputs.scene"),
        outputs={"boxes": "$fine.boxes", "image": "$fine.image"},
    )
    done = run_local(document, tmp_path / "out", {"scene": scene}, tile=tile)
    assert boxes_in(done) == expected_boxes(PIXELS)
    assert np.array_equal(done.pixels(), PIXELS.repeat(2, axis=1).repeat(2, axis=2))


def test_a_detection_behind_other_stages_is_in_the_grid_that_they_make(tmp_path: Path) -> None:
    """Objects of 16 pixels a side on a quarter of the grid; the raster itself is not kept."""
    pixels = np.zeros((1, 603, 703), np.uint8)
    for row in range(0, 580, 40):
        for col in range(0, 690, 44):
            pixels[0, row : row + 16, col : col + 12] = 9
    path = write_scene(tmp_path / "s.tif", pixels)
    document = pipeline(
        stage("small", "shrink", image="$inputs.scene"),
        stage("found", "boxes", image="$small.image"),
        outputs={"boxes": "$found.boxes"},
    )
    done = run_local(document, tmp_path / "out", {"scene": path}, tile=64)
    places = [place for place, _ in boxes_in(done)]
    assert places == [place for place, _ in expected_boxes(pixels)]
    assert {size for _, size in boxes_in(done)} == {12}
    assert tree(done.folder) == {"boxes.geojson", *RESULTS}


@pytest.mark.parametrize("tile", [37, 200, 2000])
def test_what_a_mirror_shows_is_not_there_twice(tmp_path: Path, tile: int) -> None:
    """Objects five pixels from the edges; the process sees each a second time beyond them."""
    pixels = np.zeros((1, 211, 307), np.uint8)
    pixels[0, 5:204:15, 5:300:15] = 1
    pixels[0, 205, 301] = 1
    path = write_scene(tmp_path / "s.tif", pixels)
    done = run_local(detected("boxes_mirrored"), tmp_path / "out", {"scene": path}, tile=tile)
    assert boxes_in(done) == expected_boxes(pixels)


def test_a_file_says_where_it_is_and_a_result_what_it_is(tmp_path: Path, scene: Path) -> None:
    """CRS as GDAL reads it; path, sum, bytes and count in `result.json`."""
    done = run_local(detected("boxes"), tmp_path / "out", {"scene": scene})
    document = document_of(done)
    assert list(document) == ["type", "crs", "features"]
    assert "EPSG::32616" in str(document["crs"])
    path = done.folder / "boxes.geojson"
    assert done.result["outputs"] == {
        "boxes": {
            "path": "boxes.geojson", "sha256": sha256_of(path), "bytes": path.stat().st_size,
            "features": len(expected_boxes(PIXELS)), "blocks_with_holes": 0,
        }
    }  # fmt: skip
    again = run_local(detected("boxes"), tmp_path / "out", {"scene": scene})
    assert again.result == done.result
    assert tree(done.folder) == {"boxes.geojson", *RESULTS}


@pytest.mark.parametrize(
    ("crs", "said"), [("EPSG:4326", "urn:ogc:def:crs:OGC:1.3:CRS84"), (None, "None")]
)
def test_a_scene_without_a_code_gives_no_crs_that_could_be_wrong(
    tmp_path: Path, crs: str | None, said: str
) -> None:
    """Null assumes none; longitude comes first, as RFC 7946 has it."""
    path = write_scene(tmp_path / "s.tif", PIXELS[:, :80, :80], crs=crs)
    done = run_local(detected("boxes"), tmp_path / "out", {"scene": path})
    assert said in str(document_of(done)["crs"])


def test_no_feature_at_all_is_an_empty_collection(tmp_path: Path) -> None:
    """Blocks without features are there all the same; nothing is computed for them again."""
    path = write_scene(tmp_path / "s.tif", np.zeros((1, 600, 600), np.uint8))
    done = run_local(detected("boxes"), tmp_path / "out", {"scene": path}, keep=True)
    assert document_of(done)["features"] == []
    (done.folder / "result.json").unlink()
    again = run_local(detected("boxes"), tmp_path / "out", {"scene": path}, keep=True)
    assert again.tiles[0] == 0


def test_only_tiles_that_touch_a_missing_block_are_computed(tmp_path: Path, scene: Path) -> None:
    """Features resume as pixels do; the file comes out the same."""
    first = run_local(detected("boxes"), tmp_path / "out", {"scene": scene}, keep=True)
    expected = sha256_of(first.folder / "boxes.geojson")
    (first.folder / "result.json").unlink()
    drop_blocks(first.folder / ".pesto", [(1, 0)], "features")
    done = run_local(detected("boxes"), tmp_path / "out", {"scene": scene}, keep=True)
    assert done.tiles[0] == 3  # of 200 pixels, in 512 x 28
    assert sha256_of(done.folder / "boxes.geojson") == expected
    shutil.rmtree(done.folder / ".pesto" / "features")


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    """A scene some tiles of whose second block fail while `broken` exists."""
    pixels = PIXELS.copy()
    rows, cols = np.nonzero(pixels[0, 20:, 600:])
    pixels[0, 20 + rows[0], 600 + cols[0]] = BROKEN_VALUE
    (tmp_path / "broken").touch()
    return write_scene(tmp_path / "holed.tif", pixels)


def test_a_failed_tile_loses_its_features_and_is_reported(tmp_path: Path, holed: Path) -> None:
    """The others of its block are there; healed, the file is the same as if nothing had been."""
    broken = str(tmp_path / "broken")
    document = detected("boxes_fragile", broken=broken)
    done = run_local(document, tmp_path / "out", {"scene": holed}, tile=64)
    assert done.result["status"] == "PARTIAL"
    outputs = done.result["outputs"]
    assert isinstance(outputs, dict)
    assert isinstance(boxes := outputs["boxes"], dict)
    assert boxes["blocks_with_holes"] == 1
    found, everything = boxes_in(done), expected_boxes(PIXELS)
    assert set(found) < set(everything)
    assert len(found) > len(everything) - 2 * (64 // PITCH + 2) ** 2
    assert tree(done.folder) >= {"boxes.geojson", "holes.geojson", *RESULTS}

    (tmp_path / "broken").unlink()
    healed = run_local(document, tmp_path / "out", {"scene": holed}, tile=64)
    assert healed.result["status"] == "COMPLETE"
    assert boxes_in(healed) == everything


def counted(detector: str, **inputs: JsonValue) -> dict[str, JsonValue]:
    """A detection, its count as a value of the whole scene, and a map that takes it too."""
    return pipeline(
        stage("found", detector, image="$inputs.scene", **inputs),
        stage("many", "count", boxes="$found.boxes"),
        stage("level", "brighter_than_count", image="$inputs.scene", boxes="$found.boxes"),
        outputs={"count": "$many.count", "image": "$level.image"},
    )


@pytest.mark.parametrize("detector", ["boxes", "boxes_whole"])
def test_a_vector_is_a_value_of_the_whole_scene_for_later_stages(
    tmp_path: Path, detector: str
) -> None:
    """They wait for it, as for a reduce; it need not be an output."""
    pixels = PIXELS[:, :200, :200] * 226
    path = write_scene(tmp_path / "s.tif", pixels)
    done = run_local(counted(detector), tmp_path / "out", {"scene": path}, tile=64)
    many = len(expected_boxes(pixels))
    assert done.value("count") == many
    assert 100 < many < 226
    assert np.array_equal(done.pixels(), (pixels > many).astype(np.uint8))
    assert tree(done.folder) == {"count.json", "image.tif", *RESULTS}


def test_what_needs_a_vector_with_a_hole_is_skipped_and_listed(tmp_path: Path, holed: Path) -> None:
    """A count of what was not looked at would be wrong in silence."""
    document = counted("boxes_fragile", broken=str(tmp_path / "broken"))
    outputs = document["outputs"]
    assert isinstance(outputs, dict)
    outputs["boxes"] = "$found.boxes"
    done = run_local(document, tmp_path / "out", {"scene": holed}, tile=64)
    assert done.result["status"] == "PARTIAL"
    assert done.result["skipped"] == ["count", "image"]


def test_an_answer_that_is_no_collection_ends_the_run(tmp_path: Path, scene: Path) -> None:
    """No tile can be blamed for it."""
    with pytest.raises(ContractBroken, match=r"\$found.boxes must be a GeoJSON FeatureCollection"):
        run_local(detected("no_features"), tmp_path / "out", {"scene": scene})


def test_a_vector_is_no_image(tmp_path: Path, scene: Path) -> None:
    """Refused by name before a pixel is read."""
    document = pipeline(
        stage("found", "boxes", image="$inputs.scene"),
        stage("grown", "grow", image="$found.boxes"),
        outputs={"image": "$grown.image"},
    )
    with pytest.raises(InvalidPipeline, match=r"\$found.boxes is a vector, but the port takes an"):
        run_local(document, tmp_path / "out", {"scene": scene})


def test_a_complete_run_leaves_nothing_in_a_store_of_its_own(tmp_path: Path, scene: Path) -> None:
    """Features of blocks and merged vectors are the run's, wherever they are kept."""
    document = counted("boxes")
    document["outputs"] = {"count": "$many.count", "boxes": "$found.boxes"}
    document["stages"] = document["stages"][:2]  # type: ignore[index]  # a list
    kept = run_local(document, tmp_path / "kept", {"scene": scene},
                     store=(tmp_path / "store").as_uri(), keep=True)  # fmt: skip
    folders = {name.partition("/")[0] for name in tree(tmp_path / "store")}
    assert {"features", "vectors"} <= folders
    (kept.folder / "result.json").unlink()
    run_local(document, tmp_path / "kept", {"scene": scene}, store=(tmp_path / "store").as_uri())
    assert tree(tmp_path / "store") == set()
