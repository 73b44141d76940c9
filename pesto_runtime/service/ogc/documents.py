"""Write the documents of OGC API - Processes, part 1 (OGC 18-062r2), from descriptions and jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast
from urllib.parse import quote

from pesto_runtime.service.openapi import value_schema
from pesto_runtime.service.problems import MEDIA_TYPE as PROBLEM_TYPE
from pesto_runtime.service.runner import JSON_TYPE, TIFF_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Job, Port

Document: TypeAlias = "dict[str, JsonValue]"

HTML_TYPE = "text/html"
OPENAPI_30_TYPE = "application/vnd.oai.openapi+json;version=3.0"
GEOTIFF = f"{TIFF_TYPE}; application=geotiff"
_CLASSES = "http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf"
_REL = "http://www.opengis.net/def/rel/ogc/1.0"
_CONFORMS = ("core", "ogc-process-description", "json", "html", "oas30", "job-list", "callback",
             "dismiss")  # fmt: skip
_STATUS_FIELDS = ("jobID", "processID", "type", "status", "message", "created", "started",
                  "finished", "progress")  # fmt: skip
_ANY_IMAGE = ("image/tiff", "image/png", "image/jpeg", "image/jp2")


def link(href: str, rel: str, title: str = "", media_type: str = JSON_TYPE) -> Document:
    """Return a link (RFC 8288) as OGC writes it."""
    found: Document = {"href": href, "rel": rel, "type": media_type}
    return {**found, "title": title} if title else found


def _own(url: str, title: str) -> list[JsonValue]:
    """Return the links of a document to itself, as JSON and as HTML."""
    return [
        link(url, "self", title),
        link(url, "alternate", f"{title} as HTML", HTML_TYPE),
    ]


def landing(base: str, processes: Mapping[str, Description], mounts: Mapping[str, str]) -> Document:
    """Return the landing page: what there is, and where.

    Args:
        base: Address of the service, without a slash at the end.
        processes: Name -> description, of those that it serves.
        mounts: Name -> path of its endpoints of PESTO.
    """
    titles = {name: each.known.title or name for name, each in processes.items()}
    names = ", ".join(titles.values())
    apis = ", ".join(f"{base}{quote(mount)}/api/v1" for mount in mounts.values())
    pages = (
        link(f"{base}{quote(mount)}/docs", "service-doc", f"Page to try {titles[name]}", HTML_TYPE)
        for name, mount in mounts.items()
    )
    return {
        "title": names,
        "description": f"{names}: PESTO at {apis}, OGC API - Processes here",
        "links": [
            *_own(f"{base}/", "This document"),
            link(f"{base}/api", "service-desc", "OpenAPI 3.0", OPENAPI_30_TYPE),
            *pages,
            link(f"{base}/conformance", f"{_REL}/conformance", "Conformance classes"),
            link(f"{base}/processes", f"{_REL}/processes", "Processes"),
            link(f"{base}/jobs", f"{_REL}/job-list", "Jobs"),
        ],
    }


def conformance() -> Document:
    """Return the conformance classes."""
    return {"conformsTo": [f"{_CLASSES}/{each}" for each in _CONFORMS]}


def process_list(
    base: str, processes: Iterable[Description], mounts: Mapping[str, str]
) -> Document:
    """Return the processes in short."""
    return {
        "processes": [process_summary(base, each, mounts[each.name]) for each in processes],
        "links": _own(f"{base}/processes", "This document"),
    }


def process_summary(base: str, description: Description, mount: str) -> Document:
    """Return a process without its inputs and outputs.

    Args:
        base: Address of the service, without a slash at the end.
        description: Of the process.
        mount: Path of its endpoints of PESTO.
    """
    own = f"{base}/processes/{quote(description.name, safe='')}"
    api = f"{base}{quote(mount)}/api/v1"
    return {
        "id": description.name,
        "version": description.version,
        "title": description.known.title or description.name,
        "description": description.known.description or "",
        "jobControlOptions": ["sync-execute", "async-execute", "dismiss"],
        "outputTransmission": ["value", "reference"],
        "links": [
            *_own(own, "This process"),
            link(f"{own}/execution", f"{_REL}/execute", "Execute it"),
            link(f"{api}/describe", "service-desc", "PESTO's description"),
        ],
    }


def process_document(base: str, description: Description, mount: str) -> Document:
    """Return a process with its inputs and outputs; arguments as of `process_summary`."""
    return {
        **process_summary(base, description, mount),
        "inputs": {each.name: _input(each, description) for each in description.inputs},
        "outputs": {
            each.name: {**_texts(each), "schema": _schema(each, description)}
            for each in description.outputs
        },
    }


def status_info(base: str, job: Job) -> Document:
    """Return the state of a job; fields of our own are left out."""
    document = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    found: Document = {name: document[name] for name in _STATUS_FIELDS if name in document}
    found["progress"] = int(job.progress)
    own = f"{base}/jobs/{job.id}"
    links = [link(own, "self", "This document"), link(own, "monitor", "The state of the job")]
    if job.status == "successful":
        links.append(link(f"{own}/results", f"{_REL}/results", "Results"))
    if job.status == "failed":
        links.append(link(f"{own}/results", f"{_REL}/exceptions", "The error", PROBLEM_TYPE))
    return {**found, "links": cast("JsonValue", links)}


def job_list(base: str, jobs: Iterable[Job]) -> Document:
    """Return the jobs of a caller."""
    return {
        "jobs": [status_info(base, each) for each in jobs],
        "links": _own(f"{base}/jobs", "This document"),
    }


def _input(port: Port, description: Description) -> Document:
    found: Document = {
        **_texts(port),
        "schema": _schema(port, description),
        "minOccurs": 1 if port.required else 0,
    }
    return {**found, "maxOccurs": "unbounded"} if port.kind == "images" else found


def _texts(port: Port) -> Document:
    text = port.schema.get("description")
    return {"title": str(port.schema.get("title") or port.name), "description": str(text or "")}


def _schema(port: Port, description: Description) -> Document:
    """Return the schema of a value: an image is a file, or a link to one."""
    if port.kind in ("image", "images"):
        types = _ANY_IMAGE if description.input(port.name) is port else (GEOTIFF, "image/png")
        forms: list[JsonValue] = [
            {"type": "string", "contentEncoding": "binary", "contentMediaType": each}
            for each in types
        ]
        return {"oneOf": forms}
    return _plain(value_schema(port, description))


def _plain(schema: Document) -> Document:
    """Return a schema without null, which is an absent value here; a union of types is `oneOf`."""
    found = {key: each for key, each in schema.items() if not (key == "default" and each is None)}
    branches = found.pop("anyOf", None)
    if not isinstance(branches, list):
        return found
    rest = [each for each in branches if each != {"type": "null"}]
    if len(rest) == 1 and isinstance(rest[0], dict):
        return {**found, **rest[0]}
    types = [each.get("type") for each in rest if isinstance(each, dict)]
    is_disjoint = all(isinstance(each, str) for each in types) and len({*types}) == len(rest)
    is_disjoint = is_disjoint and not {"integer", "number"} <= {*types}
    return {**found, "oneOf" if is_disjoint else "anyOf": rest}


def openapi_30(base: str, processes: Mapping[str, Description]) -> Document:
    """Return the OpenAPI 3.0 document of these endpoints; that of PESTO's is at `/openapi.json`.

    Args:
        base: Address of the service, without a slash at the end.
        processes: Name -> description.
    """
    page = {JSON_TYPE: {"schema": {"type": "object"}}, HTML_TYPE: {"schema": {"type": "string"}}}
    problem = {PROBLEM_TYPE: {"schema": {"type": "object"}}}

    def operation(name: str, success: str, **more: object) -> JsonValue:
        return cast("JsonValue", {
            "operationId": name,
            "responses": {
                success: {"description": "as OGC 18-062r2 has it", "content": page},
                "default": {"description": "a problem document (RFC 7807)", "content": problem},
            },
            **more,
        })  # fmt: skip

    def part(name: str, *values: str) -> dict[str, JsonValue]:
        schema: Document = {"type": "string"}
        if values:
            schema["enum"] = [*values]
        return {"name": name, "in": "path", "required": True, "schema": schema}

    process, job = [part("processID", *processes)], [part("jobID")]
    body = {"required": True, "content": {JSON_TYPE: {"schema": {"type": "object"}}}}
    limit = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1}}
    paths: dict[str, JsonValue] = {
        "/": {"get": operation("getLandingPage", "200")},
        "/conformance": {"get": operation("getConformance", "200")},
        "/processes": {"get": operation("getProcesses", "200", parameters=[limit])},
        "/processes/{processID}": {"get": operation("getProcess", "200", parameters=process)},
        "/processes/{processID}/execution": {
            "post": operation("execute", "200", parameters=process, requestBody=body)
        },
        "/processes/{processID}/validation": {
            "post": operation("validate", "200", parameters=process, requestBody=body)
        },
        "/processes/{processID}/quote": {
            "post": operation("quote", "200", parameters=process, requestBody=body)
        },
        "/jobs": {"get": operation("getJobs", "200", parameters=[limit])},
        "/jobs/{jobID}": {
            "get": operation("getStatus", "200", parameters=job),
            "delete": operation("dismiss", "200", parameters=job),
        },
        "/jobs/{jobID}/results": {"get": operation("getResults", "200", parameters=job)},
    }
    versions = ", ".join(each.version for each in processes.values())
    return {
        "openapi": "3.0.3",
        "info": {"title": ", ".join(processes), "version": versions},
        "servers": [{"url": base}],
        "paths": paths,
    }
