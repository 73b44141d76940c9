"""Resuming: what is there is not done again, what changed is; the counts are exact."""

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pesto_runtime.errors import RunFailed
from tests.support.packs import drop_blocks, packed_blocks
from tests.support.processes import MARKER
from tests.support.rasters import noise, sha256_of, tree, write_scene
from tests.support.runs import PROCESSES, Done, Settings, chain, run_local

WIDTH, HEIGHT = 1100, 600  # 3 x 2 blocks
COUNTS = {(0, 0): 9, (0, 1): 9, (0, 2): 3, (1, 0): 3, (1, 1): 3, (1, 2): 1}  # tiles of 200


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", noise(WIDTH, HEIGHT))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def calls(log: Path) -> int:
    return len(log.read_text().splitlines())


@pytest.mark.parametrize("lost", [[], [(0, 1)], [(0, 0), (1, 2)], list(COUNTS)])
def test_only_tiles_that_touch_a_missing_block_are_computed(
    tmp_path: Path, scene: Path, log: Path, lost: list[tuple[int, int]]
) -> None:
    """Counted by the process itself as well as in the result."""
    document = chain("verbose", log=str(log))
    first = run_local(document, tmp_path / "out", {"scene": scene}, keep=True)
    expected, before = first.sha256(), calls(log)
    assert before == sum(COUNTS.values())
    (first.folder / "result.json").unlink()
    drop_blocks(first.folder / ".pesto", lost)

    done = run_local(document, tmp_path / "out", {"scene": scene}, keep=True)

    wanted = sum(COUNTS[index] for index in lost)
    assert calls(log) - before == wanted
    assert done.tiles == (wanted, sum(COUNTS.values()) - wanted, 0)
    assert done.sha256() == expected


@pytest.mark.parametrize("tile", [64, 512])
def test_blocks_of_one_tile_size_serve_another(
    tmp_path: Path, scene: Path, log: Path, tile: int
) -> None:
    """A block's key does not hold the tile size."""
    document = chain("verbose", log=str(log))
    first = run_local(document, tmp_path / "out", {"scene": scene}, keep=True)
    (first.folder / "result.json").unlink()
    done = run_local(document, tmp_path / "out", {"scene": scene}, keep=True, tile=tile)
    assert done.tiles[0] == 0
    assert calls(log) == sum(COUNTS.values())


def touch_output(done: Done, _scene: Path) -> None:
    path = done.folder / "image.tif"
    path.write_bytes(path.read_bytes() + b" ")


def remove_output(done: Done, _scene: Path) -> None:
    (done.folder / "image.tif").unlink()


def harm_result(done: Done, _scene: Path) -> None:
    (done.folder / "result.json").write_text('{"run": ')


def change_scene(_done: Done, scene: Path) -> None:
    write_scene(scene, noise(WIDTH, HEIGHT, seed=7))


def test_a_complete_run_returns_at_once(tmp_path: Path, scene: Path, log: Path) -> None:
    """No tile is computed, the result is the one that stands there."""
    document = chain("verbose", log=str(log))
    first = run_local(document, tmp_path / "out", {"scene": scene})
    before = calls(log)
    again = run_local(document, tmp_path / "out", {"scene": scene}, tile=64, executor="processes")
    assert calls(log) == before
    assert again.result == first.result


@pytest.mark.parametrize("change", [touch_output, remove_output, harm_result, change_scene])
def test_a_complete_run_that_was_touched_is_computed_again(
    tmp_path: Path, scene: Path, log: Path, change: object
) -> None:
    """The controls of answering at once."""
    assert callable(change)
    document = chain("verbose", log=str(log))
    first = run_local(document, tmp_path / "out", {"scene": scene})
    before = calls(log)
    change(first, scene)
    done = run_local(document, tmp_path / "out", {"scene": scene})
    assert calls(log) == 2 * before
    assert done.result["status"] == "COMPLETE"
    with rasterio.open(scene) as source:
        assert np.array_equal(done.pixels(), source.read())


@pytest.mark.parametrize("change", ["literal", "parameter", "code", "nothing"])
def test_what_pixels_depend_on_is_in_the_key_of_a_block(
    tmp_path: Path, scene: Path, change: str
) -> None:
    """Kept blocks serve the same run only; where nothing changed (control) they do."""
    code = tmp_path / "processes.py"
    code.write_text(PROCESSES.read_text())
    service = (f"above={code}:above",)
    document = chain("above", level="$inputs.level" if change == "parameter" else 100)
    document["inputs"] = {"scene": "image", "level": "number"}
    given = {"scene": scene, "level": 100}
    first = run_local(document, tmp_path / "out", given, services=service, keep=True)
    (first.folder / "result.json").unlink()
    if change == "literal":
        document["stages"][0]["inputs"]["level"] = 150  # type: ignore[index,call-overload]  # JSON
    elif change == "code":
        code.write_text(code.read_text().replace("image > level", "image > level + 50"))
    given["level"] = 150 if change == "parameter" else 100

    done = run_local(document, tmp_path / "out", given, services=service, keep=True)

    level = 100 if change == "nothing" else 150
    assert np.array_equal(done.pixels(), (noise(WIDTH, HEIGHT) > level).astype(np.uint8))
    assert done.tiles[0] == (0 if change == "nothing" else sum(COUNTS.values()))


def test_fresh_forgets_what_is_there(tmp_path: Path, scene: Path, log: Path) -> None:
    """`--fresh` computes a COMPLETE run again, and never its kept blocks (control: without it)."""
    document = chain("verbose", log=str(log))
    run_local(document, tmp_path / "out", {"scene": scene}, keep=True)
    before = calls(log)
    assert run_local(document, tmp_path / "out", {"scene": scene}).tiles[0] == before
    assert calls(log) == before
    run_local(document, tmp_path / "out", {"scene": scene}, fresh=True)
    assert calls(log) == 2 * before


def test_the_store_is_gone_when_complete_unless_kept(tmp_path: Path, scene: Path) -> None:
    """What is left is what was asked for."""
    kept = run_local(chain("grow"), tmp_path / "kept", {"scene": scene}, keep=True)
    gone = run_local(chain("grow"), tmp_path / "gone", {"scene": scene})
    assert tree(gone.folder) == {"image.tif", "report.html", "result.json"}
    assert not (gone.folder / ".pesto").exists()
    assert len(list(packed_blocks(kept.folder / ".pesto"))) == 6


def test_a_store_elsewhere_holds_the_run(tmp_path: Path, scene: Path, log: Path) -> None:
    """Blocks go there, outputs to the folder; a second folder profits of it."""
    document = chain("verbose", log=str(log))
    store = (tmp_path / "store").as_uri()
    first = run_local(document, tmp_path / "a", {"scene": scene}, store=store, keep=True)
    before = calls(log)
    second = run_local(document, tmp_path / "b", {"scene": scene}, store=store, keep=True)
    assert any(name.startswith("blocks/") for name in tree(tmp_path / "store"))
    assert tree(first.folder) == {"image.tif", "report.html", "result.json"}
    assert second.tiles[0] == 0
    assert calls(log) == before
    assert first.sha256() == second.sha256()


@pytest.mark.parametrize("option", ["complete", "fresh"])
def test_a_store_elsewhere_is_forgotten_as_the_folders_own_is(
    tmp_path: Path, scene: Path, log: Path, option: str
) -> None:
    """When complete without `--keep`, and by `--fresh`; what others keep there stays."""
    document, store = chain("verbose", log=str(log)), tmp_path / "store"
    other = write_scene(tmp_path / "o.tif", noise(30, 20))
    run_local(document, tmp_path / "o", {"scene": other}, store=store.as_uri(), keep=True)
    others, before = tree(store), calls(log)
    kept = option == "fresh"
    run_local(document, tmp_path / "a", {"scene": scene}, store=store.as_uri(), keep=kept)
    assert (tree(store) > others) == kept
    assert tree(store) >= others
    again = run_local(document, tmp_path / "b", {"scene": scene}, store=store.as_uri(), fresh=kept)
    assert calls(log) - before == 2 * sum(COUNTS.values())
    assert again.tiles[0] == sum(COUNTS.values())
    assert tree(store) == others


def test_as_cog_publishes_a_cog_of_the_same_pixels(tmp_path: Path, scene: Path) -> None:
    """Also where a plain product of the same run stands already, and back again."""
    plain = run_local(chain("grow"), tmp_path / "out", {"scene": scene})
    before = plain.sha256()
    pixels = plain.pixels()
    cog = run_local(chain("grow"), tmp_path / "out", {"scene": scene}, as_cog=True)
    with rasterio.open(cog.folder / "image.tif") as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.overviews(1)
        assert np.array_equal(dataset.read(), pixels)
    assert tree(cog.folder) == {"image.tif", "report.html", "result.json"}
    assert run_local(chain("grow"), tmp_path / "out", {"scene": scene}).sha256() == before


@pytest.mark.parametrize(("workers", "tiles"), [(1, 24), (2, 28)])  # in 4 chunks, and in 6
def test_a_worker_process_that_dies_once_does_not_fail_the_run(
    tmp_path: Path, workers: int, tiles: int
) -> None:
    """The pool is built again, and the tile tried once more."""
    pixels = noise(WIDTH, HEIGHT)
    pixels[0, 590, 1090] = MARKER
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = chain("deadly", flag=str(tmp_path / "flag"))
    settings: Settings = {"executor": "processes", "workers": workers}
    done = run_local(document, tmp_path / "out", {"scene": scene}, **settings)
    assert (tmp_path / "flag").exists()
    assert done.result["status"] == "COMPLETE"
    assert np.array_equal(done.pixels(), pixels)
    assert sum(done.tiles[:2]) == tiles


def test_a_worker_process_that_always_dies_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for ever: the error says what happened, and nothing is published."""
    monkeypatch.setattr(import_module("pesto_runtime.run.local"), "_MOST_DEATHS", 1)
    pixels = np.full((1, 20, 20), MARKER, np.uint8)
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = chain("deadly", flag="")
    with pytest.raises(RunFailed, match="worker processes died"):
        run_local(document, tmp_path / "out", {"scene": scene}, executor="processes", workers=1)
    shutil.rmtree(tmp_path / "out" / ".pesto", ignore_errors=True)
    assert tree(tmp_path / "out") == set()


def test_a_product_is_the_same_bytes_however_it_was_interrupted(
    tmp_path: Path, scene: Path
) -> None:
    """Half of the blocks from one run, half from another with other tiles and workers."""
    whole = run_local(chain("grow", "grow"), tmp_path / "whole", {"scene": scene}, keep=True)
    drop_blocks(whole.folder / ".pesto", [index for index in COUNTS if sum(index) % 2])
    (whole.folder / "result.json").unlink()
    before = sha256_of(whole.folder / "image.tif")
    done = run_local(
        chain("grow", "grow"), tmp_path / "whole", {"scene": scene}, tile=64, workers=1
    )
    assert done.sha256() == before
