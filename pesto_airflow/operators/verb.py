"""What the operators of a run share: how errors end a task, and how often it is tried.

An operator is one verb of `pesto_runtime.activities` with Airflow's words for its arguments. It
holds no arithmetic. Every verb may be called twice, so every task may be tried, cleared or killed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import BaseOperator

from pesto_airflow.errors import native_errors
from pesto_airflow.retry import PestoRetryPolicy

if TYPE_CHECKING:
    from airflow.sdk import Context, RetryPolicy
    from pydantic import JsonValue

RETRIES = 2
RETRY_DELAY = timedelta(seconds=10)
POLICY = PestoRetryPolicy()


class RunOperator(BaseOperator):
    """Performs a verb; its errors become Airflow's, and its policy follows what they say.

    Args:
        retries: Tries after the first, where an error says that asking again can help.
        retry_policy: Decides on each failure.
        retry_delay: Until the next try, where neither the error nor a service says.
        kwargs: Any operator's.
    """

    def __init__(
        self,
        *,
        retries: int = RETRIES,
        retry_policy: RetryPolicy | None = POLICY,
        retry_delay: timedelta = RETRY_DELAY,
        **kwargs: object,
    ) -> None:
        super().__init__(
            retries=retries,
            retry_policy=retry_policy,
            retry_delay=retry_delay,
            **kwargs,  # type: ignore[arg-type]  # Airflow checks them
        )

    def execute(self, context: Context) -> JsonValue:
        """Perform the verb.

        Raises:
            PestoTaskFailed: asking again cannot help.
            PestoTryAgain: it can.
        """
        with native_errors():
            return self.perform(context)

    def perform(self, context: Context) -> JsonValue:
        """Perform the verb; answers what other tasks are told, small.

        Raises:
            PestoError: it failed.
        """
        raise NotImplementedError
