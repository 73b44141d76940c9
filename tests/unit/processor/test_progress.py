"""What an algorithm tells: heard where somebody listens, nothing elsewhere."""

from __future__ import annotations

import threading

import pytest

import pesto_runtime
from pesto_runtime.processor.protocol import listening


class Notes:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def progress(self, done: float, total: float) -> None:
        """Write it down."""
        self.heard.append((done, total))

    def log(self, text: str) -> None:
        """Write it down."""
        self.heard.append(text)


def tell() -> None:
    """Tell both."""
    pesto_runtime.progress(1, 2)
    pesto_runtime.log("a\nb")


def in_a_thread() -> None:
    """Tell from a thread that the algorithm started."""
    thread = threading.Thread(target=tell)
    thread.start()
    thread.join()


def test_it_is_heard_inside_the_block_only() -> None:
    """Outside nobody listens, and nothing happens."""
    notes = Notes()
    tell()
    with listening(notes):
        tell()
    tell()
    assert notes.heard == [(1.0, 2.0), "a", "b"]


def test_threads_are_heard_everywhere_or_not_at_all() -> None:
    """One call per process hears all threads; one of several hears its own only."""
    notes = Notes()
    with listening(notes):
        in_a_thread()
    assert notes.heard == []
    with listening(notes, everywhere=True):
        in_a_thread()
    in_a_thread()
    assert notes.heard == [(1.0, 2.0), "a", "b"]


def test_progress_stays_between_its_ends() -> None:
    """Too much is all, too little nothing; no total makes no sense."""
    notes = Notes()
    with listening(notes):
        pesto_runtime.progress(7, 4)
        pesto_runtime.progress(-1, 4)
        pesto_runtime.progress(0.5)
    assert notes.heard == [(4.0, 4.0), (0.0, 4.0), (0.5, 1.0)]
    for done, total in ((1, 0), (1, float("inf")), (float("nan"), 1)):
        with pytest.raises(ValueError, match="must be positive"):
            pesto_runtime.progress(done, total)
