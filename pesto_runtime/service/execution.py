"""One call from bytes to bytes: read, run, write. It blocks, and knows nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.client.multipart import FORM_TYPE
from pesto_runtime.client.tracing import traced
from pesto_runtime.processor import Given, check_outputs, decode_partial, encode_partial
from pesto_runtime.service.batches import all_ready, answer_of, is_batch, read_batch
from pesto_runtime.service.faults import Faults
from pesto_runtime.service.images import ImageLoader
from pesto_runtime.service.inputs import InputReader, RequestInputs
from pesto_runtime.service.outputs import admitted, json_answer, wanted, write_answer
from pesto_runtime.service.payload import JSON_TYPE, read_payload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import CallOptions
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.processor import Processor
    from pesto_runtime.service.answers import CallResponse
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.outputs import Wanted
    from pesto_runtime.service.payload import ParsedRequest, Payload

    OnTile: TypeAlias = Callable[[str], None]


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
        none = RequestInputs(Given(), None, None, None)
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
