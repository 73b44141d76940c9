"""Progress is thinned out, and the last one before the end is not lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.service.workers.process import OutputForwarder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue


def sent_by(*, ends: bool) -> list[JsonValue]:
    """What is sent of three quick steps of ten."""
    sent: list[JsonValue] = []

    def send(_kind: str, head: Mapping[str, JsonValue]) -> None:
        sent.append(head["done"])

    forwarder = OutputForwarder(send)
    forwarder.begin()
    for done in (1, 2, 3):
        forwarder.progress(done, 10)
    if ends:
        forwarder.end()
        forwarder.end()
    return sent


def test_the_last_progress_before_the_end_is_sent() -> None:
    """However soon it comes after the one before, and once."""
    assert sent_by(ends=True) == [1, 3]


def test_progress_is_thinned_out() -> None:
    """Control: without the end, steps that follow quickly are held back."""
    assert sent_by(ends=False) == [1]
