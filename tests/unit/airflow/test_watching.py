"""Polling a job: the decision after each response, without a clock, a network or an Airflow."""

from __future__ import annotations

import json

import pytest

from pesto_airflow.triggers import MOST_LOSSES, JobEnd, JobPoller
from pesto_runtime.contract import Job
from pesto_runtime.errors import AlgorithmFailed, Busy, Gone, InvalidInput, NotFound, Unreachable

RUNNING = Job(id="1", state="running")


def test_waits_grow_up_to_the_longest() -> None:
    """The end of a short job is seen at once, and a long job needs few requests."""
    poller = JobPoller(longest_wait_s=5)
    waits = [poller.next_step(RUNNING) for _ in range(30)]
    assert waits[0] == 0.25
    assert waits == sorted(waits)  # type: ignore[type-var]  # numbers: the job runs
    assert waits[-1] == 5


def test_failed_requests_are_tolerated_and_counted_anew_after_a_response() -> None:
    """A restart of the service does no harm; a service that stays unreachable fails the job."""
    poller = JobPoller(longest_wait_s=5)
    for _ in range(2):
        for _ in range(MOST_LOSSES):
            assert not isinstance(poller.next_step(Unreachable("refused")), JobEnd)
        poller.next_step(RUNNING)
    for _ in range(MOST_LOSSES):
        poller.next_step(Unreachable("refused"))
    end = poller.next_step(Unreachable("refused"))
    assert isinstance(end, JobEnd)
    with pytest.raises(Unreachable, match="refused"):
        end.require_success()


def test_retry_after_of_a_busy_service_is_respected() -> None:
    """Retry-After is longer than our own wait."""
    assert JobPoller(longest_wait_s=5).next_step(Busy("full", retry_after_s=17)) == 17


@pytest.mark.parametrize(
    ("response", "fate"),
    [
        (Job(id="1", state="successful"), "successful"),
        (Job(id="1", state="failed", error=AlgorithmFailed("x").to_problem()), "failed"),
        (Job(id="1", state="dismissed", error=Gone("lease").to_problem()), "lost"),
        (NotFound("there is no job 1"), "lost"),
        (InvalidInput("401"), "failed"),
    ],
)
def test_every_end_has_one_meaning(response: Job | InvalidInput, fate: str) -> None:
    """And it survives the JSON of a trigger's event."""
    end = JobPoller(longest_wait_s=5).next_step(response)
    assert isinstance(end, JobEnd)
    assert end.fate == fate
    assert JobEnd.parse(json.loads(json.dumps(end.to_json()))) == end


def test_a_failed_job_raises_its_own_error() -> None:
    """With the `retryable` of the service."""
    problem = {**AlgorithmFailed("division by zero").to_problem(), "retryable": True}
    with pytest.raises(AlgorithmFailed, match="division by zero") as caught:
        JobEnd("failed", problem).require_success()
    assert caught.value.retryable
    JobEnd("successful").require_success()
