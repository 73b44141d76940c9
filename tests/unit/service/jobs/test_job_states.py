"""What becomes of a job, whatever happens to it in whatever order."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.service.jobs.states import (
    MOST_CRASHES,
    Deleted,
    Dismissed,
    Event,
    Expired,
    Failed,
    Progressed,
    Record,
    Result,
    ServiceStopped,
    Started,
    Succeeded,
    advance,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

NEW = Record(id="a", digest="d", created=0.0, key="k")
RESULTS = (Result("mask", "mask", "image/tiff"), Result("cover", "cover", "application/json"))
DONE = Succeeded(2.0, RESULTS, "application/json")
LASTING: dict[str, JsonValue] = {"detail": "no", "status": 500, "retryable": False}
PASSING: dict[str, JsonValue] = {"detail": "full", "status": 503, "retryable": True}

moments = st.floats(0, 100)
events = st.one_of(
    st.builds(Started, moments),
    st.builds(Progressed, st.floats(-10, 200)),
    st.builds(Succeeded, moments, st.just(RESULTS), st.just("application/json")),
    st.builds(Failed, moments, st.sampled_from([LASTING, PASSING])),
    st.builds(Dismissed, moments, st.just("why")),
    st.builds(ServiceStopped, moments, st.sampled_from(["again", "fail"]), st.booleans()),
    st.builds(Deleted, st.sampled_from(["mask", "cover", "other"])),
    st.just(Expired()),
)


def played(sequence: list[Event], record: Record = NEW) -> list[Record]:
    """The job after each event, the first one included."""
    records = [record]
    for event in sequence:
        records.append(advance(records[-1], event, 60.0))
    return records


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.lists(events, max_size=30))
def test_a_job_that_is_over_stays_as_it_ended(sequence: list[Event]) -> None:
    """It never runs again; only dismissal changes its state, and nothing changes that."""
    for before, after in pairwise(played(sequence)):
        if before.is_over:
            assert after.state in (before.state, "dismissed")
            assert (after.finished, after.progress) == (before.finished, before.progress)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.lists(events, max_size=30))
def test_a_job_never_contradicts_itself(sequence: list[Event]) -> None:
    """Times, progress, files and key fit the state, after any events in any order."""
    for before, job in pairwise(played(sequence)):
        assert (job.finished is not None) == (job.expires is not None) == job.is_over
        assert 0 <= job.progress <= 100
        assert job.progress >= before.progress or job.state != before.state
        assert job.crashes <= MOST_CRASHES
        assert job.is_kept or (job.is_over and not job.results)
        assert not job.results or job.state == "successful"
        assert not job.holds_key or (job.is_kept and job.state != "dismissed")
        assert (job.error is not None) == (job.state in ("failed", "dismissed"))


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.lists(events, max_size=30))
def test_a_key_that_is_let_go_never_stands_for_the_job_again(sequence: list[Event]) -> None:
    """Or two jobs of one key could run at once: the new one, and this one."""
    held = [job.holds_key for job in played(sequence)]
    assert held == sorted(held, reverse=True)


def test_these_properties_are_not_empty() -> None:
    """The control: events do lead to each state, and to a second run."""
    states = [
        job.state for job in played([Started(1), ServiceStopped(2, "again", True), Started(3)])
    ]
    assert states == ["accepted", "running", "accepted", "running"]
    assert played([Started(1), DONE])[-1].results == RESULTS
    assert played([Started(1), Failed(2, LASTING)])[-1].state == "failed"
    assert played([Dismissed(1, "why")])[-1].state == "dismissed"


@pytest.mark.parametrize(
    ("sequence", "is_held"),
    [
        ([], True),
        ([Started(1)], True),
        ([Started(1), DONE], True),
        ([Started(1), Failed(2, LASTING)], True),
        ([Started(1), Failed(2, PASSING)], False),
        ([Started(1), DONE, Expired()], False),
        ([Dismissed(1, "why")], False),
        ([Started(1), ServiceStopped(2, "fail", True)], False),
    ],
)
def test_a_key_stands_for_a_job_until_asking_again_may_help(
    sequence: list[Event], is_held: bool
) -> None:
    """An answer and a lasting failure are given again; a passing one, or nothing, is not."""
    assert played(sequence)[-1].holds_key is is_held


def test_a_job_that_kills_the_service_is_given_up() -> None:
    """Else it would kill it forever; a service that is stopped gently does not count."""
    gentle = played([Started(1), ServiceStopped(2, "again", False)] * 10)[-1]
    assert (gentle.state, gentle.crashes) == ("accepted", 0)
    deadly = played([Started(1), ServiceStopped(2, "again", True)] * 10)[-1]
    assert (deadly.state, deadly.crashes) == ("failed", MOST_CRASHES)
    assert deadly.error is not None
    assert (deadly.error["retryable"], deadly.holds_key) == (False, True)


def test_a_deleted_result_leaves_the_job_done() -> None:
    """PESTO 1.7.2 says RUNNING of a job whose last result is deleted."""
    job = played([Started(1), DONE, Deleted("mask"), Deleted("cover")])[-1]
    assert job.state == "successful"
    assert [each.is_deleted for each in job.results] == [True, True]


def test_results_have_their_time_from_the_end_of_the_job() -> None:
    """Not from when it came: a job that waits for a day keeps its results as long."""
    assert played([Started(1), DONE])[-1].expires == DONE.at + 60.0
