"""Set-up: what callers are told before, after, and when it failed."""

from __future__ import annotations

import threading

import pytest

from pesto_runtime.errors import AlgorithmFailed, Busy
from pesto_runtime.service.threads import Readiness


def test_callers_are_asked_to_wait_until_the_set_up_is_done() -> None:
    """Before: busy, retryable. After: nothing stands in the way, and it is announced once."""
    go, ready = threading.Event(), threading.Event()
    readiness = Readiness(lambda: assert_(go.wait(60)), on_ready=ready.set)
    readiness.start()
    with pytest.raises(Busy, match="starting") as caught:
        readiness.require()
    assert caught.value.retry_after_s == 1
    go.set()
    assert ready.wait(60)
    assert readiness.state == "OK"
    readiness.require()


def test_a_failed_set_up_is_told_to_every_caller() -> None:
    """Not retryable: it would not run again; and it is never announced as ready."""
    failed, ready = threading.Event(), threading.Event()

    def setup() -> None:
        failed.set()
        raise AlgorithmFailed("no model")

    readiness = Readiness(setup, on_ready=ready.set)
    readiness.start()
    assert failed.wait(60)
    while readiness.state == "STARTING":
        pass
    assert readiness.state == "FAILED"
    assert not ready.is_set()
    assert "no model" in readiness.log[-1]
    with pytest.raises(AlgorithmFailed, match="no model") as caught:
        readiness.require()
    assert not caught.value.retryable


def assert_(claim: bool) -> None:
    """Assert inside a lambda."""
    assert claim
