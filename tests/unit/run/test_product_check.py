"""Finished folders against their result: what differs, and results that nobody should believe."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.contract import Window
from pesto_runtime.errors import InvalidInput, NotFound
from pesto_runtime.raster.block_codec import block_table
from pesto_runtime.run.product_check import verify_result
from tests.support.commands import pesto
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import chain, run_local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WIDTH, HEIGHT = 1100, 600  # 3 x 2 blocks


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", noise(WIDTH, HEIGHT))


@pytest.fixture
def finished(tmp_path: Path, scene: Path) -> Path:
    return run_local(chain("grow"), tmp_path / "out", {"scene": scene}).folder


@pytest.mark.parametrize("as_cog", [False, True])
def test_the_blocks_that_differ_are_named(tmp_path: Path, scene: Path, *, as_cog: bool) -> None:
    """Of six blocks, the fourth and the last; an untouched product (control) has none."""
    folder = run_local(chain("grow"), tmp_path / "out", {"scene": scene}, as_cog=as_cog).folder
    (check,) = verify_result(folder)
    assert check.is_intact
    path = folder / "image.tif"
    data = bytearray(path.read_bytes())
    offsets = block_table(bytes(data)).offsets.unpack(bytes(data))
    for number in (3, 5):
        data[offsets[number] + 20] ^= 1
    path.write_bytes(data)
    (check,) = verify_result(folder)
    assert check.blocks == (Window(0, 512, 512, 88), Window(1024, 512, 76, 88))
    assert "2 blocks differ" in check.detail
    done = pesto("verify", folder)
    assert done.returncode == 1
    assert "block at column 1024, row 512" in done.stdout


def header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"grey")
    data[at] ^= 1
    path.write_bytes(data)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [header, longer, shorter, emptied, missing, directory, pipe])
def test_a_product_that_is_another_is_not_intact(
    finished: Path, harm: Callable[[Path], None]
) -> None:
    """Whatever it is now; the same command makes it anew, where it can."""
    harm(finished / "image.tif")
    (check,) = verify_result(finished)
    assert not check.is_intact
    assert check.blocks == ()


def edited(folder: Path, **changes: object) -> None:
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


HOSTILE = {
    "outside": {"image": {"path": "../s.tif", "sha256": "0" * 64}},
    "absolute": {"image": {"path": "/dev/zero", "sha256": "0" * 64}},
    "of another name": {"image": {"path": "mine.txt", "sha256": "0" * 64}},
    "with a NUL": {"a\0b": {"path": "a\0b.tif", "sha256": "0" * 64}},
    "a surrogate": {"\ud800": {"path": "\ud800.tif", "sha256": "0" * 64}},
    "no checksum": {"image": {"path": "image.tif"}},
    "no object": {"image": 7},
    "no outputs": [],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_result_that_leads_elsewhere_is_no_result(finished: Path, scene: Path, kind: str) -> None:
    """It is refused by `verify`, and neither believed nor followed by a run."""
    (finished / "mine.txt").write_text("keep")
    edited(finished, outputs=HOSTILE[kind])
    with pytest.raises(InvalidInput, match="is not the result of a run"):
        verify_result(finished)
    done = run_local(chain("grow"), finished, {"scene": scene}, replace=True)
    assert done.tiles[0] == 28
    assert tree(finished) == {"image.tif", "report.html", "result.json", "mine.txt"}
    assert scene.exists()


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{}", '{"outputs": {}}', "7"])
def test_a_file_that_is_no_result_is_refused(finished: Path, scene: Path, text: str) -> None:
    """Never a traceback; the same command writes it anew."""
    (finished / "result.json").write_text(text)
    with pytest.raises(InvalidInput):
        verify_result(finished)
    assert run_local(chain("grow"), finished, {"scene": scene}).tiles[0] == 28


def test_a_folder_without_a_result_is_not_found(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(NotFound, match="no run has finished"):
        verify_result(tmp_path)
    assert pesto("verify", tmp_path).returncode == 2
