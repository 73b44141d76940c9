"""`--compress`: the same pixels, under other keys; a codec that does not exist is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from pesto_airflow import PestoPlanOperator
from pesto_runtime.cli.main import app
from pesto_runtime.contract import Compression
from pesto_runtime.errors import InvalidInput
from tests.support.processes import MARKER
from tests.support.rasters import noise, write_scene
from tests.support.runs import chain, run_local

SIZE = (600, 530)  # 2 x 2 blocks


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", noise(*SIZE))


@pytest.mark.parametrize("as_cog", [False, True])
def test_a_codec_changes_the_file_and_never_a_pixel(
    tmp_path: Path, scene: Path, *, as_cog: bool
) -> None:
    """Each is read by GDAL under its own name; two codecs (control) never give the same file."""
    found = {}
    plain = run_local(chain("grow"), tmp_path / "plain", {"scene": scene}).pixels()
    for text in ("none", "deflate:12", "deflate:1", "zstd"):
        folder = tmp_path / text.replace(":", "")
        done = run_local(chain("grow"), folder, {"scene": scene}, compress=text, as_cog=as_cog)
        with rasterio.open(folder / "image.tif") as dataset:
            codec = dataset.compression.name if dataset.compression else "none"
        assert codec == Compression.parse(text).codec
        assert np.array_equal(done.pixels(), plain)
        found[text] = done.sha256()
    assert len(set(found.values())) == len(found)


def test_blocks_of_another_codec_are_never_reused(tmp_path: Path, scene: Path) -> None:
    """In one run store; a level that is the default one by its number (control) reuses them."""
    store = (tmp_path / "store").as_uri()
    tiles = {}
    for text in ("deflate", "zstd", "deflate:4"):
        done = run_local(
            chain("grow"), tmp_path / text.replace(":", ""), {"scene": scene},
            store=store, keep=True, compress=text,
        )  # fmt: skip
        tiles[text] = done.tiles
    assert tiles["deflate"][0] == tiles["zstd"][0] > 0 == tiles["deflate:4"][0]


def test_a_hole_has_the_codec_of_the_product(tmp_path: Path) -> None:
    """Blocks that no tile computed are nodata of the same codec, so that the file can be read."""
    pixels = noise(*SIZE)
    pixels[0, 520, 520] = MARKER  # in the last block, which has only this tile of 512 x 512
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = chain("raises", slug="algorithm-failed")
    done = run_local(document, tmp_path / "o", {"scene": scene}, compress="zstd", tile=512)
    assert done.result["status"] == "PARTIAL"
    written = done.pixels()
    assert np.unique(written[:, 512:, 512:]).size == 1
    assert np.unique(written[:, :512, :512]).size > 1


def test_an_unknown_codec_is_refused_before_planning(tmp_path: Path, scene: Path) -> None:
    """On the command line and when Airflow parses the file; nothing is written."""
    for words in (["run", "-o", str(tmp_path / "out")], ["plan"]):
        done = CliRunner().invoke(app, [*words, *command(tmp_path, scene), "--compress", "lzw"])
        assert isinstance(done.exception, InvalidInput)
        assert "compress 'lzw' is not known: write deflate or" in str(done.exception)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidInput, match="deflate:13"):
        PestoPlanOperator(
            task_id="plan", pipeline={}, inputs={}, folder="/out", compress="deflate:13"
        )


@pytest.mark.parametrize(
    ("words", "stated"), [([], "deflate:4"), (["--compress", "zstd"], "zstd:3")]
)
def test_the_plan_states_codec_and_level(
    tmp_path: Path, scene: Path, words: list[str], stated: str
) -> None:
    """The number of a default level too: a later version may have another default."""
    done = CliRunner().invoke(app, ["plan", *command(tmp_path, scene), "--json", *words])
    assert json.loads(done.stdout)["compress"] == stated


def command(folder: Path, scene: Path) -> list[str]:
    """A pipeline of one stage and its scene, as words of a command."""
    (folder / "p.json").write_text(json.dumps(chain("grow")))
    return [str(folder / "p.json"), "-i", f"scene={scene}"]
