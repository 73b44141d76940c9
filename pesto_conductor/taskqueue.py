"""The worker's side of Conductor's task API, by conductor-python: poll, report, renew, log.

The SDK's clients are untyped, and its models stop here.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conductor.client.configuration.configuration import Configuration
from conductor.client.http.api.async_task_resource_api import AsyncTaskResourceApi
from conductor.client.http.async_api_client import AsyncApiClient
from conductor.client.http.async_rest import ApiException
from conductor.client.http.models.task_exec_log import TaskExecLog
from conductor.client.http.models.task_result import TaskResult

from pesto_runtime.errors import InvalidInput, NotFound, PestoError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from conductor.client.http.models.task import Task
    from pydantic import JsonValue

    from pesto_conductor.errors import Report

_LONG_POLL_MS = 100
_TIMEOUTS_S = (3, 30)
_OVER = frozenset({"CANCELED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "COMPLETED", "TIMED_OUT",
                   "COMPLETED_WITH_ERRORS", "SKIPPED"})  # fmt: skip


@dataclass(frozen=True)
class Assignment:
    """A task, as a worker takes it.

    Attributes:
        identity: Its id.
        type: Its type.
        workflow: Id of its workflow.
        input: What it is asked for.
        response_timeout_s: Longest silence before another worker is given it.
    """

    identity: str
    type: str
    workflow: str
    input: Mapping[str, JsonValue]
    response_timeout_s: float


class TaskQueue:
    """A Conductor, from one event loop; credentials as the SDK takes them from the environment."""

    def __init__(self, url: str, *, domain: str | None = None) -> None:
        """Name a server; nothing is sent yet.

        Args:
            url: Base of its REST interface: `http://HOST:PORT/api`.
            domain: Task domain to poll in.
        """
        self.url = url
        self.worker = f"{socket.gethostname()}-{os.getpid()}"
        self._domain = {"domain": domain} if domain else {}
        self._client = AsyncApiClient(configuration=Configuration(server_api_url=url))
        self._tasks = AsyncTaskResourceApi(api_client=self._client)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def poll(self, task_type: str, count: int) -> list[Assignment]:
        """Take up to so many tasks of a type.

        Raises:
            Unreachable: no answer, or the server is in trouble.
            InvalidInput: it refuses: credentials, most often.
        """
        found = await _asked(
            self._tasks.batch_poll(
                task_type, workerid=self.worker, count=count, timeout=_LONG_POLL_MS,
                _request_timeout=_TIMEOUTS_S, **self._domain,
            )
        )  # fmt: skip
        tasks = found if isinstance(found, list) else []
        return [_assignment(task) for task in tasks if task.task_id]

    async def report(
        self, assignment: Assignment, report: Report, *, and_next: bool
    ) -> Assignment | None:
        """Tell what came of a task; answers the next of its type, if wanted and there is one.

        Raises:
            Unreachable: no answer, or the server is in trouble.
            InvalidInput: it refuses what it is told.
        """
        result = self._result(assignment, report)
        tell = self._tasks.update_task_v2 if and_next else self._tasks.update_task
        answer = await _asked(tell(body=result, _request_timeout=_TIMEOUTS_S))
        return _assignment(answer) if and_next and answer is not None else None

    async def renew(self, assignment: Assignment) -> None:
        """Say that the task is still in hand; raises as `report`."""
        result = TaskResult(
            task_id=assignment.identity,
            workflow_instance_id=assignment.workflow,
            worker_id=self.worker,
            status="IN_PROGRESS",
            extend_lease=True,
        )
        await _asked(self._tasks.update_task(body=result, _request_timeout=_TIMEOUTS_S))

    async def is_wanted(self, assignment: Assignment) -> bool:
        """Whether anybody still waits for the task; raises as `poll`."""
        try:
            found = await self._call("GET", assignment, "")
        except NotFound:
            return False
        return not isinstance(found, dict) or found.get("status") not in _OVER

    async def log(self, assignment: Assignment, line: str) -> None:
        """Write a line to the log of a task; raises as `poll`."""
        await self._call("POST", assignment, "/log", body=line)

    async def _call(
        self, method: str, assignment: Assignment, path: str, *, body: str | None = None
    ) -> object:
        return await _asked(
            self._client.call_api(
                f"/tasks/{{id}}{path}", method, {"id": assignment.identity}, [],
                {"Accept": "*/*", "Content-Type": "application/json"}, body=body,
                response_type="object" if method == "GET" else None, auth_settings=[],
                _return_http_data_only=True, _request_timeout=_TIMEOUTS_S,
            )
        )  # fmt: skip

    def _result(self, assignment: Assignment, report: Report) -> TaskResult:
        now = int(time.time() * 1000)
        return TaskResult(
            task_id=assignment.identity,
            workflow_instance_id=assignment.workflow,
            worker_id=self.worker,
            status=report.status,
            output_data=dict(report.output),
            reason_for_incompletion=report.reason or None,
            callback_after_seconds=report.again_after_s,
            logs=[TaskExecLog(line, assignment.identity, now) for line in report.lines],
        )


def _assignment(task: Task) -> Assignment:
    return Assignment(
        identity=task.task_id,
        type=task.task_def_name or task.task_type,
        workflow=task.workflow_instance_id,
        input=dict(task.input_data or {}),
        response_timeout_s=float(task.response_timeout_seconds or 0),
    )


async def _asked(answer: Awaitable[object]) -> object:
    """Await an answer of the SDK, its errors turned into ours."""
    try:
        return await answer
    except ApiException as error:
        raise _task_refusal(error) from error


def _task_refusal(error: ApiException) -> PestoError:
    told = f"Conductor answered HTTP {error.status}: {str(error.body or error.reason)[:200]}"
    if error.status == 404:
        return NotFound(told)
    is_refusal = error.status is not None and 400 <= error.status < 500 and error.status != 429
    return InvalidInput(told) if is_refusal else Unreachable(told)
