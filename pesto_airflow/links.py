"""Link the tasks of a pipeline to its report, its result and its run store.

Airflow asks for a link on the worker, when the task ends. The report and the result exist once the
run is published.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

from pesto_airflow.connections import RunConnections
from pesto_runtime.errors import PestoError
from pesto_runtime.places import href_of, output_place

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class PestoReportLink(BaseOperatorLink):
    """The page with the pictures of a run."""

    @property
    def name(self) -> str:
        """The text of the button."""
        return "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # one page for all tries
        """Return the href of the file."""
        return _in_folder(operator, "report.html")


class PestoResultLink(BaseOperatorLink):
    """The document of a run: its outputs with their checksums, its inputs, its costs."""

    @property
    def name(self) -> str:
        """The text of the button."""
        return "Result"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # one page for all tries
        """Return the href of the file."""
        return _in_folder(operator, "result.json")


class PestoStoreLink(BaseOperatorLink):
    """The run store, where finished blocks are while a run is not complete."""

    @property
    def name(self) -> str:
        """The text of the button."""
        return "Run store"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # one page for all tries
        """Return its href; empty once the run is complete, and its store deleted."""
        return _of_plan(operator, "store")


class PestoCampaignLink(BaseOperatorLink):
    """The document of a campaign: the status of each scene, its outputs, or why it failed."""

    @property
    def name(self) -> str:
        """The text of the button."""
        return "Campaign"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # one file for all tries
        """Return the href of the file; empty if the campaign was not planned."""
        from pesto_runtime.campaigns import CAMPAIGN, load_campaign

        folder = getattr(operator, "folder", None)
        with suppress(PestoError):
            folder = folder or load_campaign(str(getattr(operator, "campaign", ""))).folder
        return href_of(output_place(str(folder)) / CAMPAIGN) if folder else ""


def _in_folder(operator: BaseOperator, name: str) -> str:
    folder = getattr(operator, "folder", None) or _of_plan(operator, "folder")
    return href_of(output_place(str(folder)) / name) if folder else ""


def _of_plan(operator: BaseOperator, field: str) -> str:
    """Return a field of the plan of a task; empty if it has none, or its run is complete."""
    from pesto_runtime.run.context import load_context

    with suppress(PestoError), getattr(operator, "connections", RunConnections()).stores():
        if href := getattr(operator, "plan_href", None) or getattr(operator, "plan", None):
            return str(getattr(load_context(str(href)).plan, field) or "")
    return ""
