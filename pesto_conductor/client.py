"""What we ask of a Conductor server, over its REST interface.

conductor-python has clients for most of this. They are not used: they are untyped, drop fields of
definitions that they do not know, cannot validate, decide or test by a definition's JSON, and would
make every command here need an extra. The workers use conductor-python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from pesto_runtime.errors import InvalidInput, NotFound, PestoError, ServiceMisbehaved, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import httpx
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


class Conductor:
    """A Conductor server.

    Attributes:
        url: Base of its REST interface: `http://HOST:PORT/api`.
    """

    def __init__(self, url: str) -> None:
        import httpx

        from pesto_runtime.client.transport import trusts_environment

        self.url = url.rstrip("/")
        timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
        self._http = httpx.Client(timeout=timeout, trust_env=trusts_environment(self.url))

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
            answer = self._http.get(f"{self._root}/health", timeout=_CONNECT_S)
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

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/api")

    def _ask(
        self,
        method: Literal["GET", "POST", "PUT", "DELETE"],
        path: str,
        *,
        body: JsonValue = None,
        query: Mapping[str, str] | None = None,
    ) -> JsonValue:
        import httpx

        try:
            answer = self._http.request(
                method, f"{self.url}{path}", json=body if method in ("POST", "PUT") else None,
                params=query,
            )  # fmt: skip
        except httpx.HTTPError as error:
            raise Unreachable(f"Conductor at {self.url}: {method} {path}: {error!r}") from error
        if answer.is_error:
            raise _refusal(answer, f"{method} {path}")
        return _value(answer)


def _value(answer: httpx.Response) -> JsonValue:
    """JSON, or text: ids of workflows come as plain text."""
    if "json" not in answer.headers.get("content-type", ""):
        return answer.text
    value: JsonValue = answer.json()
    return value


def _object(value: JsonValue) -> Document:
    if not isinstance(value, dict):
        raise ServiceMisbehaved(f"Conductor answered no JSON object: {str(value)[:120]!r}")
    return value


def _refusal(answer: httpx.Response, asked: str) -> PestoError:
    text = f"Conductor, {asked}: {_message(answer)}"
    if answer.status_code == 404:
        return NotFound(text)
    if answer.status_code < 500:
        return InvalidInput(text)
    return ServiceMisbehaved(f"{text} (HTTP {answer.status_code})")


def _message(answer: httpx.Response) -> str:
    """What the server says, and each of its `validationErrors`."""
    try:
        document = answer.json()
    except ValueError:
        return answer.text[:500] or f"HTTP {answer.status_code}"
    if not isinstance(document, dict):
        return str(document)[:500]
    details = [
        f"{each.get('path')}: {each.get('message')}"
        for each in document.get("validationErrors") or []
    ]
    return "; ".join([str(document.get("message")), *details])
