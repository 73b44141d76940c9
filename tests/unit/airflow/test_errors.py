"""Every error has an outcome in Airflow, and when a task is tried again follows the error alone."""

from __future__ import annotations

from datetime import timedelta
from traceback import format_exception
from typing import TYPE_CHECKING

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from pesto_airflow.errors import (
    PestoRetryPolicy,
    PestoTaskFailed,
    PestoTryAgain,
    airflow_error,
    native_errors,
)
from pesto_runtime.errors import AlgorithmFailed, Busy, InvalidInput, PestoError, error_from_problem

if TYPE_CHECKING:
    from airflow.sdk import RetryDecision


def kinds(kind: type[PestoError] = PestoError) -> list[type[PestoError]]:
    """The tree of errors."""
    return [kind, *(each for child in kind.__subclasses__() for each in kinds(child))]


def decided(error: BaseException) -> RetryDecision:
    """What the policy makes of an error."""
    return PestoRetryPolicy().evaluate(error, try_number=1, max_tries=3)


@pytest.mark.parametrize("kind", kinds())
def test_every_error_fails_for_good_or_is_tried_again(kind: type[PestoError]) -> None:
    """Where it is retryable, Airflow's own retries count; else none do. A stopped run goes on."""
    found = airflow_error(kind("disk full"))
    may_help = kind.retryable or kind.__name__ == "Interrupted"
    assert isinstance(found, AirflowException)
    assert isinstance(found, AirflowFailException) is not may_help
    assert "disk full" in str(found)
    assert found.problem["status"] == kind.status


def test_what_the_service_says_overrules_the_status() -> None:
    """A 500 that is retryable is tried again, a 503 that is not fails."""
    again = error_from_problem({"detail": "out of memory", "retryable": True}, status=500)
    never = error_from_problem({"detail": "closed", "retryable": False}, status=503)
    assert isinstance(airflow_error(again), PestoTryAgain)
    assert isinstance(airflow_error(never), PestoTaskFailed)


def raised_for(error: PestoError) -> PestoTaskFailed:
    """What a block raises that an error of ours ends."""
    with pytest.raises(PestoTaskFailed) as caught, native_errors():
        raise error from KeyError("inner")
    return caught.value


def test_an_error_of_ours_is_one_line_of_a_log() -> None:
    """All is in its text; no chain of tracebacks is shown of how it came about."""
    text = "".join(format_exception(raised_for(InvalidInput("no such band"))))
    assert text.splitlines()[-1].endswith("Invalid input: no such band")
    assert text.count("Traceback") == 1
    assert "inner" not in text


def test_an_authors_traceback_is_kept() -> None:
    """The control: what an algorithm raised stands in the log, down to the first error."""
    text = "".join(format_exception(raised_for(AlgorithmFailed("cloud_mask raised"))))
    assert text.count("Traceback") == 2
    assert "KeyError: 'inner'" in text


def test_a_task_is_tried_again_when_the_service_said() -> None:
    """The seconds of Retry-After; without them the task's own delay."""
    assert decided(airflow_error(Busy("full", retry_after_s=7))).retry_delay == timedelta(seconds=7)
    without = decided(airflow_error(Busy("full")))
    assert (without.action, without.retry_delay) == (RetryAction.RETRY, None)


def test_errors_of_ours_are_understood_under_any_task() -> None:
    """A plain @task that uses our client fails at once or waits; others' errors are Airflow's."""
    assert decided(InvalidInput("no")).action is RetryAction.FAIL
    assert decided(Busy("full", retry_after_s=7)).retry_delay == timedelta(seconds=7)
    assert decided(KeyError("x")).action is RetryAction.DEFAULT


def test_the_policy_survives_serialisation() -> None:
    """Airflow keeps DAGs as JSON."""
    policy = PestoRetryPolicy.deserialize(PestoRetryPolicy().serialize())
    assert isinstance(policy, PestoRetryPolicy)
