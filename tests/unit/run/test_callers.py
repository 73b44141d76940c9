"""Calls of a run: the least busy replica gets each, and a batch has no more than it may."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import AlgorithmFailed, PestoError, ProcessChanged, Unreachable
from pesto_runtime.run.callers import RequestBatcher, caller_for, close_callers
from pesto_runtime.run.services import resolve_services
from tests.support.fakes import as_npy, fake_service
from tests.support.runs import chain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def test_a_replica_whose_call_failed_is_as_free_as_before(tmp_path: Path) -> None:
    """While one replica is busy, all other calls go to the other, however many of them fail."""
    is_released = threading.Event()

    def answer(image: np.ndarray) -> tuple[int, str, bytes]:
        if image.size == 1:
            return 400, "application/problem+json", b"{}"
        is_released.wait(30)
        return as_npy(image)

    with fake_service(answer) as first, fake_service(answer) as second:
        options = (f"grow={first.url}", f"grow={second.url}")
        found = resolve_services(Pipeline.parse(chain("grow")), base=tmp_path, options=options)
        caller = caller_for(found.services["grow"])
        work = {"image": np.zeros((1, 4, 4), np.uint8)}
        slow = threading.Thread(target=caller.run, args=(work,), kwargs={"tile": None})
        slow.start()
        while not first.calls + second.calls:
            time.sleep(0.01)
        for _ in range(4):
            with pytest.raises(PestoError):
                caller.run({"image": np.zeros((1, 1, 1), np.uint8)}, tile=None)
        calls = sorted((first.calls, second.calls))
        is_released.set()
        slow.join()
        close_callers()
    assert calls == [1, 4]


@pytest.mark.parametrize(
    ("kind", "performed"), [(Unreachable, 1), (ProcessChanged, 1), (AlgorithmFailed, 5)]
)
def test_an_error_of_the_service_is_that_of_each_call_of_a_batch(
    kind: type[PestoError], performed: int
) -> None:
    """No call waits for an absent service again; after another error (control) each is repeated."""
    sizes: list[int] = []

    def fail(calls: Sequence[int]) -> list[int]:
        sizes.append(len(calls))
        raise kind("no")

    batcher = RequestBatcher(fail, most=4)
    start = threading.Barrier(4)

    def call(number: int) -> None:
        start.wait()
        with pytest.raises(kind):
            batcher(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    assert len(sizes) == performed
    assert sizes[0] == 4


def test_a_batch_has_at_most_as_many_calls_as_it_may() -> None:
    """Of 32 calls at once, four share a batch; each receives its own result."""
    sizes: list[int] = []
    start = threading.Barrier(32)

    def doubled(calls: Sequence[int]) -> list[int]:
        sizes.append(len(calls))
        return [2 * each for each in calls]

    batcher = RequestBatcher(doubled, most=4)

    def call(number: int) -> int:
        start.wait()
        return batcher(number)

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(call, range(32))) == [2 * each for each in range(32)]
    assert max(sizes) == 4
