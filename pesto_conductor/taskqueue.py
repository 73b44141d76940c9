"""Send the requests of a worker to Conductor's task API: poll, report, renew the lease, log.

The SDK's async client sends them. It is untyped: no model of it leaves this file.
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
from conductor.client.http.async_rest import ApiException, AsyncRESTClientObject
from conductor.client.http.models.task_exec_log import TaskExecLog
from conductor.client.http.models.task_result import TaskResult

from pesto_conductor.connection import (
    async_connection_pool,
    authorization,
    connection_error,
    plain_url,
    refusal,
)
from pesto_conductor.errors import DEATHS
from pesto_runtime.errors import InvalidInput, NotFound, PestoError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from conductor.client.http.models.task import Task
    from pydantic import JsonValue

    from pesto_conductor.errors import Report

_TIMEOUTS_S = (3, 30)  # to connect, to read
_ENDED = frozenset({"CANCELED", "FAILED", "FAILED_WITH_TERMINAL_ERROR", "COMPLETED", "TIMED_OUT",
                    "COMPLETED_WITH_ERRORS", "SKIPPED"})  # fmt: skip


@dataclass(frozen=True)
class Assignment:
    """A task that the server has assigned to this worker.

    Attributes:
        identity: Its id.
        type: Its type.
        workflow: Id of its workflow.
        input: Its input.
        response_timeout_s: Longest time without an update before the server assigns it again.
        deaths: Worker processes that have died while they had it.
        attempt: Number of the attempt; 0 for the first.
        domain: Its task domain; empty for none.
    """

    identity: str
    type: str
    workflow: str
    input: Mapping[str, JsonValue]
    response_timeout_s: float
    deaths: int = 0
    attempt: int = 0
    domain: str = ""


class TaskQueue:
    """The tasks of a Conductor server, used from one event loop.

    Attributes:
        url: Base of its REST interface, with the user if it has one.
        worker: Identity of this worker: host and process.
    """

    def __init__(self, url: str) -> None:
        """Prepare requests; nothing is sent yet.

        The SDK reads `CONDUCTOR_AUTH_KEY` and `CONDUCTOR_AUTH_SECRET`.

        Args:
            url: Base of its REST interface: `http://HOST:PORT/api`.
        """
        self.url = url
        self.worker = f"{socket.gethostname()}-{os.getpid()}"
        self._plain = plain_url(url)
        user = authorization(url)
        self._client = AsyncApiClient(
            Configuration(server_api_url=self._plain), "Authorization" if user else None, user
        )
        self._http = async_connection_pool(self._plain)
        self._client.async_rest_client = AsyncRESTClientObject(self._http)
        self._tasks = AsyncTaskResourceApi(api_client=self._client)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def poll(
        self, task_type: str, count: int, *, wait_s: float = 0.1, domain: str | None = None
    ) -> list[Assignment]:
        """Take up to `count` tasks of a type.

        The server waits until there are as many, or for `wait_s`.

        Raises:
            Unreachable: the server does not respond, or returns HTTP 429 or 5xx.
            InvalidInput: it rejects the request, most often for its credentials.
        """
        chosen = {"domain": domain} if domain else {}
        found = await self._translated(
            self._tasks.batch_poll(
                task_type, workerid=self.worker, count=count, timeout=int(1000 * wait_s),
                _request_timeout=_TIMEOUTS_S, **chosen,
            )
        )  # fmt: skip
        tasks = found if isinstance(found, list) else []
        return [_assignment(task) for task in tasks if task.task_id]

    async def report(
        self, assignment: Assignment, report: Report, *, and_next: bool
    ) -> Assignment | None:
        """Report the end of an attempt; return the next task of the type.

        Args:
            assignment: The task.
            report: The end of the attempt.
            and_next: Whether to take the next task with the same request; saves a poll.

        Raises:
            Unreachable: the server does not respond, or returns HTTP 429 or 5xx.
            InvalidInput: it rejects the report, for example because the output is too large.
        """
        result = self._result(assignment, report)
        update = self._tasks.update_task_v2 if and_next else self._tasks.update_task
        task = await self._translated(update(body=result, _request_timeout=_TIMEOUTS_S))
        return _assignment(task) if and_next and task is not None else None

    async def renew(self, assignment: Assignment) -> None:
        """Extend the lease of the task; raises the errors of `report`."""
        result = TaskResult(
            task_id=assignment.identity,
            workflow_instance_id=assignment.workflow,
            worker_id=self.worker,
            status="IN_PROGRESS",
            extend_lease=True,
        )
        await self._translated(self._tasks.update_task(body=result, _request_timeout=_TIMEOUTS_S))

    async def is_wanted(self, assignment: Assignment) -> bool:
        """Whether the server still waits for the task; raises the errors of `poll`."""
        try:
            found = await self._request("GET", assignment, "")
        except NotFound:
            return False
        return not isinstance(found, dict) or found.get("status") not in _ENDED

    async def is_superseded(self, assignment: Assignment) -> bool:
        """Whether a later attempt at the task exists; raises the errors of `poll`."""
        tasks = (await self.workflow(assignment.workflow, tasks=True)).get("tasks")
        listed = [
            each for each in (tasks if isinstance(tasks, list) else []) if isinstance(each, dict)
        ]
        own = [each for each in listed if each.get("taskId") == assignment.identity]
        return any(
            each.get("referenceTaskName") == mine.get("referenceTaskName")
            and _attempt(each) > _attempt(mine)
            for mine in own
            for each in listed
        )

    async def log(self, assignment: Assignment, line: str) -> None:
        """Write a line to the log of a task; raises the errors of `poll`."""
        await self._request("POST", assignment, "/log", body=line)

    async def decide(self, workflow: str) -> bool:
        """Have the server schedule the next tasks of a workflow; return whether it still runs.

        Raises the errors of `poll`.
        """
        found = await self.workflow(workflow, tasks=False)
        if found.get("status") != "RUNNING":
            return False
        await self._send("PUT", "/workflow/decide/{id}", workflow)
        return True

    async def workflow(self, identity: str, *, tasks: bool) -> Mapping[str, JsonValue]:
        """Return a workflow, empty if it does not exist; raises the errors of `poll`."""
        try:
            found = await self._send(
                "GET", "/workflow/{id}", identity, query={"includeTasks": str(tasks).lower()}
            )
        except NotFound:
            return {}
        return found if isinstance(found, dict) else {}

    async def assigned(self, workflow: str, worker: str) -> list[Assignment]:
        """Return the running tasks of a workflow that a worker has; raises the errors of `poll`."""
        tasks = (await self.workflow(workflow, tasks=True)).get("tasks")
        running = [
            each for each in (tasks if isinstance(tasks, list) else [])
            if isinstance(each, dict)
            and (each.get("status"), each.get("workerId")) == ("IN_PROGRESS", worker)
        ]  # fmt: skip
        return [
            Assignment(
                str(each.get("taskId")), str(each.get("taskDefName")), workflow, {}, 0.0,
                _deaths(each.get("outputData")),
            )
            for each in running
        ]  # fmt: skip

    async def task_definitions(self) -> list[Mapping[str, JsonValue]]:
        """Return all registered task definitions; raises the errors of `poll`."""
        found = await self._send("GET", "/metadata/taskdefs", "")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    async def _request(
        self, method: str, assignment: Assignment, path: str, *, body: str | None = None
    ) -> object:
        return await self._send(method, f"/tasks/{{id}}{path}", assignment.identity, body=body)

    async def _send(
        self,
        method: str,
        path: str,
        identity: str,
        *,
        body: str | None = None,
        query: Mapping[str, str] | None = None,
    ) -> object:
        """Send a request for which the SDK's task API has no method, or one with another body."""
        return await self._translated(
            self._client.call_api(
                path, method, {"id": identity}, list((query or {}).items()),
                {"Accept": "*/*", "Content-Type": "application/json"}, body=body,
                response_type="object" if method == "GET" else None, auth_settings=[],
                _return_http_data_only=True, _request_timeout=_TIMEOUTS_S,
            )
        )  # fmt: skip

    async def _translated(self, response: Awaitable[object]) -> object:
        """Await a response of the SDK, and convert its errors."""
        try:
            return await response
        except ApiException as error:
            raise _error_of(error, self._plain) from error

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


def host_of(worker: str) -> str:
    """Return the host of a worker's identity.

    >>> host_of("node-7-4711")
    'node-7'
    """
    return worker.rpartition("-")[0]


def _assignment(task: Task) -> Assignment:
    return Assignment(
        identity=task.task_id,
        type=task.task_def_name or task.task_type,
        workflow=task.workflow_instance_id,
        input=dict(task.input_data or {}),
        response_timeout_s=float(task.response_timeout_seconds or 0),
        deaths=_deaths(task.output_data),
        attempt=task.retry_count or 0,
        domain=task.domain or "",
    )


def _attempt(task: Mapping[str, JsonValue]) -> int:
    count = task.get("retryCount")
    return count if isinstance(count, int) else 0


def _deaths(output: object) -> int:
    count = output.get(DEATHS) if isinstance(output, dict) else None
    return count if isinstance(count, int) else 0


def _error_of(error: ApiException, url: str) -> PestoError:
    if not error.status:
        return connection_error(url, str(error.reason))
    message = f"Conductor returned HTTP {error.status}: {str(error.body or error.reason)[:200]}"
    if error.status in (401, 403):
        return refusal(url, error.status, message)
    if error.status == 404:
        return NotFound(message)
    is_rejection = 400 <= error.status < 500 and error.status != 429
    return InvalidInput(message) if is_rejection else Unreachable(message)
