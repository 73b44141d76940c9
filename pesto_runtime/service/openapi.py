"""Write the OpenAPI 3.1 document of a service from the description of its process.

https://spec.openapis.org/oas/v3.1.1. Its schemas are of JSON Schema 2020-12, those of a
description are of draft-06, and differ in the names of definitions alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pesto_runtime.client.multipart import FORM_TYPE
from pesto_runtime.client.steps import BUILD_HEADER, DIGEST_HEADER
from pesto_runtime.contract import IMAGE_KINDS, CallOptions, Job
from pesto_runtime.contract.call import LONGEST_LEASE_S, Problem
from pesto_runtime.contract.selection import ImageReference
from pesto_runtime.schema import MODELS
from pesto_runtime.service.http import PREFIX
from pesto_runtime.service.problems import MEDIA_TYPE as PROBLEM_TYPE
from pesto_runtime.service.runner import (
    JSON_TYPE,
    NPY_TYPE,
    RESERVED,
    TIFF_TYPE,
    raw_image_port,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import BaseModel, JsonValue

    from pesto_runtime.contract import Description, Port

    Document = dict[str, JsonValue]

_COMPONENTS = "#/components/schemas/"
_BINARY: Document = {"type": "string", "format": "binary"}
_DIALECT_KEYS = ("$schema", "definition", "definitions")

_STATUSES = {
    400: "The request is not JSON, not a valid form, or not what its encoding states.",
    404: "There is no such job or result, or it is not ready.",
    408: "The body was sent too slowly.",
    409: "The key has been used for another request, or what was planned has changed.",
    410: "The results have been deleted.",
    413: "The body or an image is over a limit.",
    415: "No such media type or encoding is accepted, or none can be the response.",
    422: "An input does not match the description, or cannot be read.",
    500: "The algorithm failed, or its outputs do not match the description.",
    503: "The service is busy, starting or stopping.",
    507: "An output or a job cannot be written.",
}


def openapi(description: Description) -> Document:
    """Return the document of the service of one process.

    Args:
        description: Of the process.
    """
    return {
        "openapi": "3.1.1",
        "info": {
            "title": description.known.title or description.name,
            "version": description.version,
            "description": description.known.description,
        },
        "servers": [{"url": "/"}],
        "paths": {
            **_about_paths(),
            f"{PREFIX}/process": {"post": _call("process", "Call the process", description)},
            **_job_paths(description),
        },
        "components": {
            "schemas": _schemas(description),
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in (
                    (BUILD_HEADER, "identity of the code: sha256 of its sources"),
                    (DIGEST_HEADER, "digest of the description"),
                )
            },
            "responses": {str(each): _problem(each) for each in _STATUSES},
        },
    }


def _about_paths() -> Document:
    text: Document = {"text/plain": {"schema": {"type": "string"}}}
    state: Document = {**text, JSON_TYPE: {"schema": {"type": "object"}}}
    document: Document = {JSON_TYPE: {"schema": {"type": "object"}}}
    health = _read("health", "Return whether the service is ready", state)
    cast("Document", health["responses"])["503"] = {
        "description": "It starts, stops, or its set-up has failed.", "content": state,
    }  # fmt: skip
    about = {
        "health": health,
        "describe": _read("describe", "Return the description of the process", document),
        "version": _read("version", "Return the versions of the process and its package", document),
        "openapi": _read("openapi", "Return this document", text),
        "metrics": _read("metrics", "Return the metrics for Prometheus", text),
    }
    return {f"{PREFIX}/{path}": {"get": each} for path, each in about.items()}


def _job_paths(description: Description) -> Document:
    job_id: Document = _parameter("job_id", "path", {"type": "string"}, required=True)
    name: Document = _parameter("part", "path", {"type": "string"}, required=True)
    wait = _parameter("Prefer", "header", {"type": "string"}, "`wait=20` waits up to 20 s")
    job = _json(_ref("Job"))
    links: Document = {"type": "object", "additionalProperties": {"type": "object"}}
    href: Document = {"type": "string"}
    one_or_more: list[JsonValue] = [href, {"type": "array", "items": href}]
    hrefs: Document = {"type": "object", "additionalProperties": {"oneOf": one_or_more}}
    part: Document = {
        JSON_TYPE: {"schema": {}}, "text/plain": {"schema": {"type": "string"}},
        **{each: {"schema": _BINARY} for each in (TIFF_TYPE, NPY_TYPE)},
    }  # fmt: skip
    one = f"{PREFIX}/jobs/{{job_id}}"
    key = _parameter("key", "query", {"type": "string"}, "only the job of this Idempotency-Key")
    return {
        f"{PREFIX}/jobs": {
            "get": _read("listJobs", "List the jobs", _json(links), (key,)),
            "post": _call("submitJob", "Call the process, as `process`", description),
        },
        one: {
            "get": _read("getJob", "Return a job", job, (job_id, wait), (404,)),
            "delete": _read("dismissJob", "Stop a job and delete its results", job, (job_id,),
                            (404, 410)),
        },
        f"{one}/status": {
            "get": _read("getJobStatus", "Return the state of a job as PESTO has it",
                         _json({"type": "object"}), (job_id, wait), (404,)),
        },
        f"{one}/log": {
            "get": _read("getJobLog", "Return the last lines that the algorithm logged",
                         {"text/plain": {"schema": {"type": "string"}}}, (job_id,), (404,)),
        },
        f"{one}/results": {
            "get": _read("listResults", "Return the links of the results", _json(hrefs),
                         (job_id,), (404, 410)),
        },
        f"{one}/results/{{part}}": {
            "get": _read("getResult", "Return one result", part, (job_id, name), (404, 410)),
            "delete": _read("deleteResult", "Delete one result", _json({"type": "object"}),
                            (job_id, name), (404, 410)),
        },
    }  # fmt: skip


def _call(operation: str, summary: str, description: Description) -> Document:
    """Return the operation of a call."""
    port = raw_image_port(description)
    parameters: list[JsonValue] = [
        _parameter("Prefer", "header", {"type": "string"}, "`respond-async` makes it a job"),
        _parameter("Idempotency-Key", "header", {"type": "string", "maxLength": 255},
                   "calls with one key are one job"),
        _parameter("X-Pesto-Lease", "header",
                   {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_LEASE_S},
                   "seconds without a request after which the job is dismissed"),
    ]  # fmt: skip
    if port is not None:
        parameters += [
            _parameter(each.name, "query", value_schema(each, description),
                       "the input, where the body is an image")
            for each in description.inputs if each.kind not in IMAGE_KINDS
        ]  # fmt: skip
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": dict(_bodies(description))},
        "responses": {
            "200": _success("The outputs.", dict(_outputs(description))),
            "201": {
                **_success("The job of this call.", _json(_ref("Job"))),
                "headers": {
                    "Location": {"schema": {"type": "string"}, "description": "URL of the job"},
                    **_identity(),
                },
            },
            **_problems((400, 408, 409, 410, 413, 415, 422, 500, 503, 507)),
        },
    }


def _bodies(description: Description) -> Iterator[tuple[str, JsonValue]]:
    inputs = _ref("Inputs")
    batch: Document = {
        "type": "array", "items": inputs, "maxItems": description.max_batch_size,
    }  # fmt: skip
    yield JSON_TYPE, {"schema": {"oneOf": [inputs, batch]} if _is_batched(description) else inputs}
    yield FORM_TYPE, {"schema": _form(description)}
    if raw_image_port(description) is not None:
        for each in (TIFF_TYPE, NPY_TYPE):
            yield each, {"schema": _BINARY}


def _outputs(description: Description) -> Iterator[tuple[str, JsonValue]]:
    outputs = _ref("Outputs")
    batch: Document = {"type": "array", "items": outputs}
    yield (
        JSON_TYPE,
        {"schema": {"oneOf": [outputs, batch]} if _is_batched(description) else outputs},
    )
    images = [port for port in description.outputs if port.kind == "image"]
    if len(images) == 1:
        for each in (TIFF_TYPE, "image/png", NPY_TYPE):
            yield each, {"schema": _BINARY}
    if images:
        yield FORM_TYPE, {"schema": {"type": "object", "additionalProperties": _BINARY}}


def _is_batched(description: Description) -> bool:
    return description.max_batch_size > 1


def _form(description: Description) -> Document:
    properties: Document = {port.name: _form_part(port, description) for port in description.inputs}
    return {
        "type": "object",
        "properties": {**properties, RESERVED: _ref("CallOptions")},
        "required": [port.name for port in description.inputs if port.required],
    }


def _form_part(port: Port, description: Description) -> JsonValue:
    if port.kind == "images":
        return {"type": "array", "items": _BINARY}
    return {**_BINARY} if port.kind == "image" else value_schema(port, description)


def _schemas(description: Description) -> Document:
    """Return all schemas: of inputs, outputs and the documents of every service."""
    found: Document = {}
    for side, ports in (("Inputs", description.inputs), ("Outputs", description.outputs)):
        required: list[JsonValue] = [port.name for port in ports if port.required]
        properties: Document = {port.name: value_schema(port, description) for port in ports}
        if side == "Inputs":
            properties[RESERVED] = _ref("CallOptions")
        found[side] = {"type": "object", "properties": properties, "required": required}
    models: tuple[type[BaseModel], ...] = (ImageReference, CallOptions, Job, Problem)
    for model in (*models, MODELS["image"]):
        schema = cast("Document", model.model_json_schema(ref_template=_COMPONENTS + "{model}"))
        found |= cast("Document", schema.pop("$defs", {}))
        found[model.__name__] = schema
    return found


def value_schema(port: Port, description: Description) -> Document:
    """Return the schema of an input or output in JSON."""
    if port.kind == "image":
        return _image(port, description)
    if port.kind == "images":
        return {**_texts(port), "type": "array", "items": _image(port, description)}
    definitions = _definitions(port, description)
    return cast("Document", _inlined(dict(port.schema), definitions, ()))


def _image(port: Port, description: Description) -> Document:
    """Return an image: base64 or an href; of an input a reference, too."""
    text: Document = {"type": "string", "description": "base64 of an image file, or an href"}
    if description.input(port.name) is not port:
        return {**_texts(port), **text}
    return {**_texts(port), "oneOf": [text, _ref("ImageReference")]}


def _texts(port: Port) -> Document:
    return {key: port.schema[key] for key in ("title", "description") if key in port.schema}


def _definitions(port: Port, description: Description) -> Mapping[str, JsonValue]:
    is_input = description.input(port.name) is port
    side = description.known.input if is_input else description.known.output
    found = side.get("definitions")
    return found if isinstance(found, dict) else {}


def _inlined(
    schema: JsonValue, definitions: Mapping[str, JsonValue], within: tuple[str, ...]
) -> JsonValue:
    """Return a schema with its definitions in place; one within itself accepts anything."""
    if isinstance(schema, list):
        return [_inlined(each, definitions, within) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = str(schema.get("$ref", ""))
    name = reference.rpartition("/")[2]
    if reference and name in definitions:
        if name in within:
            return {}
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        target = _inlined(definitions[name], definitions, (*within, name))
        return {**(target if isinstance(target, dict) else {}), **rest}
    return {
        key: _inlined(each, definitions, within)
        for key, each in schema.items() if key not in _DIALECT_KEYS
    }  # fmt: skip


def _read(
    operation: str,
    summary: str,
    content: Document,
    parameters: Iterable[Document] = (),
    problems: Iterable[int] = (),
) -> Document:
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": [*parameters],
        "responses": {"200": _success(summary + ".", content), **_problems(problems)},
    }


def _success(text: str, content: Document) -> Document:
    return {"description": text, "content": content, "headers": _identity()}


def _problem(status: int) -> Document:
    headers = _identity()
    if status == 503:
        headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "seconds"}
    content: Document = {PROBLEM_TYPE: {"schema": _ref("Problem")}}
    return {"description": _STATUSES[status], "content": content, "headers": headers}


def _problems(statuses: Iterable[int]) -> Document:
    return {str(each): {"$ref": f"#/components/responses/{each}"} for each in statuses}


def _identity() -> Document:
    return {
        each: {"$ref": f"#/components/headers/{each}"} for each in (BUILD_HEADER, DIGEST_HEADER)
    }


def _json(schema: Document) -> Document:
    return {JSON_TYPE: {"schema": schema}}


def _ref(name: str) -> Document:
    return {"$ref": _COMPONENTS + name}


def _parameter(
    name: str, place: str, schema: JsonValue, text: str = "", *, required: bool = False
) -> Document:
    found: Document = {"name": name, "in": place, "required": required, "schema": schema}
    return {**found, "description": text} if text else found
