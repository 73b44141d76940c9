"""Replicas that are away when a run is planned, or when a tile is computed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import ProcessChanged, Unreachable
from pesto_runtime.run.callers import Caller, caller_for, close_callers
from pesto_runtime.run.services import Services, resolve_services
from tests.support.deployment import free_port
from tests.support.fakes import FakeService, as_npy, fake_service
from tests.support.runs import chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIXELS = np.ones((1, 4, 4), np.uint8)


@pytest.fixture(autouse=True)
def callers() -> Iterator[None]:
    """No caller of a test is used by the next."""
    yield
    close_callers()


def found_at(folder: Path, *urls: str) -> Services:
    """The services of a pipeline of one process."""
    options = [f"grow={url}" for url in urls]
    return resolve_services(Pipeline.parse(chain("grow")), base=folder, options=options)


def away() -> str:
    """The URL of a replica that refuses connections."""
    return f"http://127.0.0.1:{free_port()}/api/v1"


def stating(fake: FakeService, build: str = "sha256:a") -> str:
    """Have a fake state its code; return its URL."""
    fake.headers = {"X-Pesto-Build": build, "X-Pesto-Digest": "sha256:d"}
    return fake.url


@pytest.mark.parametrize("is_first", [True, False])
def test_a_replica_that_is_away_stays_in_the_plan_with_a_warning(
    tmp_path: Path, is_first: bool
) -> None:
    """Whichever of the list it is; the others are compared as before (control)."""
    missing = away()
    with fake_service(as_npy) as one, fake_service(as_npy) as two:
        present = [stating(one), stating(two)]
        urls = [missing, *present] if is_first else [*present, missing]
        found = found_at(tmp_path, *urls)
        assert found.services["grow"].targets == tuple(urls)
        assert [missing in str(each) for each in found.changed] == [True]
        assert found_at(tmp_path, *present).changed == ()
        stating(two, "sha256:b")
        with pytest.raises(ProcessChanged) as caught:
            found_at(tmp_path, *urls)
    assert all(url in caught.value.detail for url in present)


def test_a_service_is_not_planned_without_any_replica(tmp_path: Path) -> None:
    """The error is retryable: an engine repeats the plan."""
    with pytest.raises(Unreachable) as caught:
        found_at(tmp_path, away(), away())
    assert caught.value.retryable


def test_all_replicas_of_a_service_that_does_not_state_its_code_must_respond(
    tmp_path: Path,
) -> None:
    """Nothing else would compare the one that is away; with both (control) it is planned."""
    with fake_service(as_npy) as one, fake_service(as_npy) as two:
        missing = away()
        with pytest.raises(Unreachable, match=missing):
            found_at(tmp_path, one.url, missing)
        assert not found_at(tmp_path, one.url, two.url).changed


def caller_of(folder: Path, *urls: str, patience_s: float) -> Caller:
    """A caller of replicas, of which some are away."""
    with fake_service(as_npy) as present:
        (service,) = found_at(folder, present.url).services.values()
    return caller_for(service.model_copy(update={"targets": urls}), patience_s=patience_s)


def test_calls_of_a_replica_that_is_away_go_to_the_others(tmp_path: Path) -> None:
    """However long the patience of the run is."""
    with fake_service(as_npy) as present:
        caller = caller_of(tmp_path, away(), present.url, patience_s=3600)
        for _ in range(8):
            outputs = caller.run({"image": PIXELS}, tile=None)
            assert np.array_equal(np.asarray(outputs["image"]), PIXELS)
        assert present.calls == 8


def test_replicas_that_are_all_away_are_tried_for_the_patience(tmp_path: Path) -> None:
    """The error states so; it is not raised before."""
    caller = caller_of(tmp_path, away(), away(), patience_s=2)
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="2 replicas were tried for 2 s"):
        caller.run({"image": PIXELS}, tile=None)
    assert time.monotonic() - begun > 2


def test_processes_of_one_call_at_a_time_use_all_replicas(tmp_path: Path) -> None:
    """Each of them finds all replicas free."""
    with fake_service(as_npy) as one, fake_service(as_npy) as two:
        for _ in range(40):  # all calls at one of them: once in 10^12 runs
            caller = caller_of(tmp_path, one.url, two.url, patience_s=0)
            caller.run({"image": PIXELS}, tile=None)
            close_callers()
        assert one.calls + two.calls == 40
        assert min(one.calls, two.calls) > 0
