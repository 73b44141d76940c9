"""Check what a service says of itself: documents, links, headers of its code, a pinned digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from jsonschema import Draft6Validator
from jsonschema.exceptions import SchemaError

from pesto_runtime.contract import Description, drift
from pesto_runtime.contract.canonical import digest
from pesto_runtime.errors import InvalidInput, PestoError
from pesto_runtime.kit.check_list import check
from pesto_runtime.kit.claims import NotApplicable, require
from pesto_runtime.kit.service_under_test import json_object, shown

if TYPE_CHECKING:
    import httpx
    from pydantic import JsonValue

    from pesto_runtime.kit.service_under_test import ServiceUnderTest

_DIGEST, _BUILD = "x-pesto-digest", "x-pesto-build"


@check
def the_description_is_valid(service: ServiceUnderTest) -> None:
    """GET /describe returns a description without contradictions."""
    answer = service.get("/describe")
    require(answer.status_code == 200, shown(answer))
    kind = answer.headers.get("content-type", "")
    require(kind.startswith("application/json"), f"/describe is {kind}, not application/json")
    try:
        Description.parse(json_object(answer))
    except PestoError as error:
        raise AssertionError(str(error)) from error


@check
def the_schemas_are_valid(service: ServiceUnderTest) -> None:
    """Inputs and outputs are JSON schemas (draft-06), and each `$ref` leads to a definition."""
    for side in ("input", "output"):
        schema = cast("dict[str, JsonValue]", service.description.document[side])
        try:
            Draft6Validator.check_schema(schema)
        except SchemaError as error:
            raise AssertionError(f"/{side}: {error.message}") from error
        definitions = schema.get("definitions")
        known = definitions if isinstance(definitions, dict) else {}
        for reference in _references(schema):
            name = reference.removeprefix("#/definitions/")
            require(
                name in known or not reference.startswith("#/definitions/"),
                f"/{side}: {reference} has no definition; there are {', '.join(known) or 'none'}",
            )


@check
def the_description_is_stable(service: ServiceUnderTest) -> None:
    """The description is the same at each request, also after a call."""
    first = digest(json_object(service.get("/describe")))
    service.post({})
    service.called(service.sample)
    second = digest(json_object(service.get("/describe")))
    require(first == second, f"the digest was {first}, and is {second}")


@check
def the_other_documents_respond(service: ServiceUnderTest) -> None:
    """GET /health returns OK, GET /version a JSON object with a version, GET /openapi a text."""
    health = service.get("/health")
    require(health.status_code == 200 and health.text.strip() == "OK", f"health: {shown(health)}")
    version = service.get("/version")
    require(version.status_code == 200, f"version: {shown(version)}")
    require("version" in json_object(version), f"version: {shown(version)}")
    openapi = service.get("/openapi")
    require(openapi.status_code == 200 and openapi.content, f"openapi: {shown(openapi)}")


@check
def the_links_lead_to_the_service(service: ServiceUnderTest) -> None:
    """Each link with the method GET in `_links` leads to a document of this service."""
    links = json_object(service.get("/describe")).get("_links")
    require(isinstance(links, dict) and links, "the description has no `_links`")
    known = {name: each for name, each in cast("dict[str, JsonValue]", links).items()
             if isinstance(each, dict)}  # fmt: skip
    missing = [name for name in ("self", "execution", "health", "version") if name not in known]
    require(not missing, f"`_links` has no {', '.join(missing)}")
    for name, link in known.items():
        if str(link.get("method", "GET")).upper() != "GET" or name in ("config", "execution"):
            continue
        answer = service.get(_path_of(str(link.get("href", ""))))
        require(answer.status_code == 200, f"link {name!r}: {shown(answer)}")


@check
def each_response_states_the_code(service: ServiceUnderTest) -> None:
    """X-Pesto-Digest and X-Pesto-Build are on results and errors, and are those of /describe."""
    described = service.get("/describe")
    stated = _stated(described)
    if stated == (None, None):
        raise NotApplicable(
            "the service states neither X-Pesto-Digest nor X-Pesto-Build, as PESTO 1.7.2: a change "
            "of its code during a run is seen only by /describe and /version"
        )
    actual = digest(json_object(described))
    require(stated[0] == actual, f"X-Pesto-Digest is {stated[0]}; the description has {actual}")
    for name, answer in (
        ("a result", service.called(service.sample)),
        ("an error", service.send("POST", "/process", content=b"{")),
        ("health", service.get("/health")),
        ("an unknown path", service.get("/no-such-path")),
    ):
        require(_stated(answer) == stated, f"{name} states {_stated(answer)}, not {stated}")


@check
def the_description_has_not_drifted(service: ServiceUnderTest) -> None:
    """The description is the pinned one: the digest, or the file of `pesto discover`."""
    if service.pin is None:
        raise NotApplicable("nothing is pinned: --pesto-pin DIGEST_OR_FILE")
    actual = service.description
    if service.pin.startswith("sha256:"):
        require(actual.digest == service.pin, f"pinned {service.pin}, found {actual.digest}")
        return
    saved = _saved(Path(service.pin))
    changes = [f"{each.pointer}: {each.detail}" for each in drift(saved, actual)]
    require(
        saved.digest == actual.digest,
        f"differs from {service.pin}: {'; '.join(changes) or 'only in texts'}",
    )


def _saved(path: Path) -> Description:
    """Read a description that `pesto discover` saved, or one alone."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"--pesto-pin {path}: {error}") from error
    body = document.get("description") if isinstance(document, dict) else None
    return Description.parse(body if isinstance(body, dict) else document)


def _references(schema: JsonValue) -> list[str]:
    if isinstance(schema, list):
        return [found for each in schema for found in _references(each)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
    return [str(each) for each in own] + [
        found for each in schema.values() for found in _references(each)
    ]


def _path_of(href: str) -> str:
    """Return the path of a link below `/api/v1`: a proxy may give the service another host."""
    return href.rpartition("/api/v1")[2] or "/describe"


def _stated(answer: httpx.Response) -> tuple[str | None, str | None]:
    return answer.headers.get(_DIGEST), answer.headers.get(_BUILD)
