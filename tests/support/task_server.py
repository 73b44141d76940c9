"""A Conductor that hands out the tasks of a test, and records each update of a worker."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from pesto_conductor.errors import DEATHS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    Document = dict[str, JsonValue]


@dataclass(frozen=True)
class Update:
    """One update of a task by a worker.

    Attributes:
        at: When it arrived, as `time.monotonic` counts.
        task: Id of the task.
        status: Of the task.
        is_renewal: Whether it only extends the lease.
        is_accepted: Whether the server accepted it.
    """

    at: float
    task: str
    status: str
    is_renewal: bool
    is_accepted: bool


class TaskServer(ThreadingHTTPServer):
    """The part of Conductor's REST interface that a worker talks to.

    Attributes:
        refusals: How many of the next updates fail.
        refusal: The HTTP status with which they fail.
        updates: Every update, in order of arrival.
        polls: Task type -> number of polls.
        handed_out: Id of a task -> when a worker was given it.
        status: Of all tasks and of the workflow.
        tasks: Tasks of the workflow.
        renewal_s: How long a renewal takes.
        renewals_begun: Number of renewals that have arrived.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refusals = 0
        self.refusal = 503
        self.updates: list[Update] = []
        self.polls: Counter[str] = Counter()
        self.handed_out: dict[str, float] = {}
        self.status = "IN_PROGRESS"
        self.tasks: list[Document] = []
        self.renewal_s = 0.0
        self.renewals_begun = 0
        self._waiting: SimpleQueue[Document] = SimpleQueue()
        self._guard = threading.Lock()

    @property
    def url(self) -> str:
        """Base of the interface."""
        return f"http://127.0.0.1:{self.server_port}/api"

    def put(
        self,
        identity: str,
        given: Mapping[str, JsonValue],
        *,
        response_timeout_s: float = 60,
        deaths: int = 0,
    ) -> None:
        """Let a task wait for a worker."""
        self._waiting.put(
            {
                "taskId": identity,
                "workflowInstanceId": "w",
                "taskType": "pesto_process",
                "inputData": dict(given),
                "responseTimeoutSeconds": response_timeout_s,
                "outputData": {DEATHS: deaths},
            }
        )

    def ended(self, identity: str) -> list[str]:
        """Final statuses of a task that were accepted, one for each report."""
        with self._guard:
            mine = [each for each in self.updates if each.task == identity]
        return [each.status for each in mine if each.is_accepted and not each.is_renewal]

    def next_tasks(self) -> list[Document]:
        """The next task, if one comes within a moment."""
        try:
            task = self._waiting.get(timeout=0.05)
        except Empty:
            return []
        self.handed_out[str(task["taskId"])] = time.monotonic()
        return [task]

    def accept(self, result: Document) -> bool:
        """Record an update; return whether it is accepted."""
        if result.get("extendLease"):
            self.renewals_begun += 1
            time.sleep(self.renewal_s)
        with self._guard:
            is_accepted = not self.refusals
            self.refusals -= not is_accepted
            self.updates.append(
                Update(
                    at=time.monotonic(),
                    task=str(result["taskId"]),
                    status=str(result["status"]),
                    is_renewal=bool(result.get("extendLease")),
                    is_accepted=is_accepted,
                )
            )
        return is_accepted


class _Handler(BaseHTTPRequestHandler):
    server: TaskServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        is_poll = "/tasks/poll/batch/" in self.path
        if is_poll:
            self.server.polls[self.path.partition("/batch/")[2].partition("?")[0]] += 1
        other = {"workflowId": "w", "status": self.server.status, "tasks": self.server.tasks}
        self._send(200, self.server.next_tasks() if is_poll else other)

    def do_PUT(self) -> None:
        self._send(200, None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/log"):
            self._send(200, {})
        elif self.server.accept(json.loads(body)):
            self._send(200, None)
        else:
            self._send(self.server.refusal, {"message": "the database is down"})

    def _send(self, status: int, document: object) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@contextmanager
def task_server() -> Iterator[TaskServer]:
    """Serve while the block runs."""
    server = TaskServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
