"""The bounded queue: what is refused, and what it says of waiting."""

from __future__ import annotations

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


def test_a_place_is_given_back_after_an_error() -> None:
    """Failing calls never fill the queue."""
    admission = Admission(workers=1, queue=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.place():
            _ = 1 / 0
    assert admission.admitted == 0
