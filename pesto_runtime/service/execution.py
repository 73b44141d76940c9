"""Perform one call, or a batch, from the bytes of the request to those of the response.

It blocks: a worker process, or a thread, runs it. HTTP and the queue are in the service's front.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.client.multipart import FORM_TYPE, Part, is_form, read_parts, write_parts
from pesto_runtime.client.transport import traced
from pesto_runtime.errors import BadRequest, InvalidInput, PestoError, TooLarge, shortened
from pesto_runtime.processor import (
    FunctionProcessor,
    OwnedInputs,
    check_outputs,
    decode_partial,
    encode_partial,
)
from pesto_runtime.service.image_loader import ImageLoader
from pesto_runtime.service.input_reader import InputReader, RequestInputs
from pesto_runtime.service.outputs import admitted, json_response, negotiate, write_response
from pesto_runtime.service.request import (
    Faults,
    ParsedRequest,
    form_call,
    json_call,
    read_json,
    read_payload,
)
from pesto_runtime.service.runner import JSON_TYPE, CallResponse, is_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import CallOptions, Description
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.processor import Processor
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.outputs import ResponseFormat
    from pesto_runtime.service.runner import Payload

    OnTile: TypeAlias = Callable[[str], None]
    Parser: TypeAlias = Callable[[Faults], ParsedRequest]
    PreparedCall: TypeAlias = Callable[[], CallResponse]

_PART_NAME = re.compile(r"/(\d{1,6})/(.*)", re.DOTALL)


def no_tile(_tile: str) -> None:
    """Ignore the tile of a call."""


@dataclass(frozen=True)
class Execution:
    """Performs the calls of one service.

    Attributes:
        processor: Runs the process.
        gate: Access rules that an href must pass.
        reader: Reads and validates inputs.
        refuse_unknown: Whether names of a request that are not inputs are an error.
    """

    processor: Processor
    gate: Gate
    reader: InputReader
    refuse_unknown: bool

    @classmethod
    def of(cls, processor: Processor, gate: Gate, limits: Limits) -> Execution:
        """Prepare the calls of a processor: compile its schema."""
        loader = ImageLoader(gate, limits.bounds, limits.body_bytes)
        reader = InputReader(processor.description, loader, request_bounds=limits.bounds_of_request)
        refuses = limits.refuse_unknown
        if refuses is None:  # a PESTO project's callers rely on PESTO, which ignores them
            refuses = isinstance(processor, FunctionProcessor)
        return cls(processor, gate, reader, refuses)

    def perform(self, payload: Payload, *, on_tile: OnTile = no_tile) -> CallResponse:
        """Perform a call, or those of a batch one after the other, as part of its trace.

        Args:
            payload: The request; its body is released once it is parsed.
            on_tile: Called with the tile that the request names, as text for logs.

        Raises:
            PestoError: the request, the algorithm or its outputs are wrong.
        """
        if not payload.trace:
            return self._perform(payload, on_tile)
        with traced(payload.trace):
            return self._perform(payload, on_tile)

    def _perform(self, payload: Payload, on_tile: OnTile) -> CallResponse:
        if is_batch(payload):
            return self._batch(payload)
        faults = Faults()
        call = read_payload(payload, self.processor.description, faults)
        if call.options.tile is not None:
            on_tile(",".join(str(each) for each in call.options.tile.write))
        prepared = self._prepare(payload.accept, call, faults)
        ignored = call.ignored(self.processor.description)
        # Before the process runs, so that the body and the arrays do not need memory together.
        del call
        payload.release()
        response = prepared()
        return replace(response, ignored=ignored) if ignored else response

    def _batch(self, payload: Payload) -> CallResponse:
        """Validate all payloads before the first of them runs."""
        description = self.processor.description
        parsers = split_batch(payload, description)
        accept = payload.accept if FORM_TYPE in payload.accept else JSON_TYPE
        prepare = partial(self._prepare, accept)
        calls = prepare_all(parsers, prepare, subject=f"payloads of {description.name!r}")
        return joined_response([each() for each in calls])

    def _prepare(self, accept: str, call: ParsedRequest, faults: Faults) -> PreparedCall:
        """Validate a call and read its inputs; return a function that runs it.

        Raises:
            PestoError: the request is wrong.
        """
        description, options = self.processor.description, call.options
        if self.refuse_unknown and (unknown := call.ignored(description)):
            known = ", ".join(port.name for port in description.inputs) or "none"
            for name in unknown:
                faults.add(f"/{name}", f"is not an input; inputs are {known}")
        out = admitted(description, options.out, self.gate, faults)
        form = negotiate(description, accept, out)
        self._check_reduce(options, faults)
        if options.finish is not None:
            faults.raise_any(f"finish of {description.name!r}")
            return partial(self._finish, options.finish, form)
        try:
            inputs = self.reader.read(call, faults)
        except MemoryError as error:  # of this request, not of the algorithm
            raise TooLarge(
                "the images of this request need more memory than a worker may use; send a window "
                "of them, or start the service with more --memory"
            ) from error
        return (
            partial(self._partial, inputs) if options.partial else partial(self._run, inputs, form)
        )

    def _finish(self, merged: Mapping[str, JsonValue], form: ResponseFormat) -> CallResponse:
        outputs = self.processor.finish(decode_partial(merged))
        no_inputs = RequestInputs(OwnedInputs(), None, None, None)
        return write_response(self.processor.description, outputs, no_inputs, form)

    def _partial(self, inputs: RequestInputs) -> CallResponse:
        return json_response(
            encode_partial(self.processor.partial(inputs.values, tile=inputs.tile))
        )

    def _run(self, inputs: RequestInputs, form: ResponseFormat) -> CallResponse:
        outputs = self.processor.run(inputs.values, tile=inputs.tile)
        check_outputs(self.processor.description, inputs.values, outputs)
        inputs.values.clear()  # frees their memory before the response needs some
        return write_response(self.processor.description, outputs, inputs, form)

    def _check_reduce(self, options: CallOptions, faults: Faults) -> None:
        kind = self.processor.description.tileable
        if (options.partial or options.finish is not None) and kind != "reduce":
            option = "partial" if options.partial else "finish"
            faults.add(f"/pesto/{option}", f"requires a reduce; this process is {kind!r}")
        if options.partial and options.finish is not None:
            faults.add("/pesto/finish", "cannot be combined with pesto.partial")


def split_batch(payload: Payload, description: Description) -> list[Parser]:
    """Divide a request into its payloads; return a function that parses each.

    Raises:
        BadRequest: the body cannot be parsed.
        InvalidInput: the process accepts one payload per request.
        TooLarge: more payloads than the process accepts.
    """
    if not description.known.batched:
        raise InvalidInput(
            f"{description.name} accepts one payload per request, a JSON object with an input per "
            "key; it is not batched"
        )
    parsers = _of_form(payload, description) if is_form(payload.media_type) else _of_array(payload)
    if len(parsers) > description.max_batch_size:
        raise TooLarge(
            f"{description.name} accepts at most {description.max_batch_size} payloads per request "
            f"(resources.max_batch_size), not {len(parsers)}"
        )
    return parsers


def prepare_all(
    parsers: Sequence[Parser],
    prepare: Callable[[ParsedRequest, Faults], PreparedCall],
    *,
    subject: str,
) -> list[PreparedCall]:
    """Parse and validate all payloads; report the faults of all of them together.

    Raises:
        PestoError: of the class that all faults share, `InvalidInput` for a mixture; with pointers
            such as `/0/scene`.
    """
    all_faults, calls = Faults(), []
    for index, parse in enumerate(parsers):
        faults = Faults()
        try:
            calls.append(prepare(parse(faults), faults))
        except PestoError as error:
            all_faults.add_error(f"/{index}", error)
    all_faults.raise_any(subject)
    return calls


def joined_response(responses: Sequence[CallResponse]) -> CallResponse:
    """Join the responses to all payloads: into a JSON array, or into a form if they are forms."""
    if not any(is_form(each.media_type) for each in responses):
        return CallResponse(b"[" + b",".join(each.whole() for each in responses) + b"]", JSON_TYPE)
    parts = []
    for index, each in enumerate(responses):
        if not is_form(each.media_type):
            parts.append(Part(f"/{index}/", each.whole(), each.media_type))
            continue
        found = read_parts(each.whole(), each.media_type)
        parts += [replace(part, name=f"/{index}/{part.name}") for part in found]
    return CallResponse(*write_parts(parts))


def _of_array(payload: Payload) -> list[Parser]:
    documents = read_json(payload.whole(), "the body")
    if not isinstance(documents, list):
        raise BadRequest(f"a batch must be a JSON array of payloads, not {shortened(documents)}")
    return [partial(json_call, each) for each in documents]


def _of_form(payload: Payload, description: Description) -> list[Parser]:
    groups: dict[int, list[Part]] = {}
    for part in read_parts(payload.whole(), payload.media_type):
        match = _PART_NAME.fullmatch(part.name)
        if match is None:
            raise BadRequest(f"each part of a batch must be named /INDEX/INPUT, not {part.name!r}")
        groups.setdefault(int(match[1]), []).append(replace(part, name=match[2]))
    if sorted(groups) != list(range(len(groups))):
        raise BadRequest(f"payloads of a batch must be numbered from 0, not {sorted(groups)[:8]}")
    return [partial(form_call, groups[index], description) for index in range(len(groups))]
