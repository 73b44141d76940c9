"""PESTO 1.7.2 itself as a stage: it knows nothing of tiles, an overlay says what it leaves out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.run.services import discover
from tests.support.commands import pesto, saved
from tests.support.rasters import noise, pixels_of, sha256_of, write_scene
from tests.support.runs import ROOT, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

pytestmark = [pytest.mark.integration, pytest.mark.real_pesto, pytest.mark.timeout(300)]

PROJECT = ROOT / "tests" / "data" / "pesto_margin_project"
PIXELS = noise(600, 520)


def raster(**facts: JsonValue) -> dict[str, JsonValue]:
    return {"properties": {"image": {"x-raster": {"bands": ["grey"], "dtype": "uint8", **facts}}}}


def overlay(margin: int) -> dict[str, JsonValue]:
    """What the description of a service that PESTO serves leaves out."""
    return {"tileable": "map", "input": raster(margin=margin), "output": raster()}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", PIXELS)


@pytest.fixture
def pipeline() -> dict[str, JsonValue]:
    """The PESTO service between two stages of ours."""
    return chain("grow", "local_maximum", "grow")


def catalog(folder: Path, place: str, margin: int) -> Path:
    entry: dict[str, JsonValue] = {"url": place, "overlay": overlay(margin)}
    return saved(folder / "services.json", {"local-maximum": entry})


def test_a_real_pesto_service_is_a_stage_like_any_other(
    tmp_path: Path, scene: Path, pipeline: dict[str, JsonValue], real_pesto: str
) -> None:
    """The same bytes as the project loaded here, as our own process, and as scipy untiled."""
    served = run_local(
        pipeline, tmp_path / "served", {"scene": scene}, catalog=catalog(tmp_path, real_pesto, 1)
    )
    loaded = run_local(
        pipeline, tmp_path / "loaded", {"scene": scene}, catalog=catalog(tmp_path, str(PROJECT), 1)
    )
    ours = run_local(chain("grow", "grow", "grow"), tmp_path / "ours", {"scene": scene})

    assert served.sha256() == loaded.sha256() == ours.sha256()
    expected = ndimage.maximum_filter(PIXELS, (1, 7, 7), mode="constant")
    assert np.array_equal(served.pixels(), expected)
    assert real_pesto in str(served.result["stages"])


def test_an_overlay_without_the_margin_is_seen(
    tmp_path: Path, scene: Path, pipeline: dict[str, JsonValue], real_pesto: str
) -> None:
    """The control: the overlay is what makes the seams right."""
    short = run_local(
        pipeline, tmp_path / "out", {"scene": scene}, catalog=catalog(tmp_path, real_pesto, 0)
    )
    expected = ndimage.maximum_filter(PIXELS, (1, 7, 7), mode="constant")
    assert not np.array_equal(short.pixels(), expected)


def test_a_discovered_catalog_keeps_the_overlay_written_into_it(
    tmp_path: Path, scene: Path, pipeline: dict[str, JsonValue], real_pesto: str
) -> None:
    """discover, write the overlay, discover again, check, run: by the command line."""
    folder = tmp_path / "catalog"
    assert pesto("discover", real_pesto, "--save", folder).returncode == 0
    (file,) = folder.iterdir()
    assert file.name == "local-maximum@1.0.0.json"
    saved(file, {**json.loads(file.read_text()), "overlay": overlay(1)})
    assert pesto("discover", real_pesto, "--save", folder).returncode == 0
    path = saved(tmp_path / "pipeline.json", pipeline)

    checked = pesto("check", path, "--services", folder)
    made = pesto("run", path, "-i", f"scene={scene}", "-o", tmp_path / "out",
                 "--services", folder, "--tile", 300)  # fmt: skip

    assert checked.returncode == 0, checked.stderr
    assert made.returncode == 0, made.stderr
    ours = run_local(chain("grow", "grow", "grow"), tmp_path / "ours", {"scene": scene})
    assert sha256_of(tmp_path / "out" / "image.tif") == ours.sha256()
    assert pixels_of(tmp_path / "out" / "image.tif").any()


@pytest.mark.parametrize("by_catalog", [True, False])
def test_what_pesto_cannot_send_is_refused_before_a_pixel_is_read(
    tmp_path: Path, scene: Path, real_pesto: str, *, by_catalog: bool
) -> None:
    """One band of float32 does not fit into PESTO's PNG; `check` knows it from a catalog too."""
    entry = overlay(1)
    entry["output"] = {
        "properties": {"image": {"x-raster": {"bands": ["grey"], "dtype": "float32"}}}
    }
    if by_catalog:
        discover([real_pesto], tmp_path / "catalog")
        (file,) = (tmp_path / "catalog").iterdir()
        saved(file, {**json.loads(file.read_text()), "overlay": entry})
        path = file.parent
    else:
        path = saved(tmp_path / "s.json", {"local-maximum": {"url": real_pesto, "overlay": entry}})
    checked = pesto("check", saved(tmp_path / "p.json", chain("local_maximum")), "--services", path)
    assert checked.returncode == 2
    assert "uint8 or uint16" in checked.stderr
    with pytest.raises(InvalidPipeline, match="uint8 or uint16"):
        run_local(chain("local_maximum"), tmp_path / "out", {"scene": scene}, catalog=path)
    assert not (tmp_path / "out").exists()
