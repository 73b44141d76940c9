"""Runs whose products have overviews: the same bytes however the run is divided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from pesto_runtime.run.product_check import verify_result
from tests.support.cog_rules import broken_rules
from tests.support.commands import pesto
from tests.support.processes import MARKER
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import PROCESSES, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.runs import Settings


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", noise(1100, 700))


@pytest.mark.parametrize("form", ["as_cog", "overviews"])
def test_every_division_gives_the_same_file(tmp_path: Path, scene: Path, form: str) -> None:
    """Tiles, chunks, threads and processes; another form (control) gives another file."""
    wanted: Settings = {"as_cog": form == "as_cog", "overviews": form == "overviews"}
    divisions: dict[str, Settings] = {
        "small tiles": {"tile": 64, "workers": 3},
        "one task": {"tile": 512, "workers": 1, "max_tasks": 1},
        "processes": {"tile": 200, "executor": "processes"},
    }
    found = set()
    for name, each in divisions.items():
        settings: Settings = {**wanted, **each}
        done = run_local(chain("grow"), tmp_path / name, {"scene": scene}, **settings)
        found.add(done.sha256())
    assert len(found) == 1
    other: Settings = {"as_cog": not wanted["as_cog"], "overviews": not wanted["overviews"]}
    assert run_local(chain("grow"), tmp_path / "o", {"scene": scene}, **other).sha256() not in found


def test_the_option_adds_overviews_to_a_plain_product(tmp_path: Path, scene: Path) -> None:
    """And takes them away again; pixels stay, `pesto verify` knows the blocks, no file is left."""
    plain = run_local(chain("grow"), tmp_path / "p", {"scene": scene}).pixels()
    for options in (["--overviews"], ["--as", "cog"], ["--as", "cog", "--overviews"], []):
        done = pesto(
            "run", f"{PROCESSES}:grow", "-i", f"image={scene}", "-o", tmp_path / "out", *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        path = tmp_path / "out" / "image.tif"
        with rasterio.open(path) as dataset:
            assert dataset.overviews(1) == ([2, 4] if options else [])
            pixels = dataset.read()
        assert ("cog" in options) == (not broken_rules(path))
        assert np.array_equal(
            pixels, run_local(chain("grow"), tmp_path / "p", {"scene": scene}).pixels()
        )
        assert np.array_equal(pixels, plain)
        assert [each.is_intact for each in verify_result(tmp_path / "out")] == [True]
        assert tree(tmp_path / "out") == {"image.tif", "report.html", "result.json"}


def test_a_hole_is_nodata_in_overviews(tmp_path: Path) -> None:
    """Of a PARTIAL run; valid pixels beside it (control) are averaged."""
    pixels = noise(1100, 700, below=100) + np.uint8(1)
    pixels[0, 512:, :512] = MARKER
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = chain("fragile", broken=str(tmp_path))
    done = run_local(document, tmp_path / "out", {"scene": scene}, tile=512, as_cog=True)
    assert done.result["status"] == "PARTIAL"
    assert broken_rules(done.folder / "image.tif") == []
    with rasterio.open(done.folder / "image.tif", overview_level=0) as dataset:
        made, nodata = dataset.read(1), dataset.nodata
    is_hole = made == nodata
    assert is_hole[256:, :256].all()
    assert is_hole.sum() == is_hole[256:, :256].sum()
