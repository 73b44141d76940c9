"""Ask a Conductor server over its REST interface, by the transport of conductor-python.

The SDK's own clients are not used: they are untyped, drop fields of definitions that they do not
know, and cannot validate, decide or test by a definition's JSON. Its transport passes JSON through
as it is, and authenticates by `CONDUCTOR_AUTH_KEY` and `CONDUCTOR_AUTH_SECRET`.
"""

from __future__ import annotations

import json
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from pesto_runtime.errors import InvalidInput, NotFound, PestoError, ServiceMisbehaved, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from conductor.client.http.api_client import ApiClient
    from conductor.client.http.rest import ApiException
    from pydantic import JsonValue

Document: TypeAlias = "dict[str, JsonValue]"
_CONNECT_S, _ANSWER_S = 3.0, 60.0
_ENDED = frozenset({"COMPLETED", "FAILED", "TIMED_OUT", "TERMINATED"})


def is_over(workflow: Mapping[str, JsonValue]) -> bool:
    """Whether a workflow has ended, well or not."""
    return workflow.get("status") in _ENDED


def made_up_run(
    definition: Document,
    inputs: Document,
    outputs: Mapping[str, Document],
    *,
    children: Mapping[str, Document] | None = None,
) -> Document:
    """What to ask for, to have a definition run without workers.

    Args:
        definition: The workflow.
        inputs: Its input.
        outputs: Task reference -> what the task is to answer.
        children: Reference of a SUB_WORKFLOW -> the same for its own definition.
    """
    mocks: Document = {
        reference: [{"status": "COMPLETED", "output": output}]
        for reference, output in outputs.items()
    }
    return {
        "name": definition["name"],
        "version": definition.get("version", 1),
        "input": inputs,
        "workflowDef": definition,
        "taskRefToMockOutput": mocks,
        "subWorkflowTestRequest": dict(children or {}),
    }


def require_sdk() -> None:
    """Make sure that conductor-python is installed.

    Raises:
        InvalidInput: it is not; names the extra.
    """
    if find_spec("conductor") is None:
        raise InvalidInput(
            "Conductor needs conductor-python: pip install 'pesto-workflows[conductor]'"
        )


class Conductor:
    """A Conductor server.

    Attributes:
        url: Base of its REST interface: `http://HOST:PORT/api`.
    """

    def __init__(self, url: str) -> None:
        import httpx

        from pesto_runtime.client.transport import http_options

        self.url = url.rstrip("/")
        options = http_options(self.url, timeout_s=_ANSWER_S, headers=None, verify=True)
        self._http = httpx.Client(**options)

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
        """Whether it answers `/health`, and says that it is well.

        `/actuator/health` says 503 for as long as no Elasticsearch runs, and is not asked.
        """
        import httpx

        try:
            health = f"{self.url.removesuffix('/api')}/health"
            answer = self._http.get(health, timeout=_CONNECT_S)
            return answer.status_code == 200 and answer.json().get("healthy") is True
        except (httpx.HTTPError, ValueError, AttributeError):
            return False

    def require(self) -> Self:
        """Make sure of a server before anything else is tried; answers at once or in 3 s.

        Raises:
            Unreachable: nothing healthy is there.
        """
        if not self.is_healthy():
            raise Unreachable(
                f"no Conductor answers at {self.url}; start one by `pesto conductor server up`, "
                "or set CONDUCTOR_SERVER_URL to the /api of one that runs"
            )
        return self

    def register_tasks(self, definitions: Sequence[Document]) -> None:
        """Make task definitions known; later ones of a name replace earlier ones."""
        self._ask("POST", "/metadata/taskdefs", body=list(definitions))

    def task_types(self) -> list[str]:
        """Names of the task definitions that it knows."""
        found = self._ask("GET", "/metadata/taskdefs")
        known = found if isinstance(found, list) else []
        return [str(each["name"]) for each in known if isinstance(each, dict)]

    def register_workflows(self, definitions: Sequence[Document]) -> None:
        """Make workflow definitions known; they replace those of the same name and version."""
        self._ask("PUT", "/metadata/workflow", body=list(definitions))

    def validate(self, definition: Document) -> None:
        """Let the server look at a workflow definition.

        Raises:
            InvalidInput: it refuses it, and says why.
        """
        self._ask("POST", "/metadata/workflow/validate", body=definition)

    def test(self, request: Document) -> Document:
        """Run a definition without workers, on made-up outputs, as `made_up_run` asks for it."""
        return _object(self._ask("POST", "/workflow/test", body=request))

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
        """Start a workflow; answers its id.

        Args:
            name: Of its definition.
            inputs: Its input.
            version: Of its definition; the newest by default.
            definition: Itself, where it is not registered.
            domains: Task type -> domain: workers of this domain alone take such tasks.
            correlation: Name to find it by, of the caller's choice.
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
        return str(self._ask("POST", "/workflow", body=request))

    def workflow(self, identity: str, *, tasks: bool = True) -> Document:
        """A workflow, with its tasks or without them."""
        path = f"/workflow/{identity}"
        return _object(self._ask("GET", path, query={"includeTasks": str(tasks).lower()}))

    def definition(self, name: str, *, version: int | None = None) -> Document:
        """A registered workflow definition; the newest version by default.

        Raises:
            NotFound: there is none of this name.
        """
        query = {} if version is None else {"version": str(version)}
        return _object(self._ask("GET", f"/metadata/workflow/{name}", query=query))

    def search(self, query: str = "", *, size: int = 20) -> list[Document]:
        """Newest workflows, in short, that a query finds: `workflowType = 'x'`."""
        asked = {"start": "0", "size": str(size), "sort": "startTime:DESC", "query": query}
        found = _object(self._ask("GET", "/workflow/search", query=asked)).get("results")
        return [_object(each) for each in found] if isinstance(found, list) else []

    def logs(self, task: str) -> list[str]:
        """Lines that a worker logged for a task."""
        found = self._ask("GET", f"/tasks/{task}/log")
        lines = found if isinstance(found, list) else []
        return [str(each.get("log", "")) for each in lines if isinstance(each, dict)]

    def retry(self, identity: str) -> None:
        """Run the failed tasks of a failed workflow again, and go on from there."""
        self._ask("POST", f"/workflow/{identity}/retry")

    def terminate(self, identity: str, *, reason: str) -> None:
        """End a workflow now."""
        self._ask("DELETE", f"/workflow/{identity}", query={"reason": reason})

    def decide(self, identity: str) -> None:
        """Make the server look at a workflow now, and not at its next sweep."""
        self._ask("PUT", f"/workflow/decide/{identity}")

    def register_event_handler(self, handler: Document) -> None:
        """Make an event handler known, in the place of one of the same name."""
        name = str(handler["name"])
        known = self._ask("GET", "/event")
        names = (
            {each.get("name") for each in known if isinstance(each, dict)}
            if isinstance(known, list)
            else set()
        )
        self._ask("PUT" if name in names else "POST", "/event", body=handler)

    @cached_property
    def _api(self) -> ApiClient:
        """The SDK's transport over our connections; its own ones try four times to connect."""
        require_sdk()
        from conductor.client.configuration.configuration import Configuration
        from conductor.client.http.api_client import ApiClient

        configuration = Configuration(server_api_url=self.url)
        configuration.http_connection = self._http
        return ApiClient(configuration)

    def _ask(
        self,
        method: Literal["GET", "POST", "PUT", "DELETE"],
        path: str,
        *,
        body: JsonValue = None,
        query: Mapping[str, str] | None = None,
    ) -> JsonValue:
        api = self._api
        from conductor.client.http.rest import ApiException

        try:
            found: JsonValue = api.call_api(
                path, method, query_params=dict(query or {}), body=body, response_type="object",
                _return_http_data_only=True, _request_timeout=(_CONNECT_S, _ANSWER_S),
            )  # fmt: skip
        except ApiException as error:
            raise self._error_of(error, f"{method} {path}") from error
        return found

    def _error_of(self, error: ApiException, asked: str) -> PestoError:
        if not error.status:
            return Unreachable(f"Conductor at {self.url}: {asked}: {error.reason}")
        text = f"Conductor, {asked}: {_message(error)}"
        if error.status in (401, 403):
            return InvalidInput(
                f"{text} (HTTP {error.status}); set CONDUCTOR_AUTH_KEY and CONDUCTOR_AUTH_SECRET "
                f"to an access key of {self.url}"
            )
        if error.status == 404:
            return NotFound(text)
        if error.status < 500:
            return InvalidInput(text)
        return ServiceMisbehaved(f"{text} (HTTP {error.status})")


def _object(value: JsonValue) -> Document:
    if not isinstance(value, dict):
        raise ServiceMisbehaved(f"Conductor answered no JSON object: {str(value)[:120]!r}")
    return value


def _message(error: ApiException) -> str:
    """What the server says, and each of its `validationErrors`."""
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
