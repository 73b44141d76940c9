"""Check how a service refuses wrong requests: status, form, the field, no more than is needed."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, cast

from pesto_runtime.kit.check_list import check
from pesto_runtime.kit.claims import NotApplicable, require
from pesto_runtime.kit.service_under_test import json_object, shown

if TYPE_CHECKING:
    import httpx
    from pydantic import JsonValue

    from pesto_runtime.kit.service_under_test import ServiceUnderTest

_PROBLEM = "application/problem+json"
_MOST_BYTES = 16_384
_LARGE = 24 << 20
_WRONG: JsonValue = {"not": ["a", "value"]}


@check
def a_missing_input_is_named(service: ServiceUnderTest) -> None:
    """A call without a required input is refused by a 4xx that names the input."""
    required = [port.name for port in service.description.inputs if port.required]
    if not required:
        raise NotApplicable("no input is required")
    document = service.sample.wire()
    for name in required:
        left = {key: value for key, value in document.items() if key != name}
        _require_refusal(service.post(left), name)


@check
def a_value_of_another_type_is_named(service: ServiceUnderTest) -> None:
    """A value that does not fit the schema of its input is refused by a 4xx that names it."""
    ports = [
        port
        for port in service.description.inputs
        if port.kind == "json" and port.schema.get("type") in
        ("number", "integer", "string", "boolean", "array")
    ]  # fmt: skip
    if not ports:
        raise NotApplicable("no input has a type that a wrong value could be of")
    for port in ports:
        _require_refusal(service.post({**service.sample.wire(), port.name: _WRONG}), port.name)


@check
def an_unreadable_image_is_named(service: ServiceUnderTest) -> None:
    """An image input that is no image is refused by a 4xx that names the input."""
    images = list(service.description.data_inputs)
    if not images:
        raise NotApplicable("the process takes no single image")
    text = base64.b64encode(b"not an image" * 20).decode("ascii")
    for port in images:
        for value in (text, 5):
            _require_refusal(service.post({**service.sample.wire(), port.name: value}), port.name)


@check
def broken_requests_are_refused(service: ServiceUnderTest) -> None:
    """A body that is not a JSON object is refused by a 4xx with a problem document."""
    for body in (b"{", b"[1, 2", b"5", b'"text"', b"\xff\xfe", b""):
        answer = service.send("POST", "/process", content=body,
                              headers={"Content-Type": "application/json"})  # fmt: skip
        _require_problem(answer, f"the body {body!r}")


@check
def unknown_places_are_refused(service: ServiceUnderTest) -> None:
    """An unknown path or job is 404, and another method 405, with a problem document."""
    for method, path, statuses in (
        ("GET", "/no-such-path", (404,)),
        ("GET", "/jobs/no-such-job/status", (404,)),
        ("GET", "/jobs/no-such-job/results", (404,)),
        ("GET", "/process", (405,)),
    ):
        answer = service.send(method, path)
        _require_problem(answer, f"{method} {path}")
        require(
            answer.status_code in statuses,
            f"{method} {path}: {statuses[0]} expected, {shown(answer)}",
        )


@check
def a_large_wrong_request_is_refused_briefly(service: ServiceUnderTest) -> None:
    """A wrong request of 24 MB gets a short 4xx without its content, and the service goes on."""
    ports = [*service.description.data_inputs, *service.description.inputs]
    if not ports:
        raise NotApplicable("the process takes no input")
    answer = service.post({**service.sample.wire(), ports[0].name: "A" * _LARGE})
    seen = f"HTTP {answer.status_code} with {len(answer.content)} bytes"
    require(400 <= answer.status_code < 500, seen)
    require(len(answer.content) <= _MOST_BYTES, f"{seen}, more than {_MOST_BYTES}")
    health = service.get("/health")
    require(health.status_code == 200, f"afterwards: {shown(health)}")


def _require_refusal(answer: httpx.Response, name: str) -> None:
    """Require a problem document that names an input."""
    _require_problem(answer, f"a wrong {name!r}")
    problem = json_object(answer)
    errors = problem.get("errors")
    pointers = [
        str(each.get("pointer", "")) for each in errors if isinstance(each, dict)
    ] if isinstance(errors, list) else []  # fmt: skip
    parts = [part for pointer in pointers for part in pointer.split("/")]
    require(name in parts, f"a wrong {name!r}: the error does not name it: {shown(answer)}")


def _require_problem(answer: httpx.Response, what: str) -> None:
    """Require a 4xx with a problem document (RFC 9457), without a traceback."""
    require(400 <= answer.status_code < 500, f"{what}: {shown(answer)}")
    kind = answer.headers.get("content-type", "")
    require(kind.startswith(_PROBLEM), f"{what}: {kind}, not {_PROBLEM}")
    problem = json_object(answer)
    for key, types in (("type", str), ("title", str), ("detail", str), ("status", int)):
        require(isinstance(problem.get(key), types), f"{what}: `{key}` is missing: {shown(answer)}")
    require(
        problem["status"] == answer.status_code,
        f"{what}: `status` is {problem['status']} in a response {answer.status_code}",
    )
    require("Traceback" not in cast("str", problem["detail"]), f"{what}: {shown(answer)}")
