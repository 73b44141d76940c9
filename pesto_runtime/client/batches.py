"""Send several calls in one request, to a process that accepts batches.

One call is written by `sending.py` and read by `answering.py`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pesto_runtime.client.answering import (
    outputs_of_json,
    outputs_of_parts,
    parts_of,
    perform_calls,
)
from pesto_runtime.client.multipart import FORM_TYPE, Part, write_parts
from pesto_runtime.client.sending import JSON, NPY, TIFF, accepted, json_text, outgoing_of
from pesto_runtime.client.steps import Request, json_of, misbehaved
from pesto_runtime.errors import ServiceMisbehaved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described, References
    from pesto_runtime.client.jobs import JobSteps
    from pesto_runtime.client.sending import OutgoingCall
    from pesto_runtime.client.steps import Reply, Steps


def process_many(
    jobs: JobSteps, calls: Sequence[OutgoingCall], references: References
) -> Steps[list[dict[str, object]]]:
    """Perform calls in as few requests as the process permits; return the outputs of each.

    Raises:
        PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
    """
    outputs: list[dict[str, object]] = []
    description = jobs.described.description
    at_once = 1 if description.known.asynchronous else description.max_batch_size
    for start in range(0, len(calls), at_once):
        chunk = calls[start : start + at_once]
        if len(chunk) == 1:
            outputs.append((yield from jobs.process(chunk[0], references)))
        else:
            outputs += yield from _process_batch(jobs, chunk, references)
    return outputs


def _process_batch(
    jobs: JobSteps, calls: Sequence[OutgoingCall], references: References
) -> Steps[list[dict[str, object]]]:
    described, where = jobs.described, jobs.where

    def perform(request: Request) -> Steps[list[dict[str, object]]]:
        reply = yield from jobs.exchange(request)
        return read_answers(reply, calls, described, where=where)

    write = partial(batch_request, calls, described)
    return perform_calls(calls, described, references, where=where, write=write, perform=perform)


def batch_request(
    calls: Sequence[OutgoingCall], described: Described, references: References
) -> Request:
    """Write calls as one request: a form if pixels are sent and forms are accepted, else JSON.

    Raises:
        InvalidInput: a call is not valid.
        RasterUnreadable: an image whose pixels must be sent cannot be read here.
    """
    outgoing = [outgoing_of(each, described, references) for each in calls]
    headers = {"Content-Type": JSON, "Accept": _accept(calls[0], described)}
    if FORM_TYPE in described.transports and any(each.has_pixels for each in outgoing):
        parts = [
            replace(part, name=f"/{index}/{part.name}")
            for index, each in enumerate(outgoing)
            for part in each.parts() or [Part("pesto", b"{}", JSON)]
        ]
        content, media_type = write_parts(parts)
        return Request("POST", "/process", {**headers, "Content-Type": media_type}, content=content)
    knows_options = not described.is_plain_pesto
    documents: list[JsonValue] = [each.document(knows_options=knows_options) for each in outgoing]
    content = json_text(documents).encode()
    return Request("POST", "/process", headers, content=content, alone=described.is_plain_pesto)


def read_answers(
    reply: Reply, calls: Sequence[OutgoingCall], described: Described, *, where: str
) -> list[dict[str, object]]:
    """Read the outputs of each call.

    Raises:
        ServiceMisbehaved: the response does not have the outputs of each call.
    """
    if reply.media_type == FORM_TYPE:
        groups = _grouped(parts_of(reply, where), len(calls), where)
        return [
            _outputs(parts, call, described, where)
            for parts, call in zip(groups, calls, strict=True)
        ]
    documents = json_of(reply, where)
    if not isinstance(documents, list) or len(documents) != len(calls):
        raise misbehaved(reply, where, f"not a JSON array of {len(calls)} outputs")
    outputs = []
    for document, call in zip(documents, calls, strict=True):
        if not isinstance(document, dict):
            raise misbehaved(reply, where, "not a JSON array of objects")
        outputs.append(outputs_of_json(document, call, described, where=where))
    return outputs


def _accept(call: OutgoingCall, described: Described) -> str:
    if accepted(call, described) == JSON or FORM_TYPE not in described.transports:
        return JSON
    return f"{FORM_TYPE}, {TIFF if call.accept == TIFF else NPY};q=0.5"


def _grouped(parts: Sequence[Part], count: int, where: str) -> list[list[Part]]:
    """Return the parts `/INDEX/OUTPUT` of each call, with the name of the output."""
    groups: list[list[Part]] = [[] for _ in range(count)]
    for part in parts:
        _, index, name = (*part.name.split("/", 2), "", "")[:3]
        if not index.isdecimal() or int(index) >= count:
            raise ServiceMisbehaved(
                f"{where} returned a part {part.name!r} that belongs to none of {count} calls"
            )
        groups[int(index)].append(replace(part, name=name))
    return groups


def _outputs(
    parts: Sequence[Part], call: OutgoingCall, described: Described, where: str
) -> dict[str, object]:
    """Read the outputs of one call; a single part without a name has all of them as JSON."""
    if len(parts) == 1 and not parts[0].name:
        return outputs_of_json(json.loads(parts[0].data), call, described, where=where)
    return outputs_of_parts(parts, call, described, where=where)
