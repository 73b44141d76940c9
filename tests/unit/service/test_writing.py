"""An answer comes out as it was written, in memory or in a spool."""

from __future__ import annotations

import base64
import itertools

import numpy as np
import pytest

from pesto_runtime.service.outputs import ResponseWriter
from pesto_runtime.service.runner import INLINE_BYTES


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
