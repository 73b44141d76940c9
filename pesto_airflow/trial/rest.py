"""The part of Airflow's REST API that starting and following a run needs; imports no Airflow."""

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

_POLL_S = 0.25
_PAGE, _TRIES, _TIMEOUT_S = 100, 3, 60.0
_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
ENDED = frozenset({"success", "failed"})


@dataclass(frozen=True)
class TaskInstanceState:
    """A task of a run.

    Attributes:
        task_id: With its groups.
        map_index: Which of a mapped task; -1 where it is none.
        name: What the grid shows of a mapped one.
        state: As Airflow has it; None before it is scheduled.
        tries: How often it was begun.
        pid: Of the process that runs it.
        seconds: That it took.
    """

    task_id: str
    map_index: int
    name: str
    state: str | None
    tries: int
    pid: int | None
    seconds: float | None


class AirflowApi:
    """An Airflow, over its REST API v2.

    Args:
        url: Where its pages are.
        token: Bearer token; None to ask for one, which an Airflow of all admins gives.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token

    def is_healthy(self) -> bool:
        """Whether all four parts say so."""
        import httpx

        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
        except (httpx.TransportError, ValueError):
            return False
        return all(health.get(part, {}).get("status") == "healthy" for part in _PARTS)

    def await_dag(self, dag_id: str, *, timeout_s: float = 60.0) -> None:
        """Wait until a DAG's file was read.

        Raises:
            RunFailed: its file does not import; with what Airflow says.
            NotFound: it did not come.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                self._ask("GET", f"/dags/{quote(dag_id)}")
            except NotFound:
                self._refuse_broken(dag_id)
                time.sleep(_POLL_S)
            else:
                return
        raise NotFound(f"{self.url} has no DAG {dag_id!r} after {timeout_s:.0f} s")

    def trigger(self, dag_id: str, conf: Mapping[str, JsonValue] | None = None) -> str:
        """Begin a run; answers its id.

        Raises:
            InvalidInput: the DAG's params refuse the conf.
        """
        self._ask("PATCH", f"/dags/{quote(dag_id)}", {"is_paused": False})
        body: dict[str, JsonValue] = {"logical_date": None, "conf": dict(conf or {})}
        return str(self._ask("POST", f"/dags/{quote(dag_id)}/dagRuns", body)["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        """State of a run."""
        return str(self._ask("GET", _run(dag_id, run_id))["state"])

    def await_end(self, dag_id: str, run_id: str, *, timeout_s: float = 120.0) -> str:
        """Wait for a run to end; answers its state.

        Raises:
            RunFailed: it has not ended in this time; says where it stands.
        """
        deadline = time.monotonic() + timeout_s
        while (state := self.state(dag_id, run_id)) not in ENDED:
            if time.monotonic() > deadline:
                stand = [(t.task_id, t.map_index, t.state) for t in self.tasks(dag_id, run_id)]
                raise RunFailed(f"{dag_id} {run_id} has not ended in {timeout_s:.0f} s: {stand}")
            time.sleep(_POLL_S)
        return state

    def tasks(self, dag_id: str, run_id: str) -> list[TaskInstanceState]:
        """Every task of a run, mapped ones one by one."""
        path = f"{_run(dag_id, run_id)}/taskInstances"
        return [_task(each) for each in self._pages(path, "task_instances")]

    def runs(self, dag_id: str) -> list[str]:
        """Ids of a DAG's runs."""
        path = f"/dags/{quote(dag_id)}/dagRuns"
        return [str(each["dag_run_id"]) for each in self._pages(path, "dag_runs")]

    def tell_asset(self, name: str, extra: Mapping[str, JsonValue]) -> None:
        """Say that something new is in an Asset; what waits for it begins.

        Raises:
            NotFound: no DAG knows the Asset.
        """
        known = self._pages(f"/assets?name_pattern={quote(name)}", "assets")
        ids = [each["id"] for each in known if each["name"] == name]
        if not ids:
            raise NotFound(f"{self.url} has no Asset {name!r}")
        self._ask("POST", "/assets/events", {"asset_id": ids[0], "extra": dict(extra)})

    def clear_failed(self, dag_id: str, run_id: str) -> list[tuple[str, int]]:
        """Have failed tasks run again; answers (task, map index) of what was cleared."""
        body: dict[str, JsonValue] = {
            "dry_run": False,
            "only_failed": True,
            "dag_run_id": run_id,
            "reset_dag_runs": True,
        }
        answer = self._ask("POST", f"/dags/{quote(dag_id)}/clearTaskInstances", body)
        return [(t.task_id, t.map_index) for t in map(_task, _list(answer, "task_instances"))]

    def mark(
        self, dag_id: str, run_id: str, state: Literal["success", "failed"], *, task: str = ""
    ) -> None:
        """Mark a run, or one task of it; what runs is told to stop."""
        if task:
            path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task)}"
            self._ask("PATCH", path, {"new_state": state})
        else:
            self._ask("PATCH", _run(dag_id, run_id), {"state": state})

    def log(self, dag_id: str, run_id: str, task: TaskInstanceState) -> str:
        """Log of the last try of a task, as text."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task.task_id)}/logs/{task.tries}"
        answer = self._ask("GET", f"{path}?map_index={task.map_index}&full_content=true")
        return "\n".join(_log_line(each) for each in _list(answer, "content"))

    def reason(self, dag_id: str, run_id: str, task: TaskInstanceState) -> str:
        """What the last try of a task failed with; empty where its log does not say."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task.task_id)}/logs/{task.tries}"
        answer = self._ask("GET", f"{path}?map_index={task.map_index}&full_content=true")
        raised = [error for entry in _list(answer, "content") for error in _errors(entry)]
        return str(raised[0].get("exc_value", "")) if raised else ""

    def xcoms(self, dag_id: str, run_id: str, task: TaskInstanceState) -> dict[str, JsonValue]:
        """What a task left for others, by key."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{quote(task.task_id)}/xcomEntries"
        index = f"map_index={task.map_index}"
        keys = [str(each["key"]) for each in self._pages(f"{path}?{index}", "xcom_entries")]
        return {key: self._ask("GET", f"{path}/{quote(key)}?{index}")["value"] for key in keys}

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

    def _ask(
        self, method: str, path: str, body: Mapping[str, JsonValue] | None = None
    ) -> dict[str, JsonValue]:
        """Ask; a question that changes nothing again, where a busy Airflow did not answer.

        Raises:
            NotFound: no such thing.
            InvalidInput: refused.
            Unreachable: no answer, or the API server is not well.
        """
        import httpx

        reply = self._reply(method, path, body, tries=_TRIES if method == "GET" else 1)
        told = f"{method} {self.url}/api/v2{path}: {reply.status_code} {reply.text[:300]}"
        if reply.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(told)
        if reply.is_client_error:
            raise InvalidInput(told)
        if reply.is_error:
            raise Unreachable(told)
        document: dict[str, JsonValue] = reply.json()
        return document

    def _reply(
        self, method: str, path: str, body: Mapping[str, JsonValue] | None, *, tries: int
    ) -> httpx.Response:
        import httpx

        try:
            return self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            if tries > 1:
                return self._reply(method, path, body, tries=tries - 1)
            raise Unreachable(f"Airflow at {self.url} does not answer: {error}") from error

    def _pages(self, path: str, key: str) -> Iterator[dict[str, JsonValue]]:
        joint, seen = "&" if "?" in path else "?", 0
        while True:
            page = self._ask("GET", f"{path}{joint}limit={_PAGE}&offset={seen}")
            found = _list(page, key)
            yield from found
            seen += len(found)
            if not found or seen >= int(str(page["total_entries"])):
                return

    def _refuse_broken(self, dag_id: str) -> None:
        for each in self._pages("/importErrors", "import_errors"):
            if dag_id in str(each["filename"]):
                raise RunFailed(f"Airflow cannot read {each['filename']}:\n{each['stack_trace']}")


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}"


def _list(document: Mapping[str, JsonValue], key: str) -> Sequence[dict[str, JsonValue]]:
    found = document[key]
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _task(document: Mapping[str, JsonValue]) -> TaskInstanceState:
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


def _errors(entry: Mapping[str, JsonValue]) -> Sequence[dict[str, JsonValue]]:
    return _list(entry, "error_detail") if entry.get("error_detail") else []


def _log_line(entry: Mapping[str, JsonValue]) -> str:
    rest = {key: value for key, value in entry.items() if key not in ("timestamp", "event")}
    return f"{entry.get('timestamp', '')} {entry.get('event', '')} {rest}"
