"""`pesto probe`: exit codes, what it prints, and where."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import pesto as pesto_process
from tests.support.commands import served
from tests.support.rasters import noise, write_scene
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Command

PROBED = ROOT / "tests" / "support" / "probed.py"
QUICK = ("--limit", "8")


def test_a_contract_that_declares_less_fails(pesto: Command) -> None:
    """The error has the field, the declared and the measured value, and the way out."""
    said = pesto("probe", f"{PROBED}:wrong_box", *QUICK)
    assert said.code == 1
    assert "image -> image: margin 1, declared 0" in said.out
    assert "/input/properties/image/x-raster/margin: declared 0, measured 1" in said.err
    assert "declare margin=1" in said.err


def test_a_contract_that_is_right_passes(pesto: Command) -> None:
    """It says what was tried and what cannot be excluded."""
    said = pesto("probe", f"{PROBED}:median_even", *QUICK)
    assert said.code == 0
    assert "{'top': 2, 'right': 1, 'bottom': 1, 'left': 2}" in said.out
    assert "cannot be excluded" in said.out
    assert said.err == ""


def test_the_document_has_what_the_text_has(pesto: Command) -> None:
    """With `--json`, also where the command fails."""
    said = pesto("probe", f"{PROBED}:wrong_box", *QUICK, "--json", "--seed", "3")
    assert said.code == 1
    document = json.loads(said.out)
    (reach,) = document["reaches"]
    assert reach["margin"] == dict.fromkeys(("top", "right", "bottom", "left"), 1)
    assert reach["declared"] == dict.fromkeys(("top", "right", "bottom", "left"), 0)
    assert document["seed"] == 3
    assert document["measured"]["limit"] == 8
    assert document["measured"]["is_complete"] is True
    (error,) = document["errors"]
    assert error["pointer"] == "/input/properties/image/x-raster/margin"


def test_a_contract_that_declares_more_is_a_remark(pesto: Command, tmp_path: Path) -> None:
    """A larger margin costs reading, and gives the same pixels."""
    text = PROBED.read_text().replace('@process(version="1", margin=2)\ndef erosion',
                                      '@process(version="1", margin=3)\ndef erosion')  # fmt: skip
    file = tmp_path / "more.py"
    file.write_text(text)
    said = pesto("probe", f"{file}:erosion", *QUICK)
    assert said.code == 0
    assert "remark: image: declares margin 3, measured 2" in said.err


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (('margin=0, align=2)\ndef binning', 'margin=0, align=3)\ndef binning'), None),
        (('margin=0, align=4)', 'margin=0, align=2)'), "/align: declared 2, measured 4"),
        (('Margin(top=2, left=3)', 'Margin(top=2, left=2)'), "/margin: declared {'top': 2"),
        (('scale=2)]:', 'scale=3)]:'), "/scale: declared 3, measured 2"),
        (('exactness={"atol": 1e-3}', 'exactness="bitwise"'), "/exactness: declared bitwise"),
    ],
)  # fmt: skip
def test_each_field_that_declares_less_is_named(
    pesto: Command, tmp_path: Path, change: tuple[str, str], fault: str | None
) -> None:
    """Alignment, scale and exactness; a scale of 1/2 makes windows even by itself."""
    text = PROBED.read_text()
    assert change[0] in text
    file = tmp_path / "changed.py"
    file.write_text(text.replace(*change))
    name = {
        "align": "cells_of_four",
        "margin": "causal",
        "scale": "enlarged",
        "exactness": "convolved",
    }.get((fault or "").partition(":")[0][1:], "binning")
    said = pesto("probe", f"{file}:{name}", *QUICK)
    assert said.code == (1 if fault else 0)
    assert (fault or "") in said.err


def test_a_process_that_is_never_tiled_has_no_fault(pesto: Command, tmp_path: Path) -> None:
    """A PESTO project without a margin: the probe shows which margin would make it a map."""
    said = pesto("probe", ROOT / "tests" / "data" / "pesto_margin_project", *QUICK)
    assert said.code == 0
    assert "image -> image: margin 1, declared nothing" in said.out
    assert "margin=1 would make it a map" in said.err


def test_folds_of_a_reduce_are_compared_with_the_whole(pesto: Command) -> None:
    """A sum is the same for every division; a maximum of counts is not."""
    right = pesto("probe", f"{PROBED}:bright_share")
    assert (right.code, right.err) == (0, "")
    assert "partials of parts equals the whole" in right.out
    wrong = pesto("probe", f"{PROBED}:wrong_share")
    assert wrong.code == 1
    assert re.search(r"/x-reduce: declared a reduce, measured /share: .* for parts of", wrong.err)


def test_data_of_the_user_are_used(pesto: Command, tmp_path: Path) -> None:
    """An image may have another size than the made ones; the report names it."""
    scene = write_scene(tmp_path / "s.tif", noise(30, 700))
    said = pesto("probe", f"{PROBED}:rounded", "-i", f"image={scene}", *QUICK)
    assert said.code == 0
    assert "data: given, noise" in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([f"{PROBED}:rounded", "-i", "picture=a.tif"], "has no input 'picture'"),
        ([f"{PROBED}:rounded", "-i", "image=/nowhere.tif"], "does not exist"),
        ([str(ROOT / "examples" / "verdict.py:verdict"), "-i", "fraction=0.5"], "takes no image"),
        ([f"{PROBED}:absent"], "absent"),
        ([str(ROOT / "examples" / "cloud_boxes.py:cloud_boxes")], "it returns no image"),
        ([f"{PROBED}:rounded", "--limit", "0"], "--limit"),
    ],
)
def test_what_cannot_be_measured_is_refused(pesto: Command, words: list[str], message: str) -> None:
    """Exit code 2, before the process is called."""
    said = pesto("probe", *words)
    assert said.code == 2
    assert message in said.err


@pytest.mark.integration
def test_a_service_is_measured_by_its_url() -> None:
    """The same answer as for its function, over HTTP; its memory is that of another process."""
    with served(f"{PROBED}:wrong_box", "--workers", 1) as url:
        said = pesto_process("probe", url, "--limit", 4)
        refused = pesto_process("probe", url, "--limit", 4, "--memory")
    assert said.returncode == 1
    assert "declared 0, measured 1" in said.stderr
    assert refused.returncode == 2
    assert "not a service" in refused.stderr


TALKATIVE = '''
import os
from typing import Annotated
import numpy as np
from pesto_runtime import Raster, process

@process(version="1", margin=0)
def talk(
    image: Annotated[np.ndarray, Raster(bands=1, dtype="uint8", memory={memory})],
) -> Annotated[np.ndarray, Raster(name="image", bands=1, dtype="uint8")]:
    """Print, and use 16 bytes per pixel beside the input and the output."""
    print("by Python")
    os.write(1, b"by a library\\n")
    wide = np.ones(image.shape, np.float64)
    wider = wide + image
    return (wider > 100).astype(np.uint8, copy=False)
'''


@pytest.mark.integration
def test_output_of_the_author_goes_to_stderr(tmp_path: Path) -> None:
    """With `--json`, stdout is one document."""
    file = tmp_path / "talk.py"
    file.write_text(TALKATIVE.replace("{memory}", "None"))
    said = pesto_process("probe", f"{file}:talk", *QUICK, "--json")
    assert json.loads(said.stdout)["nature"] == "map"
    assert "by Python" in said.stderr
    assert "by a library" in said.stderr


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is in /proc")
@pytest.mark.parametrize(("declared", "code"), [(18, 0), (8, 1)])
def test_memory_is_measured_and_compared(tmp_path: Path, declared: int, code: int) -> None:
    """Two arrays of 8 bytes per pixel, one of 1 byte, and the output, which does not count."""
    file = tmp_path / "talk.py"
    file.write_text(TALKATIVE.replace("{memory}", f'{{"input_pixel": {declared}}}'))
    said = pesto_process("probe", f"{file}:talk", *QUICK, "--memory", "--json")
    assert said.returncode == code, said.stderr
    measured = json.loads(said.stdout)["memory"]["input_pixel"]
    assert 16.4 < measured < 17.6
    assert ("x-raster/memory: declared" in said.stderr) is bool(code)
