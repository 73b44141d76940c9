"""One detection, any tiling, local code or services: the same GeoJSON, and what scipy finds."""

from __future__ import annotations

import functools
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from tests.support.commands import pesto, served
from tests.support.landsat import expected_answer
from tests.support.rasters import sha256_of
from tests.support.runs import CLOUD_COVER, ROOT, SCENE, Done, Settings, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

CLOUD_BOXES = CLOUD_COVER.with_name("cloud_boxes.json")
LARGEST = 64
Found = list[tuple[tuple[float, ...], int]]

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("without_pictures")]

WAYS: dict[str, Settings] = {
    **{f"tiles of {tile}": {"tile": tile} for tile in (50, 64, 200, 512)},
    "one worker, one task": {"workers": 1, "max_tasks": 1},
    "processes": {"executor": "processes", "tile": 200},
}


def pipeline() -> dict[str, JsonValue]:
    """The example's, with the sieve between, so that scipy's answer of other tests serves."""
    document: dict[str, JsonValue] = json.loads(CLOUD_COVER.read_text())
    boxes = json.loads(CLOUD_BOXES.read_text())
    stage = {"id": "boxes", "process": "cloud-boxes", "inputs": {"mask": "$clean.cloud"}}
    services, stages = document["services"], document["stages"]
    assert isinstance(services, dict)
    assert isinstance(stages, list)
    services["cloud-boxes"] = boxes["services"]["cloud-boxes"]
    return {**document, "stages": [*stages[:2], stage], "outputs": {"clouds": "$boxes.boxes"}}  # type: ignore[list-item]  # JSON


def landsat(folder: Path, **settings: object) -> Done:
    return run_local(pipeline(), folder, {"scene": SCENE}, **settings)  # type: ignore[arg-type]  # as given


def file_sum(done: Done) -> str:
    return sha256_of(done.folder / "clouds.geojson")


def found(done: Done) -> Found:
    """(west, south, east, north) and pixels of every box, sorted."""
    features = json.loads((done.folder / "clouds.geojson").read_text())["features"]
    rings = [np.array(each["geometry"]["coordinates"][0]) for each in features]
    sizes = [each["properties"]["pixels"] for each in features]
    extents = [(*ring.min(axis=0), *ring.max(axis=0)) for ring in rings]
    return sorted(zip([tuple(map(float, each)) for each in extents], sizes, strict=True))


@functools.cache
def expected() -> Found:
    """Components of scipy's own mask of the whole scene, placed by rasterio."""
    labels, _ = ndimage.label(expected_answer().mask == 1, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    with rasterio.open(SCENE) as file:
        transform = file.transform
    answer = []
    for (rows, cols), size in zip(ndimage.find_objects(labels), sizes, strict=True):
        if max(rows.stop - rows.start, cols.stop - cols.start) <= LARGEST:
            west, north = transform * (cols.start, rows.start)
            east, south = transform * (cols.stop, rows.stop)
            answer.append(((west, south, east, north), int(size)))
    return sorted(answer)


@pytest.fixture(scope="module")
def untiled(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One tile, one task, one worker: what all others must give."""
    folder = tmp_path_factory.mktemp("untiled") / "out"
    return landsat(folder, tile=1024, max_tasks=1, workers=1)


def test_the_untiled_run_is_what_scipy_finds(untiled: Done) -> None:
    """Clouds of the real scene, those over 64 pixels left out; there are some of both."""
    assert found(untiled) == expected()
    labels, count = ndimage.label(expected_answer().mask == 1, np.ones((3, 3)))
    assert labels.any()
    assert 50 < len(expected()) < count


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_cut_the_work_up_finds_the_same(
    tmp_path: Path, untiled: Done, way: str
) -> None:
    """No cloud is lost, doubled or cut at a seam."""
    assert file_sum(landsat(tmp_path / "out", **WAYS[way])) == file_sum(untiled)


def test_a_margin_of_half_the_largest_cloud_is_needed(tmp_path: Path, untiled: Done) -> None:
    """The control: a few pixels less, and clouds at seams are missing."""
    source = (ROOT / "examples" / "cloud_boxes.py").read_text()
    assert "margin=REACH" in source
    (tmp_path / "cloud_boxes.py").write_text(source.replace("margin=REACH", "margin=REACH - 20"))
    short = (f"cloud-boxes={tmp_path}/cloud_boxes.py:cloud_boxes",)
    wrong = landsat(tmp_path / "out", tile=50, services=short)
    assert set(found(wrong)) < set(found(untiled))


@pytest.mark.integration
@pytest.mark.parametrize("tile", [64, 1024])
def test_services_over_http_find_the_same(
    tmp_path: Path, untiled: Done, catalog: Path, tile: int
) -> None:
    """Real servers, discovered into a catalog."""
    done = landsat(tmp_path / "out", catalog=catalog, tile=tile)
    assert file_sum(done) == file_sum(untiled)
    stages = done.result["stages"]
    assert isinstance(stages, dict)
    assert all("http://127.0.0.1" in str(told) for told in stages.values())


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The stages as services of their own."""
    folder = tmp_path_factory.mktemp("catalog")
    with ExitStack() as stack:
        targets = [f"examples/{name}.py:{name}" for name in ("cloud_mask", "sieve", "cloud_boxes")]
        urls = [stack.enter_context(served(target, "--workers", 2)) for target in targets]
        made = pesto("discover", *urls, "--save", folder)
        assert made.returncode == 0, made.stderr
        yield folder
