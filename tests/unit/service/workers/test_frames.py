"""Frames: what is put in comes out, however it is cut on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import BadField, Busy, GridMismatch, PestoError
from pesto_runtime.service.workers.frames import (
    FrameDecoder,
    decode_error,
    encode_error,
    encode_frame,
)

if TYPE_CHECKING:
    from pydantic import JsonValue


@pytest.mark.parametrize("piece", [1, 2, 7, 8, 9, 1000])
def test_frames_survive_any_cut(piece: int) -> None:
    """Three frames, cut into pieces of any size, are the same three."""
    sent: list[tuple[str, dict[str, JsonValue], bytes]] = [
        ("log", {"line": "é"}, b""),
        ("answer", {"spilled": None}, b"\0\1" * 50),
        ("x", {}, b""),
    ]
    stream = b"".join(encode_frame(kind, head, body) for kind, head, body in sent)
    decoder = FrameDecoder()
    found = [
        frame
        for start in range(0, len(stream), piece)
        for frame in decoder.feed(stream[start : start + piece])
    ]
    assert [(each.kind, each.body) for each in found] == [(kind, body) for kind, _, body in sent]
    assert found[0].head["line"] == "é"
    assert list(decoder.feed(stream[:-1]))[:1] != found[2:]  # a frame that lacks a byte waits


class Derived(GridMismatch):
    """An error that only its author knows."""

    slug = "mine"


@pytest.mark.parametrize(
    "error",
    [
        PestoError("plain"),
        Busy("later", retry_after_s=2.5),
        GridMismatch("x" * 5000, fields=[BadField("/a", "b" * 900, "c"), BadField("", "d")]),
    ],
)
def test_an_error_is_the_same_on_the_other_side(error: PestoError) -> None:
    """Whole: nothing is cut, as it would be of a stranger's problem document."""
    back = decode_error(encode_error(error, "where"))
    assert type(back) is type(error)
    assert (back.detail, back.fields, back.retry_after_s, back.retryable) == (
        error.detail, error.fields, error.retry_after_s, error.retryable,
    )  # fmt: skip
    assert str(back) == str(error)
    assert back.__notes__ == ["where"]


def test_an_authors_own_error_becomes_the_one_it_was_derived_from() -> None:
    """The service does not have the author's classes."""
    assert type(decode_error(encode_error(Derived("no")))) is GridMismatch
