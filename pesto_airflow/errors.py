"""Convert errors of this package to Airflow's exceptions, and decide on retries.

The number of retries is a setting of the task, not of this module.
"""

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
    """Raised if a retry cannot help: the task fails, however many retries remain.

    Attributes:
        problem: The error as a problem document.
    """

    def __init__(self, detail: str, *, problem: dict[str, JsonValue] | None = None) -> None:
        super().__init__(detail)
        self.problem = problem or {}


class PestoTryAgain(AirflowException):
    """Raised if a retry may help: the task is retried, if retries remain.

    Attributes:
        problem: The error as a problem document.
        retry_after_s: Seconds of the service's `Retry-After`; None without one.
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
    """Convert an error: `retryable` decides, never the status; an interrupted run is retried."""
    text = f"{error.title}: {error}"
    if error.retryable or isinstance(error, Interrupted):
        return PestoTryAgain(text, problem=error.to_problem(), retry_after_s=error.retry_after_s)
    return PestoTaskFailed(text, problem=error.to_problem())


@contextmanager
def native_errors() -> Iterator[None]:
    """Raise every `PestoError` of the block as an exception of Airflow.

    Raises:
        PestoTaskFailed: the error is not retryable.
        PestoTryAgain: the error is retryable.
    """
    try:
        yield
    except PestoError as error:
        # Only an author's exception has a useful traceback; other errors are one line of the log.
        raise airflow_error(error) from (error if isinstance(error, AlgorithmFailed) else None)


class PestoRetryPolicy(RetryPolicy):
    """Retry as `retryable` and `Retry-After` require; the task's `retries` is the limit.

    The operators of this package use it by default. It also handles a `PestoError` that code under
    `@task` does not catch. Airflow decides on all other exceptions.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  # Airflow's signature, and below
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide whether, and after which delay, a failed task is retried."""
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
        """Return only the class name: the policy has no settings."""
        return {"__type": type(self).__name__}

    @classmethod
    def deserialize(cls, data: dict[str, object]) -> PestoRetryPolicy:  # noqa: ARG003  # no settings
        """Create the policy again."""
        return cls()
