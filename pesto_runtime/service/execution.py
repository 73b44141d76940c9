"""One call from bytes to bytes: read, run, write. It blocks, and knows nothing of HTTP."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.client.multipart import FORM_TYPE, Part, is_form, read_parts, write_parts
from pesto_runtime.client.transport import traced
from pesto_runtime.errors import BadRequest, InvalidInput, PestoError, TooLarge, shortened
from pesto_runtime.processor import OwnedInputs, check_outputs, decode_partial, encode_partial
from pesto_runtime.service.input_reader import ImageLoader, InputReader, RequestInputs
from pesto_runtime.service.outputs import admitted, json_answer, wanted, write_answer
from pesto_runtime.service.problems import Faults
from pesto_runtime.service.request import (
    JSON_TYPE,
    ParsedRequest,
    form_call,
    is_image_type,
    json_call,
    read_json,
    read_payload,
)
from pesto_runtime.service.runs import CallResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    OnTile: TypeAlias = Callable[[str], None]
    from collections.abc import Sequence

    Unread: TypeAlias = Callable[[Faults], ParsedRequest]
    Ready: TypeAlias = Callable[[], CallResponse]
    from pesto_runtime.contract import CallOptions, Description
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.processor import Processor
    from pesto_runtime.service.admission import Limits
    from pesto_runtime.service.outputs import Wanted
    from pesto_runtime.service.request import Payload


def no_tile(_tile: str) -> None:
    """Ignore which tile a call is about."""


@dataclass(frozen=True)
class Execution:
    """Performs the calls of one service.

    Attributes:
        processor: What runs.
        gate: What hrefs pass.
        reader: Reads and judges inputs.
    """

    processor: Processor
    gate: Gate
    reader: InputReader

    @classmethod
    def of(cls, processor: Processor, gate: Gate, limits: Limits) -> Execution:
        """Make the execution of a processor; compiles its schema."""
        loader = ImageLoader(gate, limits.bounds)
        reader = InputReader(processor.description, loader, together=limits.bounds_of_request)
        return cls(processor, gate, reader)

    def answer(self, payload: Payload, *, on_tile: OnTile = no_tile) -> CallResponse:
        """Perform a call, or one after the other those of a batch, as part of its trace.

        Args:
            payload: The request; its body is let go once it is read.
            on_tile: Called with the tile that the request says it is about, as logs show it.

        Raises:
            PestoError: the request, the algorithm or the answer is at fault.
        """
        if not payload.trace:
            return self._answer(payload, on_tile)
        with traced(payload.trace):
            return self._answer(payload, on_tile)

    def _answer(self, payload: Payload, on_tile: OnTile) -> CallResponse:
        if is_batch(payload):
            return self._batch(payload)
        faults = Faults()
        call = read_payload(payload, self.processor.description, faults)
        if call.options.tile is not None:
            on_tile(",".join(str(each) for each in call.options.tile.write))
        ready = self._prepared(payload.accept, call, faults)
        del call  # and with it the body
        payload.let_go()
        return ready()

    def _batch(self, payload: Payload) -> CallResponse:
        """All payloads are judged before the first of them runs."""
        description = self.processor.description
        unread = read_batch(payload, description)
        accept = payload.accept if FORM_TYPE in payload.accept else JSON_TYPE
        prepared = partial(self._prepared, accept)
        ready = all_ready(unread, prepared, what=f"payloads of {description.name!r}")
        return answer_of([each() for each in ready])

    def _prepared(
        self, accept: str, call: ParsedRequest, faults: Faults
    ) -> Callable[[], CallResponse]:
        """Read and judge a call; what it returns runs it.

        Raises:
            PestoError: the request is at fault.
        """
        description, options = self.processor.description, call.options
        out = admitted(description, options.out, self.gate, faults)
        how = wanted(description, accept, out)
        self._judge_reduce(options, faults)
        if options.finish is not None:
            faults.raise_any(f"finish of {description.name!r}")
            return partial(self._finish, options.finish, how)
        inputs = self.reader.read(call, faults)
        return (
            partial(self._partial, inputs) if options.partial else partial(self._run, inputs, how)
        )

    def _finish(self, merged: Mapping[str, JsonValue], how: Wanted) -> CallResponse:
        outputs = self.processor.finish(decode_partial(merged))
        none = RequestInputs(OwnedInputs(), None, None, None)
        return write_answer(self.processor.description, outputs, none, how)

    def _partial(self, inputs: RequestInputs) -> CallResponse:
        return json_answer(encode_partial(self.processor.partial(inputs.values, tile=inputs.tile)))

    def _run(self, inputs: RequestInputs, how: Wanted) -> CallResponse:
        outputs = self.processor.run(inputs.values, tile=inputs.tile)
        check_outputs(self.processor.description, inputs.values, outputs)
        inputs.values.clear()  # their memory goes before that of the answer is taken
        return write_answer(self.processor.description, outputs, inputs, how)

    def _judge_reduce(self, options: CallOptions, faults: Faults) -> None:
        kind = self.processor.description.tileable
        if (options.partial or options.finish is not None) and kind != "reduce":
            asked = "partial" if options.partial else "finish"
            faults.add(f"/pesto/{asked}", f"is for a reduce; this process is {kind!r}")
        if options.partial and options.finish is not None:
            faults.add("/pesto/finish", "excludes pesto.partial")


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
