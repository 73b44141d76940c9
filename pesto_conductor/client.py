"""Send requests to Conductor's REST interface, through the transport of conductor-python.

The SDK's own clients are not used: they are untyped, drop unknown fields of definitions, and have
no `validate` and `decide`. Its transport passes JSON through unchanged, and authenticates with
`CONDUCTOR_AUTH_KEY` and `CONDUCTOR_AUTH_SECRET`. Workers use `taskqueue.py` instead.
"""

from __future__ import annotations

import json
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeAlias

from pesto_conductor.connection import (
    authorization,
    connection_error,
    connection_pool,
    not_conductor,
    plain_url,
    refusal,
)
from pesto_runtime.errors import InvalidInput, NotFound, PestoError, ServiceMisbehaved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from conductor.client.http.api_client import ApiClient
    from conductor.client.http.rest import ApiException
    from pydantic import JsonValue

Document: TypeAlias = "dict[str, JsonValue]"
_CONNECT_S, _READ_S = 3.0, 60.0
_ENDED = frozenset({"COMPLETED", "FAILED", "TIMED_OUT", "TERMINATED"})


class Poll(NamedTuple):
    """The last poll for the tasks of one type in one task domain.

    Attributes:
        type: The task type.
        domain: The task domain; empty for none.
        worker: Identity of the worker.
        at_ms: Time, milliseconds since 1970.
    """

    type: str
    domain: str
    worker: str
    at_ms: float


def is_over(workflow: Mapping[str, JsonValue]) -> bool:
    """Whether a workflow has ended, successfully or not."""
    return workflow.get("status") in _ENDED


def require_sdk() -> None:
    """Check that conductor-python is installed.

    Raises:
        InvalidInput: it is not; names the extra.
    """
    if find_spec("conductor") is None:
        raise InvalidInput(
            "Conductor needs conductor-python: pip install 'pesto-workflows[conductor]'"
        )


class Conductor:
    """A Conductor server; every method that sends a request raises the errors of `request`.

    Attributes:
        address: Base of its REST interface: `http://HOST:PORT/api`, with the user if it has one.
        url: The same without user and password, for messages.
    """

    def __init__(self, url: str) -> None:
        """Prepare a connection pool; nothing is sent yet."""
        self.address, self.url = url, plain_url(url)
        self._http = connection_pool(self.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def is_healthy(self) -> bool:
        """Whether `/health` of the server reports that it is healthy; takes 3 s at most."""
        import httpx

        # Not `/actuator/health`: it returns 503 for as long as no Elasticsearch runs.
        try:
            health = f"{self.url.removesuffix('/api')}/health"
            response = self._http.get(health, timeout=_CONNECT_S)
            return response.status_code == 200 and response.json().get("healthy") is True
        except (httpx.HTTPError, ValueError, AttributeError):
            return False

    def require(self) -> Self:
        """Check that a Conductor responds, before other requests.

        Raises:
            Unreachable: there is no server.
            InvalidInput: its certificate is not trusted, it refuses the credentials, or the URL is
                not that of a Conductor.
        """
        # Not `/health`: a gateway may have a route for `/api` alone.
        try:
            found = self.request("GET", "/tasks/queue/sizes", query={"taskType": "pesto_plan"})
        except NotFound as error:
            raise not_conductor(self.url, str(error)) from error
        if not isinstance(found, dict):
            raise not_conductor(self.url, f"it returned {str(found)[:60]!r}")
        return self

    def register_tasks(self, definitions: Sequence[Document]) -> None:
        """Register task definitions; they replace those of the same name."""
        self.request("POST", "/metadata/taskdefs", body=list(definitions))

    def task_definitions(self) -> list[Document]:
        """Return all registered task definitions."""
        found = self.request("GET", "/metadata/taskdefs")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def task_types(self) -> list[str]:
        """Return the names of all registered task definitions."""
        return [str(each["name"]) for each in self.task_definitions()]

    def register_workflows(self, definitions: Sequence[Document]) -> None:
        """Register workflow definitions; they replace those of the same name and version."""
        self.request("PUT", "/metadata/workflow", body=list(definitions))

    def validate(self, definition: Document) -> None:
        """Have the server validate a workflow definition.

        Raises:
            InvalidInput: the definition is not valid; with every reason of the server.
        """
        self.request("POST", "/metadata/workflow/validate", body=definition)

    def start(
        self,
        name: str,
        inputs: Document,
        *,
        version: int | None = None,
        definition: Document | None = None,
        domains: Mapping[str, str] | None = None,
        correlation: str = "",
    ) -> str:
        """Start a workflow; return its id.

        Args:
            name: Of its definition.
            inputs: Its input.
            version: Of its definition; the newest by default.
            definition: The definition itself, if it is not registered.
            domains: Task type -> domain; only workers of this domain take such tasks.
            correlation: A name of the caller's choice, by which the workflow can be found.
        """
        request: Document = {"name": name, "input": inputs}
        if version is not None:
            request["version"] = version
        if definition is not None:
            request["workflowDef"] = definition
        if domains:
            request["taskToDomain"] = dict(domains)
        if correlation:
            request["correlationId"] = correlation
        return str(self.request("POST", "/workflow", body=request))

    def workflow(self, identity: str, *, tasks: bool = True) -> Document:
        """Return a workflow, with or without its tasks.

        Raises:
            NotFound: no workflow has this id.
        """
        path = f"/workflow/{identity}"
        return _object(self.request("GET", path, query={"includeTasks": str(tasks).lower()}))

    def definition(self, name: str, *, version: int | None = None) -> Document:
        """Return a registered workflow definition; the newest version by default.

        Raises:
            NotFound: no definition has this name.
        """
        query = {} if version is None else {"version": str(version)}
        return _object(self.request("GET", f"/metadata/workflow/{name}", query=query))

    def search(self, query: str = "", *, size: int = 20) -> list[Document]:
        """Return summaries of the newest workflows that match a query: `workflowType = 'x'`."""
        parameters = {"start": "0", "size": str(size), "sort": "startTime:DESC", "query": query}
        found = _object(self.request("GET", "/workflow/search", query=parameters)).get("results")
        return [_object(each) for each in found] if isinstance(found, list) else []

    def last_polls(self) -> list[Poll]:
        """Return the last poll of each task type and task domain."""
        found = self.request("GET", "/tasks/queue/polldata/all")
        return [
            Poll(
                str(each.get("queueName")),
                str(each.get("domain") or ""),
                str(each.get("workerId")),
                float(str(each.get("lastPollTime") or 0)),
            )
            for each in (found if isinstance(found, list) else [])
            if isinstance(each, dict)
        ]

    def logs(self, task: str) -> list[str]:
        """Return the lines that workers have logged for a task."""
        found = self.request("GET", f"/tasks/{task}/log")
        lines = found if isinstance(found, list) else []
        return [str(each.get("log", "")) for each in lines if isinstance(each, dict)]

    def retry(self, identity: str) -> None:
        """Run the failed tasks of a failed workflow again, and continue from there."""
        self.request("POST", f"/workflow/{identity}/retry")

    def terminate(self, identity: str, *, reason: str) -> None:
        """End a workflow now."""
        self.request("DELETE", f"/workflow/{identity}", query={"reason": reason})

    def decide(self, identity: str) -> None:
        """Have the server schedule the next tasks of a workflow now, not at its next sweep."""
        self.request("PUT", f"/workflow/decide/{identity}")

    def complete(self, task: str, workflow: str, output: Document) -> None:
        """Complete a task from outside, with an output."""
        body: Document = {
            "taskId": task, "workflowInstanceId": workflow, "status": "COMPLETED",
            "outputData": output,
        }  # fmt: skip
        self.request("POST", "/tasks", body=body)

    def register_event_handler(self, handler: Document) -> None:
        """Register an event handler; it replaces one of the same name."""
        name = str(handler["name"])
        known = self.request("GET", "/event")
        names = (
            {each.get("name") for each in known if isinstance(each, dict)}
            if isinstance(known, list)
            else set()
        )
        self.request("PUT" if name in names else "POST", "/event", body=handler)

    def request(
        self,
        method: Literal["GET", "POST", "PUT", "DELETE"],
        path: str,
        *,
        body: JsonValue = None,
        query: Mapping[str, str] | None = None,
    ) -> JsonValue:
        """Send a request below `/api`; return the JSON of the response.

        Raises:
            InvalidInput: the extra is missing, or the server rejects the request.
            NotFound: the server returned HTTP 404.
            ServiceMisbehaved: the server returned HTTP 5xx.
            Unreachable: the server does not respond.
        """
        api = self._api
        from conductor.client.http.rest import ApiException

        try:
            found: JsonValue = api.call_api(
                path, method, query_params=dict(query or {}), body=body, response_type="object",
                _return_http_data_only=True, _request_timeout=(_CONNECT_S, _READ_S),
            )  # fmt: skip
        except ApiException as error:
            raise self._error_of(error, f"{method} {path}") from error
        return found

    @cached_property
    def _api(self) -> ApiClient:
        """The SDK's transport, over our connection pool."""
        require_sdk()
        from conductor.client.configuration.configuration import Configuration
        from conductor.client.http.api_client import ApiClient

        configuration = Configuration(server_api_url=self.url)
        configuration.http_connection = self._http
        user = authorization(self.address)
        api = ApiClient(configuration, "Authorization" if user else None, user)
        # It would replace our pool by one without our certificates; httpx heals its own pool.
        api.rest_client._reset_connection = lambda expected=None: False  # noqa: ARG005
        return api

    def _error_of(self, error: ApiException, request: str) -> PestoError:
        if not error.status:
            return connection_error(self.url, f"{request}: {error.reason}")
        text = f"Conductor, {request}: {_message(error)}"
        if error.status in (401, 403):
            return refusal(self.url, error.status, text)
        if error.status < 400:
            return not_conductor(self.url, f"HTTP {error.status}, a redirect")
        if error.status == 404:
            return NotFound(text)
        if error.status < 500:
            return InvalidInput(text)
        return ServiceMisbehaved(f"{text} (HTTP {error.status})")


def _object(value: JsonValue) -> Document:
    if not isinstance(value, dict):
        raise ServiceMisbehaved(f"Conductor did not return a JSON object: {str(value)[:120]!r}")
    return value


def _message(error: ApiException) -> str:
    """Return the message of the server, and each of its `validationErrors`."""
    text = str(error.body or "")
    try:
        document = json.loads(text)
    except ValueError:
        return text[:500] or f"HTTP {error.status}"
    if not isinstance(document, dict):
        return str(document)[:500]
    details = [
        f"{each.get('path')}: {each.get('message')}"
        for each in document.get("validationErrors") or []
    ]
    return "; ".join([str(document.get("message")), *details])
