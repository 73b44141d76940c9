"""Calls that are cancelled while the client waits for their response."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.client.transport import cancelled_when, pause
from pesto_runtime.errors import Interrupted
from tests.support.fakes import as_npy, fake_service

IMAGE = {"image": np.zeros((1, 8, 8), np.uint8)}


class Service:
    """Responds at once, or only after `go` is set."""

    def __init__(self) -> None:
        self.is_slow = False
        self.go = threading.Event()

    def respond(self, pixels: np.ndarray) -> tuple[int, str, bytes]:
        """Return the same pixels."""
        if self.is_slow:
            self.go.wait(100)
        return as_npy(pixels)


def test_an_unwanted_call_ends_at_once_and_the_client_stays_usable() -> None:
    """On a connection that earlier calls used; the next call opens another."""
    service, unwanted = Service(), threading.Event()
    with fake_service(service.respond) as fake, Client(fake.url) as client:
        client.process(IMAGE)
        service.is_slow = True
        threading.Timer(0.3, unwanted.set).start()
        begun = time.monotonic()
        with pytest.raises(Interrupted, match="cancelled"), cancelled_when(unwanted.is_set):
            client.process(IMAGE)
        assert time.monotonic() - begun < 60
        service.is_slow = False
        service.go.set()
        assert client.process(IMAGE)


def test_only_the_calls_of_its_own_context_are_cancelled() -> None:
    """Two threads share a client; the check of one is not that of the other."""
    service, unwanted = Service(), threading.Event()
    service.is_slow = True
    with (
        fake_service(service.respond) as fake,
        Client(fake.url) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        with cancelled_when(unwanted.is_set):
            cancelled = pool.submit(copy_context().run, client.process, IMAGE)
        other = pool.submit(client.process, IMAGE)
        unwanted.set()
        with pytest.raises(Interrupted):
            cancelled.result(timeout=60)
        assert not other.done()
        service.go.set()
        assert other.result(timeout=60)


def test_a_wanted_call_receives_its_late_response() -> None:
    """No byte is lost if the response takes longer than the interval of the checks."""
    service = Service()
    service.is_slow = True
    with fake_service(service.respond) as fake, Client(fake.url) as client:
        threading.Timer(0.7, service.go.set).start()
        with cancelled_when(lambda: False):
            assert client.process(IMAGE)


def test_waiting_for_a_busy_service_is_cancelled_too() -> None:
    """A Retry-After may be long."""
    with pytest.raises(Interrupted), cancelled_when(lambda: True):
        pause(20)
