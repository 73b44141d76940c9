"""What an algorithm tells on its way is thinned out, and its last word is not lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.service.workers.telling import Teller

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue


def told_by(*, ends: bool) -> list[JsonValue]:
    """What is sent of three quick steps of ten."""
    sent: list[JsonValue] = []

    def send(_kind: str, head: Mapping[str, JsonValue]) -> None:
        sent.append(head["done"])

    teller = Teller(send)
    teller.begin()
    for done in (1, 2, 3):
        teller.progress(done, 10)
    if ends:
        teller.end()
        teller.end()
    return sent


def test_the_last_progress_before_the_end_is_told() -> None:
    """However soon it comes after the one before, and once."""
    assert told_by(ends=True) == [1, 3]


def test_progress_is_thinned_out() -> None:
    """Control: without the end, steps that follow quickly are held back."""
    assert told_by(ends=False) == [1]
