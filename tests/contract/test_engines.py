"""One pipeline, any engine, any tiling, local code or services: the same bytes, the right ones."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from tests.support.commands import pesto, served
from tests.support.landsat import expected_answer
from tests.support.rasters import pixels_of, write_scene
from tests.support.runs import CLOUD_COVER, ROOT, SCENE, Done, Settings, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNTILED = 1024

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("without_pictures")]

WAYS: dict[str, Settings] = {
    **{f"tiles of {tile}": {"tile": tile} for tile in (64, 200, 256, 512)},
    "planned tiles": {"tile": None},
    "one worker": {"workers": 1},
    "five workers": {"workers": 5},
    "one task": {"max_tasks": 1},
    "one task, tiles of 200": {"max_tasks": 1, "tile": 200},
    "cog blocks": {"tile": 512, "workers": 5, "max_tasks": 3},
    "processes, tiles of 64": {"executor": "processes", "tile": 64},
    "processes, one worker": {"executor": "processes", "workers": 1, "tile": 256},
}
OVER_HTTP: dict[str, Settings] = {
    **{f"tiles of {tile}": {"tile": tile} for tile in (64, 200, UNTILED)},
    "one task, five workers": {"max_tasks": 1, "workers": 5},
    "processes, tiles of 256": {"executor": "processes", "workers": 5, "tile": 256},
}


def landsat(folder: Path, **settings: object) -> Done:
    document = json.loads(CLOUD_COVER.read_text())
    return run_local(document, folder, {"scene": SCENE}, **settings)  # type: ignore[arg-type]  # as given


@pytest.fixture(scope="module")
def untiled(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One tile, one task, one worker: what all others must give."""
    folder = tmp_path_factory.mktemp("untiled") / "out"
    return landsat(folder, tile=UNTILED, max_tasks=1, workers=1)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The three examples as services of their own, found by their URLs."""
    folder = tmp_path_factory.mktemp("catalog")
    with ExitStack() as stack:
        targets = [f"examples/{name}.py:{name}" for name in ("cloud_mask", "sieve", "cloud_cover")]
        urls = [stack.enter_context(served(target, "--workers", 2)) for target in targets]
        found = pesto("discover", *urls, "--save", folder)
        assert found.returncode == 0, found.stderr
        yield folder


def test_the_untiled_run_is_what_scipy_answers(untiled: Done) -> None:
    """Pixels and cover, computed apart; it has the scene's place and the port's facts."""
    answer = expected_answer()
    assert np.array_equal(untiled.pixels("mask")[0], answer.mask)
    assert untiled.value("cover") == answer.cover
    assert json.loads((untiled.folder / "cover.json").read_text()) == answer.cover
    assert 0 < answer.cover < 1
    with rasterio.open(untiled.folder / "mask.tif") as mask, rasterio.open(SCENE) as scene:
        assert (mask.crs, mask.transform) == (scene.crs, scene.transform)
        assert (mask.nodata, mask.descriptions, mask.dtypes) == (255, ("cloud",), ("uint8",))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_cut_the_work_up_gives_the_same_bytes(
    tmp_path: Path, untiled: Done, way: str
) -> None:
    """Tile size, chunks, workers, threads or processes leave no trace in the product."""
    done = landsat(tmp_path / "out", **WAYS[way])
    assert done.sha256("mask") == untiled.sha256("mask")
    assert done.value("cover") == untiled.value("cover")


@pytest.mark.integration
@pytest.mark.parametrize("way", OVER_HTTP)
def test_services_over_http_give_the_same_bytes(
    tmp_path: Path, untiled: Done, catalog: Path, way: str
) -> None:
    """Real servers, discovered into a catalog; the result says that they did the work."""
    done = landsat(tmp_path / "out", catalog=catalog, **OVER_HTTP[way])
    assert done.sha256("mask") == untiled.sha256("mask")
    assert done.value("cover") == untiled.value("cover")
    stages = done.result["stages"]
    assert isinstance(stages, dict)
    assert all("http://127.0.0.1" in str(told) for told in stages.values())


def test_cloud_mask_with_a_margin_of_one_is_seen(tmp_path: Path) -> None:
    """The control on Landsat: tiled, the first stage gives other pixels than its contract says."""
    source = (ROOT / "examples" / "cloud_mask.py").read_text()
    assert "margin=2" in source
    (tmp_path / "cloud_mask.py").write_text(source.replace("margin=2", "margin=1"))
    document = json.loads(CLOUD_COVER.read_text())
    document["stages"] = document["stages"][:1]
    document["outputs"] = {"mask": "$mask.cloud"}
    short = (f"cloud-mask={tmp_path}/cloud_mask.py:cloud_mask",)
    given = {"scene": SCENE}

    right = run_local(document, tmp_path / "a", given, tile=64)
    wrong = run_local(document, tmp_path / "b", given, tile=64, services=short)
    whole = run_local(document, tmp_path / "c", given, tile=UNTILED, max_tasks=1, services=short)

    assert right.sha256("mask") == whole.sha256("mask")
    assert not np.array_equal(wrong.pixels("mask"), right.pixels("mask"))


def test_sieve_with_a_margin_of_seven_is_seen(tmp_path: Path) -> None:
    """Lines of 9 pixels across the borders of tiles: 8 keep them, 7 (control) drop pixels."""
    lines = np.zeros((1, 600, 600), np.uint8)
    lines[0, 20:600:40, 55:64] = 1  # ends one pixel before the tile's border at 64
    for shift in range(9):
        lines[0, 30 + 40 * shift, 64 - shift : 73 - shift] = 1
    scene = write_scene(tmp_path / "m.tif", lines, names=("cloud",), nodata=255)
    source = (ROOT / "examples" / "sieve.py").read_text()
    assert "margin=REACH" in source
    (tmp_path / "sieve.py").write_text(source.replace("margin=REACH", "margin=REACH - 1"))
    document = {
        "name": "sieve",
        "inputs": {"mask": "image"},
        "services": {"sieve": "../examples/sieve.py:sieve"},
        "stages": [{"id": "clean", "process": "sieve", "inputs": {"mask": "$inputs.mask"}}],
        "outputs": {"mask": "$clean.cloud"},
    }
    right = run_local(document, tmp_path / "a", {"mask": scene}, tile=64)  # type: ignore[arg-type]  # JSON
    wrong = run_local(
        document,  # type: ignore[arg-type]  # JSON
        tmp_path / "b", {"mask": scene}, tile=64, services=(f"sieve={tmp_path}/sieve.py:sieve",),
    )  # fmt: skip
    assert np.array_equal(right.pixels("mask"), pixels_of(scene))
    assert not np.array_equal(wrong.pixels("mask"), pixels_of(scene))
