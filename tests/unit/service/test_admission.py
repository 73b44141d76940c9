"""The bounded queue: what is refused, and what it says of waiting."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from pesto_runtime.errors import Busy
from pesto_runtime.service.admission import Admission


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    """One runs, one waits, the third is refused; a place that is given back is free again."""
    admission = Admission(workers=1, queue=1)
    with admission.place(), admission.place():
        with pytest.raises(Busy, match="1 calls run and 1 wait") as caught:
            admission.place()
        assert caught.value.retry_after_s is not None
        assert 0 < caught.value.retry_after_s <= 60
    with admission.place():
        assert admission.admitted == 1
    assert admission.admitted == 0


def refused_for(admission: Admission) -> float:
    """The Retry-After of a full queue, seconds."""
    with ExitStack() as places:
        for _ in range(admission.capacity):
            places.enter_context(admission.place())
        with pytest.raises(Busy) as caught:
            admission.place()
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_retry_after_follows_the_duration_of_calls_up_to_a_minute() -> None:
    """Calls of an hour would otherwise make it five hours, when a place may long be free."""
    short, long = Admission(workers=1, queue=4), Admission(workers=1, queue=4)
    for _ in range(20):
        short.record_duration(0.1)
        long.record_duration(3600)
    assert 0 < refused_for(short) < 1
    assert refused_for(long) == 60


def test_a_place_is_given_back_after_an_error() -> None:
    """Failing calls never fill the queue."""
    admission = Admission(workers=1, queue=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.place():
            _ = 1 / 0
    assert admission.admitted == 0
