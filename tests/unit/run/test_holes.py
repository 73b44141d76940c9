"""Holes: a tile that fails costs its own pixels and what needs them, never the rest of the run."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pesto_runtime.contract import Hole
from pesto_runtime.errors import Busy, PestoError, RunFailed, TooLarge
from pesto_runtime.report.facts import read_holes
from pesto_runtime.run.stage import StageFailed
from pesto_runtime.run.tile import TileOutputs, attempted
from pesto_runtime.store import open_store
from tests.support.processes import MARKER
from tests.support.rasters import UTM, noise, sha256_of, tree, write_scene
from tests.support.runs import chain, pipeline, run_local, stage

WIDTH, HEIGHT = 1100, 600
AT = (530, 610)  # row, column of the marker
TILE = (512, 512, 200, 88)  # of 200 pixels in the second chunk's blocks, cut at the scene's foot
RESULTS = {"result.json", "report.html"}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = noise(WIDTH, HEIGHT)
    pixels[0][AT] = MARKER
    return write_scene(tmp_path / "s.tif", pixels)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken"
    path.touch()
    return path


def pixels() -> np.ndarray:
    made = noise(WIDTH, HEIGHT)
    made[0][AT] = MARKER
    return made


def window() -> tuple[slice, slice]:
    col, row, width, height = TILE
    return slice(row, row + height), slice(col, col + width)


def public(folder: Path) -> set[str]:
    """Files that a run left for others to see."""
    return {name for name in tree(folder) if not name.startswith(".pesto/")}


def with_mean(broken: Path) -> dict[str, object]:
    """The fragile map, a reduce of it, and a map that needs the reduce."""
    return dict(
        pipeline(
            stage("same", "fragile", image="$inputs.scene", broken=str(broken)),
            stage("mean", "mean", image="$same.image"),
            stage("above", "above", image="$inputs.scene", level="$mean.mean"),
            stage("grown", "grow", image="$same.image"),
            outputs={"image": "$same.image", "mean": "$mean.mean", "above": "$above.image"},
        )
    )


def test_one_failed_tile_is_one_hole(tmp_path: Path, scene: Path, broken: Path) -> None:
    """Its pixels are nodata, all others are right, and the hole has coordinates of the CRS."""
    done = run_local(chain("fragile", broken=str(broken)), tmp_path / "out", {"scene": scene})

    assert done.result["status"] == "PARTIAL"
    expected = pixels()
    expected[(0, *window())] = 255
    assert np.array_equal(done.pixels(), expected)
    holes = json.loads((done.folder / "holes.geojson").read_text())
    (hole,) = holes["features"]
    west, north = UTM[2] + 512 * 30, UTM[5] - 512 * 30
    east, south = west + 200 * 30, north - 88 * 30
    assert hole["geometry"]["coordinates"] == [
        [[west, north], [east, north], [east, south], [west, south], [west, north]]
    ]
    assert holes["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32616"
    assert hole["properties"]["stage"] == "s0"
    assert "ZeroDivisionError" in hole["properties"]["error"]
    assert "processes.py" in hole["properties"]["error"]
    assert public(done.folder) == {"image.tif", "holes.geojson", *RESULTS}
    assert done.tiles[2] == 1


def kinds(kind: type[PestoError] = PestoError) -> list[type[PestoError]]:
    """Every kind of error that is not retried."""
    found = [each for child in kind.__subclasses__() for each in kinds(child)]
    return [*([] if kind.retryable else [kind]), *found]


OF_A_TILE = {"algorithm-failed", "nothing-valid", "too-large"}


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.slug)
def test_only_an_error_of_the_tile_itself_is_a_hole(tmp_path: Path, kind: type[PestoError]) -> None:
    """Three kinds, as decision 008 lists them; any other ends the run, and nothing is published."""
    pixels = noise(300, 300)
    pixels[0, 20, 20] = MARKER
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = chain("raises", slug=kind.slug)
    if kind.slug in OF_A_TILE:
        done = run_local(document, tmp_path / "out", {"scene": scene})
        assert (done.result["status"], done.tiles) == ("PARTIAL", (3, 0, 1))
    else:
        with pytest.raises(kind) as caught:
            run_local(document, tmp_path / "out", {"scene": scene})
        assert type(caught.value) is kind
        assert [str(field) for field in caught.value.fields] == ["/image: must be dark"]
        assert public(tmp_path / "out") == set()


def test_a_hole_has_its_whole_problem(tmp_path: Path) -> None:
    """Its wrong fields are in the manifest, the GeoJSON, the report, the error if no tile is left.

    A hole without fields (control) has an empty list.
    """
    scene = tmp_path / "s.tif"
    pixels = noise(300, 300)
    pixels[0, 20, 20] = MARKER
    done = run_local(
        chain("raises", slug="too-large"), tmp_path / "out", {"scene": write_scene(scene, pixels)}
    )
    store = open_store((done.folder / ".pesto").as_uri())
    (manifest,) = [store.get_json(name) for name in store.names("manifests")]
    errors = [{"pointer": "/image", "detail": "must be dark", "value": "bright"}]
    assert isinstance(manifest, dict)
    assert Hole.model_validate(manifest["holes"][0]).error["errors"] == errors  # type: ignore[index]  # a list
    (feature,) = json.loads((done.folder / "holes.geojson").read_text())["features"]
    assert feature["properties"]["errors"] == errors
    (shown,) = read_holes(done.folder)
    assert shown.error.endswith("no; /image: must be dark")

    write_scene(scene, np.full((1, 30, 30), MARKER, np.uint8))
    with pytest.raises(RunFailed, match=r"the first hole: .* no; /image: must be dark"):
        run_local(chain("raises", slug="too-large"), tmp_path / "all", {"scene": scene})

    broken = chain("fragile", broken=str(scene))
    control = run_local(
        broken, tmp_path / "control", {"scene": write_scene(tmp_path / "c.tif", pixels)}
    )
    (feature,) = json.loads((control.folder / "holes.geojson").read_text())["features"]
    assert feature["properties"]["errors"] == []


def test_a_busy_process_is_retried_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Retry-After of an hour would block the chunk, whose other tiles can run."""
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, perf_counter=time.perf_counter)
    monkeypatch.setattr("pesto_runtime.run.tile.time", clock)
    scene = write_scene(tmp_path / "s.tif", noise(40, 40))
    document = chain("busy_once", flag=str(tmp_path / "flag"), seconds=3600)
    done = run_local(document, tmp_path / "out", {"scene": scene}, workers=1)
    assert (done.result["status"], done.tiles) == ("COMPLETE", (1, 0, 0))
    assert slept
    assert max(slept) <= 5


@pytest.mark.parametrize(
    ("error", "tries"), [(Busy("later", retry_after_s=0.01), 3), (TooLarge("never"), 1)]
)
def test_a_tile_is_tried_three_times_if_its_error_is_retryable(
    error: PestoError, tries: int
) -> None:
    """A call of a service may take minutes, so the number counts; another error is final."""
    calls = 0

    def call() -> TileOutputs:
        nonlocal calls
        calls += 1
        raise StageFailed("stage", error)

    with pytest.raises(StageFailed):
        attempted(call)
    assert calls == tries


def test_what_needs_the_holed_raster_is_skipped_and_listed(
    tmp_path: Path, scene: Path, broken: Path
) -> None:
    """A reduce over a hole would be wrong in silence; so would a map fed by it."""
    done = run_local(with_mean(broken), tmp_path / "out", {"scene": scene})  # type: ignore[arg-type]  # JSON
    assert done.result["status"] == "PARTIAL"
    assert done.result["skipped"] == ["above", "mean"]
    assert public(done.folder) == {"image.tif", "holes.geojson", *RESULTS}


def test_a_whole_stage_after_a_hole_is_skipped_and_listed(
    tmp_path: Path, scene: Path, broken: Path
) -> None:
    """A stage of a later phase reads the raster itself."""
    document = pipeline(
        stage("same", "fragile", image="$inputs.scene", broken=str(broken)),
        stage("rank", "rank", image="$same.image"),
        outputs={"image": "$same.image", "rank": "$rank.image"},
    )
    done = run_local(document, tmp_path / "out", {"scene": scene})
    assert done.result["skipped"] == ["rank"]
    assert public(done.folder) == {"image.tif", "holes.geojson", *RESULTS}


@pytest.mark.parametrize(("tile", "healed"), [(200, 1), (100, 2)])
def test_a_healed_hole_costs_only_its_pixels(
    tmp_path: Path, scene: Path, broken: Path, tile: int, healed: int
) -> None:
    """Running again computes the tiles over the hole of 200 x 88 pixels, and is COMPLETE."""
    document = with_mean(broken)
    first = run_local(document, tmp_path / "out", {"scene": scene})  # type: ignore[arg-type]  # JSON
    assert first.result["status"] == "PARTIAL"
    broken.unlink()

    done = run_local(document, tmp_path / "out", {"scene": scene}, tile=tile)  # type: ignore[arg-type]  # JSON
    undisturbed = run_local(document, tmp_path / "again", {"scene": scene})  # type: ignore[arg-type]  # JSON

    assert done.result["status"] == "COMPLETE"
    assert done.tiles[0] == healed + tiles_of_all_blocks(tile)  # the second phase never ran
    for name in ("image", "above"):
        assert done.sha256(name) == undisturbed.sha256(name)
    assert done.value("mean") == pixels().mean()
    assert public(done.folder) == {"image.tif", "above.tif", "mean.json", *RESULTS}
    assert tree(done.folder) == public(done.folder)


def tiles_of_all_blocks(tile: int) -> int:
    """Tiles of a phase over the scene, whose six chunks are one block each."""
    widths, heights = (512, 512, 76), (512, 88)
    return sum(-(-w // tile) * -(-h // tile) for w in widths for h in heights)


def test_holes_without_nodata_publish_nothing(tmp_path: Path, scene: Path, broken: Path) -> None:
    """There is no value that could stand for a hole; the run fails, and heals like any other."""
    document = chain("fragile_without_nodata", broken=str(broken))
    with pytest.raises(RunFailed, match=r"nodata(.|\n)*ZeroDivisionError"):
        run_local(document, tmp_path / "out", {"scene": scene})
    assert public(tmp_path / "out") == set()
    broken.unlink()
    done = run_local(document, tmp_path / "out", {"scene": scene})
    assert done.result["status"] == "COMPLETE"
    assert done.tiles[0] == 1


def test_nothing_but_holes_publishes_nothing(tmp_path: Path, broken: Path) -> None:
    """Every tile failing is a failure with its reason, not a product of nodata."""
    scene = write_scene(tmp_path / "s.tif", np.full((1, 600, 600), MARKER, np.uint8))
    with pytest.raises(RunFailed, match="ZeroDivisionError"):
        run_local(chain("fragile", broken=str(broken)), tmp_path / "out", {"scene": scene})
    assert public(tmp_path / "out") == set()


def test_what_an_earlier_run_left_does_not_stand_beside_a_partial_one(
    tmp_path: Path, scene: Path, broken: Path
) -> None:
    """`mean.json` of another scene next to this scene's image would be believed."""
    document = with_mean(broken)
    other = write_scene(tmp_path / "o.tif", noise(WIDTH, HEIGHT, seed=9))
    run_local(document, tmp_path / "out", {"scene": other})  # type: ignore[arg-type]  # JSON
    assert (tmp_path / "out" / "mean.json").exists()
    again = {"replace": True}
    done = run_local(document, tmp_path / "out", {"scene": scene}, **again)  # type: ignore[arg-type]  # JSON
    assert done.result["skipped"] == ["above", "mean"]
    assert public(done.folder) == {"image.tif", "holes.geojson", *RESULTS}


def test_a_partial_product_is_the_same_bytes_every_time(
    tmp_path: Path, scene: Path, broken: Path
) -> None:
    """Holes included, threads or processes."""
    document = chain("fragile", broken=str(broken))
    run_local(document, tmp_path / "a", {"scene": scene})
    run_local(document, tmp_path / "b", {"scene": scene}, executor="processes")
    assert sha256_of(tmp_path / "a" / "image.tif") == sha256_of(tmp_path / "b" / "image.tif")
