"""Several payloads in one request: a JSON array, or a form whose parts are named `/0/scene`.

The answer is an array of outputs in their order, or a form whose parts are named `/0/cloud`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.client.multipart import Part, is_form, read_parts, write_parts
from pesto_runtime.errors import BadRequest, InvalidInput, PestoError, TooLarge, shortened
from pesto_runtime.service.answers import CallResponse
from pesto_runtime.service.faults import Faults
from pesto_runtime.service.payload import (
    JSON_TYPE,
    ParsedRequest,
    form_call,
    is_image_type,
    json_call,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pesto_runtime.contract import Description
    from pesto_runtime.service.payload import Payload

    Unread: TypeAlias = Callable[[Faults], ParsedRequest]
    Ready: TypeAlias = Callable[[], CallResponse]

_LOOKED_INTO_BYTES = 1024
_NAMED = re.compile(r"/(\d{1,6})/(.*)", re.DOTALL)


def is_batch(payload: Payload) -> bool:
    """Whether a request carries several payloads; its first bytes tell."""
    spool = payload.spool
    head = payload.body if spool is None else next(spool.pieces(_LOOKED_INTO_BYTES), b"")
    if is_form(payload.media_type):
        return b'name="/0/' in head[:_LOOKED_INTO_BYTES]
    is_array = head[:_LOOKED_INTO_BYTES].lstrip().startswith(b"[")
    return is_array and not is_image_type(payload.media_type)


def read_batch(payload: Payload, description: Description) -> list[Unread]:
    """Take a request apart: a reader of each payload, which is judged once it is read.

    Raises:
        BadRequest: the body cannot be understood.
        InvalidInput: the process takes one payload per request.
        TooLarge: these are more than it takes.
    """
    if not description.known.batched:
        raise InvalidInput(
            f"{description.name} takes one payload per request, a JSON object with an input per "
            "key; it is not batched"
        )
    unread = _of_form(payload, description) if is_form(payload.media_type) else _of_array(payload)
    if len(unread) > description.max_batch_size:
        raise TooLarge(
            f"{description.name} takes at most {description.max_batch_size} payloads per request "
            f"(resources.max_batch_size), not {len(unread)}"
        )
    return unread


def all_ready(
    unread: Sequence[Unread], prepared: Callable[[ParsedRequest, Faults], Ready], *, what: str
) -> list[Ready]:
    """Read and judge all payloads, and tell all that is wrong with any of them.

    Raises:
        PestoError: the kind that all faults share, `InvalidInput` for a mixture; with pointers
            as `/0/scene`.
    """
    told, ready = Faults(), []
    for index, read in enumerate(unread):
        faults = Faults()
        try:
            ready.append(prepared(read(faults), faults))
        except PestoError as error:
            told.add_error(f"/{index}", error)
    told.raise_any(what)
    return ready


def answer_of(answers: Sequence[CallResponse]) -> CallResponse:
    """One answer of those to each payload: an array, or a form where they are forms."""
    if not any(is_form(each.media_type) for each in answers):
        return CallResponse(b"[" + b",".join(each.whole() for each in answers) + b"]", JSON_TYPE)
    parts = []
    for index, each in enumerate(answers):
        if not is_form(each.media_type):
            parts.append(Part(f"/{index}/", each.whole(), each.media_type))
            continue
        found = read_parts(each.whole(), each.media_type)
        parts += [replace(part, name=f"/{index}/{part.name}") for part in found]
    return CallResponse(*write_parts(parts))


def _of_array(payload: Payload) -> list[Unread]:
    documents = read_json(payload.whole(), "the body")
    if not isinstance(documents, list):
        raise BadRequest(f"a batch is a JSON array of payloads, not {shortened(documents)}")
    return [partial(json_call, each) for each in documents]


def _of_form(payload: Payload, description: Description) -> list[Unread]:
    groups: dict[int, list[Part]] = {}
    for part in read_parts(payload.whole(), payload.media_type):
        named = _NAMED.fullmatch(part.name)
        if named is None:
            raise BadRequest(f"each part of a batch is named /INDEX/INPUT, not {part.name!r}")
        groups.setdefault(int(named[1]), []).append(replace(part, name=named[2]))
    if sorted(groups) != list(range(len(groups))):
        raise BadRequest(f"payloads of a batch count from 0; there are {sorted(groups)[:8]}")
    return [partial(form_call, groups[index], description) for index in range(len(groups))]
