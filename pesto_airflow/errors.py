"""An error of ours as Airflow understands it: fail at once, or try again and when."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from pesto_runtime.errors import AlgorithmFailed, Interrupted, PestoError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Context
    from pydantic import JsonValue


class PestoTaskFailed(AirflowFailException):
    """Asking again cannot help: the task fails, whatever retries it has left.

    Attributes:
        problem: The error as a problem document.
    """

    def __init__(self, detail: str, *, problem: dict[str, JsonValue] | None = None) -> None:
        super().__init__(detail)
        self.problem = problem or {}


class PestoTryAgain(AirflowException):
    """Asking again may help: the task is retried, if it has retries left.

    Attributes:
        problem: The error as a problem document.
        retry_after_s: Seconds that the service asked to be left alone; None where it did not say.
    """

    def __init__(
        self,
        detail: str,
        *,
        problem: dict[str, JsonValue] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = problem or {}
        self.retry_after_s = retry_after_s


def airflow_error(error: PestoError) -> PestoTaskFailed | PestoTryAgain:
    """What a task raises for an error of ours.

    `retryable` decides, never the status. A run that somebody interrupted is one to go on with.
    """
    told = f"{error.title}: {error}"
    if error.retryable or isinstance(error, Interrupted):
        return PestoTryAgain(told, problem=error.to_problem(), retry_after_s=error.retry_after_s)
    return PestoTaskFailed(told, problem=error.to_problem())


@contextmanager
def native_errors() -> Iterator[None]:
    """Raise errors of ours in the block as Airflow's.

    Ours are told in one line. Only behind an author's code there is a traceback worth reading.

    Raises:
        PestoTaskFailed: of an error that is not retryable.
        PestoTryAgain: of one that is.
    """
    try:
        yield
    except PestoError as error:
        raise airflow_error(error) from _worth_reading(error)


def _worth_reading(error: PestoError) -> PestoError | None:
    return error if isinstance(error, AlgorithmFailed) else None


class PestoRetryPolicy(RetryPolicy):
    """Follow `retryable` and `Retry-After`; how often is the task's `retries`.

    The operators of this package have it already. It also understands errors of ours that code
    under `@task` lets through. All else is left to Airflow.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  # how often is not ours to say
        max_tries: int,  # noqa: ARG002  # nor this
        context: Context | None = None,  # noqa: ARG002  # nothing of the task matters
    ) -> RetryDecision:
        """Decide on one failure."""
        if isinstance(exception, PestoError):
            exception = airflow_error(exception)
            if not isinstance(exception, PestoTryAgain):
                return RetryDecision.fail(str(exception))
        if not isinstance(exception, PestoTryAgain):
            return RetryDecision.default()
        if exception.retry_after_s is None:
            return RetryDecision.retry(reason=str(exception))
        reason = f"Retry-After {exception.retry_after_s:g} s: {exception}"
        return RetryDecision.retry(timedelta(seconds=exception.retry_after_s), reason)

    def serialize(self) -> dict[str, object]:
        """Nothing but its name: it has no settings."""
        return {"__type": type(self).__name__}

    @classmethod
    def deserialize(cls, data: dict[str, object]) -> PestoRetryPolicy:  # noqa: ARG003  # no settings
        """Make it anew."""
        return cls()
