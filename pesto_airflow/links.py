"""A button in the grid that leads to the service that a task called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


@runtime_checkable
class CallsService(Protocol):
    """An operator that knows where its service is."""

    def service_url(self) -> str:
        """Address up to and with `/api/v1`."""


class PestoServiceLink(BaseOperatorLink):
    """Leads to the service's own page, where a call can be tried by hand."""

    @property
    def name(self) -> str:
        """What the button says."""
        return "Service"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # one page for all tries
        """Address of the page; Airflow asks on the worker, when the task ends."""
        if not isinstance(operator, CallsService):
            return ""
        return operator.service_url().removesuffix("/api/v1") + "/docs"
