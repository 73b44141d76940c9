"""Call the part of Airflow's REST API that starting and following a run needs.

It imports no Airflow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from pesto_runtime.errors import InvalidInput, NotFound, RunFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import httpx
    from pydantic import JsonValue

ENDED = frozenset({"success", "failed"})
_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
_POLL_S = 0.25
_PAGE, _TRIES, _TIMEOUT_S, _PAUSE_S = 100, 4, 60.0, 2.0


@dataclass(frozen=True)
class TaskInstanceState:
    """The state of one task of a run.

    Attributes:
        task_id: With its groups.
        map_index: Index of a mapped task; -1 if it is not mapped.
        name: Label of a mapped task in the grid.
        state: Airflow's state; None before it is scheduled.
        tries: Number of tries.
        pid: Process that runs it.
        seconds: Its duration.
    """

    task_id: str
    map_index: int
    name: str
    state: str | None
    tries: int
    pid: int | None
    seconds: float | None


class AirflowApi:
    """A client of an Airflow's REST API v2.

    Args:
        url: URL of its pages.
        token: Bearer token; None to request one, which works if every user is an admin.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token

    def is_healthy(self) -> bool:
        """Return whether all four parts report that they are healthy."""
        import httpx

        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
        except (httpx.TransportError, ValueError):
            return False
        return all(health.get(part, {}).get("status") == "healthy" for part in _PARTS)

    def await_dag(self, dag_id: str, *, timeout_s: float = 60.0) -> None:
        """Wait until Airflow has parsed a DAG's file.

        Raises:
            RunFailed: the import of its file fails; with Airflow's traceback.
            NotFound: the DAG did not appear in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                self._request("GET", f"/dags/{quote(dag_id)}")
            except NotFound:
                self._require_importable(dag_id)
                time.sleep(_POLL_S)
            else:
                return
        raise NotFound(f"{self.url} has no DAG {dag_id!r} after {timeout_s:.0f} s")

    def trigger(self, dag_id: str, conf: Mapping[str, JsonValue] | None = None) -> str:
        """Start a run and return its id.

        Raises:
            InvalidInput: the DAG's params reject the conf.
        """
        self._request("PATCH", f"/dags/{quote(dag_id)}", {"is_paused": False})
        body: dict[str, JsonValue] = {"logical_date": None, "conf": dict(conf or {})}
        return str(self._request("POST", f"/dags/{quote(dag_id)}/dagRuns", body)["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self._request("GET", _run_path(dag_id, run_id))["state"])

    def await_end(self, dag_id: str, run_id: str, *, timeout_s: float = 120.0) -> str:
        """Wait for the end of a run and return its state.

        Raises:
            RunFailed: it has not ended in time; with the states of its tasks.
        """
        deadline = time.monotonic() + timeout_s
        while (state := self.state(dag_id, run_id)) not in ENDED:
            if time.monotonic() > deadline:
                states = [(t.task_id, t.map_index, t.state) for t in self.tasks(dag_id, run_id)]
                raise RunFailed(f"{dag_id} {run_id} has not ended in {timeout_s:.0f} s: {states}")
            time.sleep(_POLL_S)
        return state

    def tasks(self, dag_id: str, run_id: str) -> list[TaskInstanceState]:
        """Return the tasks of a run; each index of a mapped task is one."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances"
        return [_task_state(each) for each in self._pages(path, "task_instances")]

    def mark(
        self, dag_id: str, run_id: str, state: Literal["success", "failed"], *, task: str = ""
    ) -> None:
        """Set the state of a run, or of one task of it; running tasks then stop."""
        if task:
            path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task)}"
            self._request("PATCH", path, {"new_state": state})
        else:
            self._request("PATCH", _run_path(dag_id, run_id), {"state": state})

    def log_entries(
        self, dag_id: str, run_id: str, task: TaskInstanceState
    ) -> Sequence[dict[str, JsonValue]]:
        """Return the log of a task's last try, entry by entry."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task.task_id)}/logs/{task.tries}"
        query = f"map_index={task.map_index}&full_content=true"
        return _objects(self._request("GET", f"{path}?{query}"), "content")

    def reason(self, dag_id: str, run_id: str, task: TaskInstanceState) -> str:
        """Return the error of a task's last try, or an empty text if its log has none."""
        raised = [
            error
            for entry in self.log_entries(dag_id, run_id, task)
            for error in (_objects(entry, "error_detail") if entry.get("error_detail") else ())
        ]
        return str(raised[0].get("exc_value", "")) if raised else ""

    def close(self) -> None:
        """Close its connections."""
        if "_client" in self.__dict__:
            self._client.close()
            del self.__dict__["_client"]

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        token = self._token or httpx.get(f"{self.url}/auth/token").json()["access_token"]
        return httpx.Client(
            base_url=f"{self.url}/api/v2",
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
        )

    def _request(
        self, method: str, path: str, body: Mapping[str, JsonValue] | None = None
    ) -> dict[str, JsonValue]:
        """Send a request; repeat one that a busy Airflow does not answer, unless it is a POST.

        Raises:
            NotFound: there is no such object.
            InvalidInput: Airflow rejected the request.
            Unreachable: there is no response, or the API server fails.
        """
        import httpx

        # A repeated POST would start a second run; a repeated GET or PATCH changes nothing more.
        reply = self._reply(method, path, body, tries=1 if method == "POST" else _TRIES)
        text = f"{method} {self.url}/api/v2{path}: {reply.status_code} {reply.text[:300]}"
        if reply.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(text)
        if reply.is_client_error:
            raise InvalidInput(text)
        if reply.is_error:
            raise Unreachable(text)
        document: dict[str, JsonValue] = reply.json()
        return document

    def _reply(
        self, method: str, path: str, body: Mapping[str, JsonValue] | None, *, tries: int
    ) -> httpx.Response:
        import httpx

        try:
            reply = self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            if tries > 1:
                return self._reply(method, path, body, tries=tries - 1)
            raise Unreachable(f"Airflow at {self.url} is unreachable: {error}") from error
        if reply.is_server_error and tries > 1:  # SQLite is locked while a scheduler writes
            time.sleep(_PAUSE_S)
            return self._reply(method, path, body, tries=tries - 1)
        return reply

    def _pages(self, path: str, key: str) -> Iterator[dict[str, JsonValue]]:
        separator, seen = "&" if "?" in path else "?", 0
        while True:
            page = self._request("GET", f"{path}{separator}limit={_PAGE}&offset={seen}")
            found = _objects(page, key)
            yield from found
            seen += len(found)
            if not found or seen >= int(str(page["total_entries"])):
                return

    def _require_importable(self, dag_id: str) -> None:
        for each in self._pages("/importErrors", "import_errors"):
            if dag_id in str(each["filename"]):
                raise RunFailed(f"Airflow cannot read {each['filename']}:\n{each['stack_trace']}")


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"


def _objects(document: Mapping[str, JsonValue], key: str) -> Sequence[dict[str, JsonValue]]:
    found = document[key]
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _task_state(document: Mapping[str, JsonValue]) -> TaskInstanceState:
    pid, seconds = document.get("pid"), document.get("duration")
    return TaskInstanceState(
        task_id=str(document["task_id"]),
        map_index=int(str(document["map_index"])),
        name=str(document.get("rendered_map_index") or ""),
        state=None if document["state"] is None else str(document["state"]),
        tries=int(str(document["try_number"])),
        pid=None if pid is None else int(str(pid)),
        seconds=None if seconds is None else float(str(seconds)),
    )
