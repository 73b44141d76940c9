"""Calls that are given up while their answer is waited for."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.client.transport import given_up_when, pause
from pesto_runtime.errors import Interrupted
from tests.support.fakes import as_npy, fake_service

IMAGE = {"image": np.zeros((1, 8, 8), np.uint8)}


class Service:
    """Answers at once, or only when it is let go."""

    def __init__(self) -> None:
        self.is_slow = False
        self.go = threading.Event()

    def answer(self, pixels: np.ndarray) -> tuple[int, str, bytes]:
        """Give the pixels back."""
        if self.is_slow:
            self.go.wait(20)
        return as_npy(pixels)


def test_a_call_that_nobody_wants_ends_at_once_and_the_client_lives_on() -> None:
    """On a connection that earlier calls used; the next call opens another."""
    service, unwanted = Service(), threading.Event()
    with fake_service(service.answer) as fake, Client(fake.url) as client:
        client.process(IMAGE)
        service.is_slow = True
        threading.Timer(0.3, unwanted.set).start()
        begun = time.monotonic()
        with pytest.raises(Interrupted, match="given up"), given_up_when(unwanted.is_set):
            client.process(IMAGE)
        assert time.monotonic() - begun < 2
        service.is_slow = False
        service.go.set()
        assert client.process(IMAGE)


def test_only_the_calls_of_its_own_context_are_given_up() -> None:
    """Two threads share a client; the question of one is not that of the other."""
    service, unwanted = Service(), threading.Event()
    service.is_slow = True
    with (
        fake_service(service.answer) as fake,
        Client(fake.url) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        with given_up_when(unwanted.is_set):
            lost = pool.submit(copy_context().run, client.process, IMAGE)
        kept = pool.submit(client.process, IMAGE)
        unwanted.set()
        with pytest.raises(Interrupted):
            lost.result(timeout=5)
        assert not kept.done()
        service.go.set()
        assert kept.result(timeout=5)


def test_a_call_that_is_wanted_gets_its_late_answer() -> None:
    """Looking up now and then loses nothing of an answer that takes longer than a look."""
    service = Service()
    service.is_slow = True
    with fake_service(service.answer) as fake, Client(fake.url) as client:
        threading.Timer(0.7, service.go.set).start()
        with given_up_when(lambda: False):
            assert client.process(IMAGE)


def test_waiting_for_a_busy_service_is_given_up_as_well() -> None:
    """A Retry-After may be long."""
    with pytest.raises(Interrupted), given_up_when(lambda: True):
        pause(20)
