"""One call from bytes to bytes: read, run, write. It blocks, and knows nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.processor import check_outputs, decode_partial, encode_partial
from pesto_runtime.service.faults import Faults
from pesto_runtime.service.images import ImageLoader
from pesto_runtime.service.inputs import InputReader, Inputs
from pesto_runtime.service.outputs import admitted, json_answer, wanted, write_answer
from pesto_runtime.service.payload import read_payload

if TYPE_CHECKING:
    from pesto_runtime.contract import CallOptions
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.processor import Processor
    from pesto_runtime.service.answers import Answer
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.payload import Payload


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
        return cls(processor, gate, InputReader(processor.description, loader))

    def answer(self, payload: Payload) -> Answer:
        """Perform a call.

        Raises:
            PestoError: the request, the algorithm or the answer is at fault.
        """
        description, faults = self.processor.description, Faults()
        call = read_payload(payload, description, faults)
        options = call.options
        out = admitted(description, options.out, self.gate, faults)
        how = wanted(description, payload.accept, out)
        self._judge_reduce(options, faults)
        if options.finish is not None:
            faults.raise_any(f"finish of {description.name!r}")
            outputs = self.processor.finish(decode_partial(options.finish))
            return write_answer(description, outputs, Inputs({}, None, None, None), how)
        inputs = self.reader.read(call, faults)
        if options.partial:
            partial = self.processor.partial(inputs.values, tile=inputs.tile)
            return json_answer(encode_partial(partial))
        outputs = self.processor.run(inputs.values, tile=inputs.tile)
        check_outputs(description, inputs.values, outputs)
        return write_answer(description, outputs, inputs, how)

    def _judge_reduce(self, options: CallOptions, faults: Faults) -> None:
        kind = self.processor.description.tileable
        if (options.partial or options.finish is not None) and kind != "reduce":
            asked = "partial" if options.partial else "finish"
            faults.add(f"/pesto/{asked}", f"is for a reduce; this process is {kind!r}")
        if options.partial and options.finish is not None:
            faults.add("/pesto/finish", "excludes pesto.partial")
