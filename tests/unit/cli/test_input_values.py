"""The values of `-i`: texts, files and lists."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.cli.options import input_values
from pesto_runtime.errors import InvalidInput
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Command

AUTHOR = """
from typing import Annotated
import numpy as np
from pesto_runtime import Named, process

@process(version="1.0.0")
def total(
    scenes: list[np.ndarray], ks: list[int] = [], aoi: dict[str, object] = {}, ids: list[str] = []
) -> Annotated[str, Named("said")]:
    return f"{[int(each.sum()) for each in scenes]} {ks} {aoi} {ids}"
"""


def test_a_value_may_be_in_a_file_and_a_name_may_repeat(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"type": "Point"}\n')
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf[1]")
    texts = [
        f"aoi=@{tmp_path}/a.json",
        "k=1",
        "k=2",
        "k=3",
        "word=@@home",
        f"bom=@{tmp_path}/b.json",
        "e=",
    ]
    assert input_values(texts) == {
        "aoi": '{"type": "Point"}', "k": ["1", "2", "3"], "word": "@home", "bom": "[1]",
        "e": "",
    }  # fmt: skip
    assert input_values(None) == {}


@pytest.mark.parametrize("text", ["scene", "=5", "aoi=@none.json", "aoi=@.", "aoi=@image.tif"])
def test_a_text_without_a_name_and_a_file_that_cannot_be_read_are_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "image.tif", noise(9, 9) + 128)
    message = r"NAME=VALUE|No such file|Is a directory|is not text .* given without @"
    with pytest.raises(InvalidInput, match=message):
        input_values([text])


def test_lists_of_images_and_values_reach_the_process(pesto: Command, tmp_path: Path) -> None:
    """Each item by the type of its list: the same digits are a number or a text."""
    (tmp_path / "t.py").write_text(AUTHOR)
    (tmp_path / "a.json").write_text('{"a": 1}')
    paths = [write_scene(tmp_path / f"{n}.tif", noise(9, 9, seed=n)) for n in range(2)]
    sums = [int(noise(9, 9, seed=n).sum()) for n in range(2)]
    scenes = [word for path in paths for word in ("-i", f"scenes={path}")]
    values = ("-i", "ks=3", "-i", "ks=4", "-i", "ids=7", "-i", "ids=8")
    said = pesto("process", f"{tmp_path}/t.py:total", *scenes, *values,
                 "-i", f"aoi=@{tmp_path}/a.json", "--json")  # fmt: skip
    assert json.loads(said.out) == {"said": f"{sums} [3, 4] {{'a': 1}} ['7', '8']"}
    listed = json.dumps([str(path) for path in paths])
    said = pesto("process", f"{tmp_path}/t.py:total", "-i", f"scenes={listed}", "-i", "ks=[3]")
    assert json.loads(said.out) == {"said": f"{sums} [3] {{}} []"}
    said = pesto("process", f"{tmp_path}/t.py:total", "-i", "scenes=[1]")
    assert (said.code, "an image is a path or href" in said.err) == (2, True)
