"""An answer comes out as it was written, in memory or in a spool."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Description
from pesto_runtime.errors import StoreFailed
from pesto_runtime.processor import OwnedInputs
from pesto_runtime.service.input_reader import RequestInputs
from pesto_runtime.service.outputs import ResponseFormat, ResponseWriter, write_response
from pesto_runtime.service.runner import INLINE_BYTES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 3_000_000])
def test_what_is_written_is_answered(size: int) -> None:
    """Small ones are bytes, large ones are in a spool; both are whole."""
    data = np.random.default_rng(2).bytes(size)
    writer = ResponseWriter()
    for begin in range(0, size, 10_007):
        writer.write(data[begin : begin + 10_007])
    answer = writer.response("a/b")
    assert (answer.whole(), answer.media_type) == (data, "a/b")
    assert (answer.spool is None) == (size <= INLINE_BYTES)


@pytest.mark.parametrize("cuts", [[], [1], [2, 3], [1, 2, 3, 4, 5], [786_433, 786_434], [999_999]])
def test_base64_of_pieces_is_base64_of_the_whole(cuts: list[int]) -> None:
    """However it is cut, and with every length of the end."""
    for size in (1_000_000, 1_000_001, 1_000_002, 5):
        data = np.random.default_rng(3).bytes(size)
        bounds = [0, *(each for each in cuts if each < size), size]
        pieces = [memoryview(data)[a:b] for a, b in itertools.pairwise(bounds)]
        writer = ResponseWriter()
        writer.write_base64(pieces)
        assert base64.b64decode(writer.response("").whole(), validate=True) == data


def test_an_output_that_cannot_be_written_to_its_href_leaves_nothing(tmp_path: Path) -> None:
    """A folder has the name; with a free name (control) the file alone is there."""
    number = {"properties": {"n": {"type": "number"}}}
    description = Description.parse({"name": "p", "version": "1", "input": {}, "output": number})
    inputs = RequestInputs(OwnedInputs(), None, None, None)
    taken, free = tmp_path / "taken" / "n.json", tmp_path / "free" / "n.json"
    taken.mkdir(parents=True)
    free.parent.mkdir()
    with pytest.raises(StoreFailed, match="cannot be written"):
        write_response(description, {"n": 1}, inputs, ResponseFormat(out={"n": taken.as_uri()}))
    write_response(description, {"n": 1}, inputs, ResponseFormat(out={"n": free.as_uri()}))
    assert list(taken.parent.iterdir()) == [taken]
    assert [path.read_text() for path in free.parent.iterdir()] == ["1"]
