"""Call a process of any OGC API - Processes service (OGC 18-062r2) as steps, without I/O.

Its address is `https://host/processes/ID`. Its description is made from that of OGC, which states
neither bands nor margins: an overlay adds them.
"""

from __future__ import annotations

import base64
import json
from email.parser import BytesParser
from email.policy import HTTP
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from pesto_runtime.client.answering import decoded_image, outputs_of_json
from pesto_runtime.client.describing import (
    Described,
    References,
    request_description,
    request_health,
)
from pesto_runtime.client.jobs import JobSteps
from pesto_runtime.client.sending import JSON, TIFF, outgoing_of
from pesto_runtime.client.steps import (
    Patience,
    Request,
    Wait,
    exchange,
    json_of,
    misbehaved,
)
from pesto_runtime.client.transport import is_ogc
from pesto_runtime.contract import Description
from pesto_runtime.errors import AlgorithmFailed, InvalidContract, InvalidInput, ServiceMisbehaved
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.client.describing import Health
    from pesto_runtime.client.sending import OutgoingCall, Sent
    from pesto_runtime.client.steps import Reply, Steps
    from pesto_runtime.contract import Job, Port

    Document = dict[str, JsonValue]

_SERVED_BY_PESTO = "/api/v1/describe"
_TYPES = "x-media-types"
_IS_SYNCHRONOUS = "x-ogc-sync"
_DEFINITIONS: Document = {
    "Image": {"type": "string"}, "Images": {"type": "array"},
}  # fmt: skip
_WRITTEN = (TIFF, "image/png")
_QUALIFIED = frozenset({"value", "mediaType", "encoding", "schema", "format"})
_FIRST_POLL_S, _LONGEST_POLL_S = 0.1, 5.0
_RESULTS = "http://www.opengis.net/def/rel/ogc/1.0/results"


class _NoReferences(References):
    """Permits no href: a service of others reads none of ours."""

    def admits(self, href: str) -> bool:  # noqa: ARG002  # the same for every href
        return False


def request_processes(where: str, patience: Patience) -> Steps[list[str]]:
    """Return the addresses of the processes of a service: those of PESTO where it has them.

    Args:
        where: Address of the service, of its list of processes, or of one of them.
        patience: Retries of the request.

    Raises:
        PestoError: the service does not respond, or not with a list.
    """
    if is_ogc(where) and not where.endswith("/processes"):
        return [where]
    where = f"{where.removesuffix('/api/v1').removesuffix('/processes')}/processes"
    reply = yield from exchange(Request("GET", where, {"Accept": JSON}), where, patience)
    document = json_of(reply, where)
    listed = document.get("processes") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise misbehaved(reply, where, "not a list of processes")
    return [_address(each, where) for each in listed if isinstance(each, dict)]


def request_ogc_description(where: str, patience: Patience) -> Steps[Described]:
    """Return the description of a process, made from that of OGC.

    Raises:
        ServiceMisbehaved: the response is not a description.
        PestoError: the service does not respond, or returns an error.
    """
    reply = yield from exchange(Request("GET", "", {"Accept": JSON}), where, patience)
    document = json_of(reply, where)
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise misbehaved(reply, where, "not the description of a process")
    try:
        description = Description.parse(_description(document))
    except InvalidContract as error:
        raise ServiceMisbehaved(
            f"{where} describes a process that cannot be used: {error.detail}",
            fields=error.fields,
        ) from error
    build = f"{description.name}@{description.version}"
    return Described(description, (JSON,), build, description.digest)


def request_ogc_health(where: str, patience: Patience) -> Steps[Health]:
    """Return OK if the service describes the process; raises as `request_ogc_description`."""
    yield from request_ogc_description(where, patience)
    return "OK"


def describe(where: str, patience: Patience) -> Steps[Described]:
    """Return the description of a service of either kind, by its address."""
    request = request_ogc_description if is_ogc(where) else request_description
    return request(where, patience)


def health(where: str, patience: Patience) -> Steps[Health]:
    """Return the state of a service of either kind, by its address."""
    return request_ogc_health(where, patience) if is_ogc(where) else request_health(where)


def steps_of(where: str) -> type[JobSteps]:
    """Return the requests of calls and jobs to a service of either kind, by its address."""
    return OgcSteps if is_ogc(where) else JobSteps


class OgcSteps(JobSteps):
    """The requests to a process of an OGC service, as steps; jobs of PESTO's kind are refused."""

    def process(self, call: OutgoingCall, _: References) -> Steps[dict[str, object]]:
        """Execute the process with pixels in the request; return its outputs.

        A tile is not sent. A process without `sync-execute` is executed as a job.

        Raises:
            InvalidInput: an unknown input, or an option that OGC does not have.
            PestoError: the error of the service, `Unreachable`, or `ServiceMisbehaved`.
        """
        if call.out or call.partial or call.finish is not None:
            raise InvalidInput(f"{self.where} is not PESTO's: it has no out, partial or finish")
        headers = {"Content-Type": JSON, "Accept": f"{JSON}, */*;q=0.5"}
        if not self.described.description.document.get(_IS_SYNCHRONOUS, True):
            headers["Prefer"] = "respond-async"
        content = json.dumps(_body(call, self.described, self.where), allow_nan=False).encode()
        reply = yield from self.exchange(Request("POST", "/execution", headers, content=content))
        if reply.status == 201 and "location" in reply.headers:
            reply = yield from self._job_results(reply.headers["location"])
        return (yield from self._outputs(reply, call))

    def version(self) -> Steps[JsonValue]:
        """Return the version of the description."""
        yield from ()
        return {"version": self.described.description.version}

    def submit(self, *_: object, **__: object) -> Steps[Job]:
        """Refuse it: there are no keys and no leases.

        Raises:
            InvalidInput: always.
        """
        raise InvalidInput(
            f"{self.where} is a process of OGC API - Processes: `process` calls it, and waits for "
            "its job; jobs with keys are PESTO's"
        )

    def _job_results(self, location: str) -> Steps[Reply]:
        """Wait for the end of a job; return its results."""
        url, poll_s = self._own(location), _FIRST_POLL_S
        while True:
            reply = yield from self.exchange(Request("GET", url, {"Accept": JSON}))
            job = json_of(reply, self.where)
            if not isinstance(job, dict):
                raise misbehaved(reply, self.where, "not the state of a job")
            if job.get("status") in ("failed", "dismissed"):
                detail = job.get("message") or f"the job is {job['status']}"
                raise AlgorithmFailed(f"{self.where}: {detail}")
            if job.get("status") == "successful":
                found = [each["href"] for each in _links(job) if each.get("rel") == _RESULTS]
                results = self._own(str(found[0]) if found else f"{url}/results")
                return (yield from self.exchange(Request("GET", results, {"Accept": JSON})))
            yield Wait(poll_s)
            poll_s = min(2 * poll_s, _LONGEST_POLL_S)

    def _outputs(self, reply: Reply, call: OutgoingCall) -> Steps[dict[str, object]]:
        ports = self.described.description.outputs
        found: dict[str, object] = {}
        values: Document = {}
        for name, media_type, data in self._parts(reply, ports):
            port = self.described.description.output(name)
            if port is not None and port.kind in ("image", "images") and media_type != JSON:
                with_place = call.accept == TIFF
                found[name] = decoded_image(data, port, self.where, with_georeference=with_place)
            else:
                values[name] = json.loads(data) if media_type == JSON else data.decode()
        if reply.media_type == JSON:
            document = _unwrapped(json_of(reply, self.where), [port.name for port in ports])
            for name, value in document.items():
                values[name] = yield from self._plain(value)
        return found | outputs_of_json(values, call, self.described, where=self.where)

    def _parts(self, reply: Reply, ports: tuple[Port, ...]) -> Iterator[tuple[str, str, bytes]]:
        """Yield output, media type and content of a response that is no JSON document."""
        media_type = reply.media_type
        if media_type == "multipart/related":
            head = f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode()
            for part in BytesParser(policy=HTTP).parsebytes(head + reply.content).iter_parts():
                content = part.get_payload(decode=True)
                name = str(part["content-id"] or "").strip("<> ")
                yield name, part.get_content_type(), content if isinstance(content, bytes) else b""
        elif media_type != JSON and len(ports) == 1:
            yield ports[0].name, media_type, reply.content
        elif media_type != JSON:
            raise misbehaved(reply, self.where, "not a document of the outputs")

    def _plain(self, value: JsonValue) -> Steps[JsonValue]:
        """Return a value without what qualifies it; one by reference is requested."""
        if not isinstance(value, dict):
            return value
        if "value" in value and value.keys() <= _QUALIFIED:
            return value["value"]
        if isinstance(value.get("href"), str) and value.keys() <= {"href", "rel", "type", "title"}:
            reply = yield from self.exchange(Request("GET", self._own(str(value["href"]))))
            if reply.media_type == JSON:
                return json_of(reply, self.where)
            return base64.b64encode(reply.content).decode()
        return value

    def _own(self, href: str) -> str:
        """Return a URL of the same server: others do not get the headers of this one.

        Raises:
            ServiceMisbehaved: it is of another one.
        """
        url = urljoin(f"{self.where}/", href)
        if urlsplit(url)[:2] != urlsplit(self.where)[:2]:
            raise ServiceMisbehaved(
                f"{self.where} refers to {url}, which is on another server and is not requested; "
                "have the service return its own address, or values in place of references"
            )
        return url


def _address(listed: Mapping[str, JsonValue], where: str) -> str:
    for each in _links(listed):
        href = str(each["href"])
        if each.get("rel") == "service-desc" and href.endswith(_SERVED_BY_PESTO):
            return href.removesuffix("/describe")
    return f"{where}/{listed.get('id')}"


def _links(document: Mapping[str, JsonValue]) -> Iterator[Mapping[str, JsonValue]]:
    links = document.get("links")
    for each in links if isinstance(links, list) else ():
        if isinstance(each, dict) and "href" in each:
            yield each


def _description(document: Document) -> Document:
    """Return PESTO's description of a process; it takes whole images until an overlay says else."""
    options = document.get("jobControlOptions")
    inputs = _entries(document, "inputs")
    return {
        "name": document["id"],
        "version": str(document.get("version") or "0.0.0"),
        "title": str(document.get("title") or ""),
        "description": str(document.get("description") or ""),
        _IS_SYNCHRONOUS: not isinstance(options, list) or "sync-execute" in options or not options,
        "input": {
            "type": "object",
            "definitions": _DEFINITIONS,
            "properties": {name: _schema(each) for name, each in inputs.items()},
            "required": [name for name, each in inputs.items() if each.get("minOccurs", 1) != 0],
        },
        "output": {
            "type": "object",
            "definitions": _DEFINITIONS,
            "properties": {n: _schema(each) for n, each in _entries(document, "outputs").items()},
        },
    }


def _entries(document: Document, side: str) -> dict[str, Document]:
    found = document.get(side)
    entries = found.items() if isinstance(found, dict) else ()
    return {name: each for name, each in entries if isinstance(each, dict)}


def _schema(entry: Document) -> Document:
    """Return the schema of a port: an image if a form of it is an image file."""
    texts = {key: entry[key] for key in ("title", "description") if entry.get(key)}
    schema = entry.get("schema")
    own: Document = dict(schema) if isinstance(schema, dict) else {}
    types = [*dict.fromkeys(each for each in _media_types(own) if each.startswith("image/"))]
    most = entry.get("maxOccurs", 1)
    is_list = most == "unbounded" or (isinstance(most, int) and most > 1)
    if types:
        name = "Images" if is_list or own.get("type") == "array" else "Image"
        return {**texts, "$ref": f"#/definitions/{name}", _TYPES: [*types]}
    if '"$ref"' in json.dumps(own):
        return dict(texts)  # the service has the definitions, and validates the value
    if is_list and own.get("type") != "array":
        return {**texts, "anyOf": [own, {"type": "array", "items": own}]}
    return {**own, **texts}


def _media_types(schema: JsonValue) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("contentMediaType"), str):
        yield str(schema["contentMediaType"]).partition(";")[0].strip().lower()
    for key in ("oneOf", "anyOf", "allOf"):
        branches = schema.get(key)
        for each in branches if isinstance(branches, list) else ():
            yield from _media_types(each)
    yield from _media_types(schema.get("items"))


def _body(call: OutgoingCall, described: Described, where: str) -> Document:
    outgoing = outgoing_of(call, described, _NoReferences(where, described))
    inputs: Document = {name: _qualified(each) for name, each in outgoing.others.items()}
    for name, image in outgoing.images.items():
        port = described.description.input(name)
        types = port.schema.get(_TYPES, [TIFF]) if port else [TIFF]
        media_type = _written(types if isinstance(types, list) else [TIFF])
        several = image if isinstance(image, list) else [image]
        sent: list[JsonValue] = [_sent(each, media_type) for each in several]
        inputs[name] = sent if isinstance(image, list) else sent[0]
    return {
        "inputs": inputs,
        "outputs": {
            port.name: {"transmissionMode": "value"} for port in described.description.outputs
        },
        "response": "document",
    }


def _written(types: Iterable[JsonValue]) -> str:
    """Return the media type of an image in a request: one that the process takes."""
    return next((each for each in _WRITTEN if each in types), TIFF)


def _sent(image: Sent, media_type: str) -> JsonValue:
    if not isinstance(image, Image):
        return str(image)
    text = base64.b64encode(encode_image(image, media_type)).decode("ascii")
    return {"value": text, "mediaType": media_type, "encoding": "base64"}


def _qualified(value: JsonValue) -> JsonValue:
    # OGC 18-062r2, section 7.11.2.3: an object is qualified, so that it is not taken for one.
    return {"value": value} if isinstance(value, dict) and "bbox" not in value else value


def _unwrapped(document: JsonValue, names: list[str]) -> Document:
    """Return output -> value, also from the forms that services write for a single output."""
    if isinstance(document, dict) and any(name in document for name in names):
        return document
    listed = document.get("outputs") if isinstance(document, dict) else None
    entries = listed if isinstance(listed, list) else [document]
    named = {str(each["id"]): each["value"] for each in entries
             if isinstance(each, dict) and each.keys() == {"id", "value"}}  # fmt: skip
    if named:
        return named
    return {names[0]: document} if len(names) == 1 else {}
