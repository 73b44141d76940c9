"""When a task is tried again: as the error says, which is as the service said."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import RetryDecision, RetryPolicy

from pesto_airflow.errors import PestoTryAgain, airflow_error
from pesto_runtime.errors import PestoError

if TYPE_CHECKING:
    from airflow.sdk import Context


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
