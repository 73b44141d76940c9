"""Bad input: one clear error of the right kind, and not a file more than before."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pesto_runtime.errors import (
    GridMismatch,
    InvalidPipeline,
    NothingValid,
    RasterUnreadable,
    StoreFailed,
    StoreRefused,
)
from pesto_runtime.run import workspace
from pesto_runtime.run.workspace import locked_workspace
from tests.support.rasters import UTM, noise, pixels_of, tree, write_scene
from tests.support.runs import CLOUD_COVER, ROOT, SCENE, chain, pipeline, run_local, stage

COVER = pipeline(
    stage("cover", "cloud_cover", mask="$inputs.mask"),
    outputs={"cover": "$cover.fraction"},
    mask="image",
)
COVER["services"] = {"cloud-cover": "../examples/cloud_cover.py:cloud_cover"}
BOTH = pipeline(
    stage("sum", "add", first="$inputs.first", second="$inputs.second"),
    outputs={"image": "$sum.image"},
    first="image",
    second="image",
)


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def corrupt(path: Path) -> None:
    path.write_bytes(b"no raster at all" * 50)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [missing, empty, corrupt, truncated])
def test_an_unreadable_scene_is_named_and_nothing_is_published(
    tmp_path: Path, harm: object
) -> None:
    """A truncated one fails in the middle of the run: its store stays, no output appears."""
    assert callable(harm)
    scene = write_scene(tmp_path / "s.tif", noise(300, 2000), names=())
    harm(scene)
    with pytest.raises(RasterUnreadable, match=r"s\.tif") as caught:
        run_local(chain("grow"), tmp_path / "out", {"scene": f"{scene}#bands=grey:1"})
    assert caught.value.exit_code == 2
    assert all(name.startswith(".pesto/") for name in tree(tmp_path / "out"))
    assert (harm is truncated) == (tmp_path / "out").exists()


def test_a_scene_without_the_bands_is_refused_with_those_it_has(tmp_path: Path) -> None:
    """The Landsat pipeline over a grey picture."""
    import json

    scene = write_scene(tmp_path / "s.tif", noise(30, 20, dtype="uint16"))
    with pytest.raises(InvalidPipeline, match=r"blue.*") as caught:
        run_local(json.loads(CLOUD_COVER.read_text()), tmp_path / "out", {"scene": scene})
    assert "grey" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transform": (30.0, 0.0, UTM[2] + 45, 0.0, -30.0, UTM[5])}, "1.5 columns and"),
        ({"transform": (15.0, 0.0, UTM[2], 0.0, -15.0, UTM[5])}, "pixels of 30 x -30 against 15"),
        ({"crs": "EPSG:32617"}, "CRS EPSG:32616 against EPSG:32617"),
        ({"size": (31, 20)}, "width 30 against 31"),
        ({"transform": None}, "only one of them has a transform"),
    ],
)
def test_inputs_on_different_grids_are_refused_with_the_difference(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    """Which two, and by how much; two on one grid (control) run."""
    facts = dict(change)
    size = facts.pop("size", (30, 20))
    first = write_scene(tmp_path / "a.tif", noise(30, 20))
    second = write_scene(tmp_path / "b.tif", noise(*size), **facts)  # type: ignore[misc,arg-type]  # parametrised
    with pytest.raises(GridMismatch) as caught:
        run_local(BOTH, tmp_path / "out", {"first": first, "second": second})
    assert message in str(caught.value)
    assert "a.tif" in str(caught.value)
    assert "b.tif" in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()
    run_local(BOTH, tmp_path / "out", {"first": first, "second": first})


@pytest.mark.parametrize("kind", ["file", "below a file", "proc"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, kind: str) -> None:
    """Before anything is computed; what stands there is left alone."""
    scene = write_scene(tmp_path / "s.tif", noise(30, 20))
    file = tmp_path / "file"
    file.write_text("mine")
    folder = {"file": file, "below a file": file / "out", "proc": Path("/proc/pesto-out")}[kind]
    with pytest.raises(StoreRefused, match="choose a directory") as caught:
        run_local(chain("grow"), folder, {"scene": scene})
    assert caught.value.exit_code == 2
    assert file.read_text() == "mine"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("no mount command to make a small disk with")
    command = [mount, "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk needs root: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run([shutil.which("umount") or "umount", str(folder)], check=True)


@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("as_cog", [True, False])
def test_a_full_disk_fails_by_name_and_leaves_no_product(
    tmp_path: Path, small_disk: Path, *, elsewhere: bool, as_cog: bool
) -> None:
    """In the run store, or (store elsewhere) while the product is written; room heals it."""
    scene = write_scene(tmp_path / "s.tif", noise(700, 600))
    store = (tmp_path / "store").as_uri() if elsewhere else None
    document = chain("grow", "grow")
    with pytest.raises(StoreFailed, match="No space left on device") as caught:
        run_local(document, small_disk / "out", {"scene": scene}, store=store, as_cog=as_cog)
    assert caught.value.exit_code == 1
    names = tree(small_disk / "out") if (small_disk / "out").exists() else set()
    assert all(name.startswith(".pesto/") for name in names)

    command = [shutil.which("mount") or "mount", "-o", "remount,size=8m", str(small_disk)]
    subprocess.run(command, check=True)
    done = run_local(document, small_disk / "out", {"scene": scene}, store=store, as_cog=as_cog)
    assert done.result["status"] == "COMPLETE"
    control = run_local(document, tmp_path / "control", {"scene": scene}, as_cog=as_cog)
    assert done.sha256() == control.sha256()


def test_a_second_run_in_one_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first one holds it, and not after."""
    monkeypatch.setattr(workspace, "_UNOWNED_S", 0.3)
    scene = write_scene(tmp_path / "s.tif", noise(30, 20))
    with (
        locked_workspace(tmp_path / "out", run="other"),
        pytest.raises(StoreRefused, match="in use by another run"),
    ):
        run_local(chain("grow"), tmp_path / "out", {"scene": scene})
    assert not (tmp_path / "out").exists()
    assert run_local(chain("grow"), tmp_path / "out", {"scene": scene}).result


def test_a_reduce_without_a_valid_pixel_refuses_by_name(tmp_path: Path) -> None:
    """Nodata everywhere is normal for a map; cover of nothing is not a number."""
    scene = write_scene(
        tmp_path / "m.tif", np.full((1, 600, 700), 255, np.uint8), names=("cloud",), nodata=255
    )
    with pytest.raises(NothingValid, match="cover") as caught:
        run_local(COVER, tmp_path / "out", {"mask": scene})
    assert caught.value.exit_code == 1
    assert all(name.startswith(".pesto/") for name in tree(tmp_path / "out"))


def test_nodata_everywhere_is_a_product_like_any_other(tmp_path: Path) -> None:
    """The Landsat mask over a scene of zeros is all nodata, in one valid pixel (control) not."""
    import json

    document = json.loads(CLOUD_COVER.read_text())
    del document["outputs"]["cover"]
    document["stages"] = document["stages"][:2]
    names = ("blue", "green", "red", "nir", "swir16", "swir22", "cirrus")
    scene = write_scene(tmp_path / "s.tif", np.zeros((7, 60, 50), np.uint16), names=names)
    done = run_local(document, tmp_path / "out", {"scene": scene})
    assert (done.pixels("mask") == 255).all()
    control = run_local(document, tmp_path / "control", {"scene": SCENE})
    assert (control.pixels("mask") != 255).any()
    assert (ROOT / "examples").is_dir()
    assert pixels_of(SCENE).any()
