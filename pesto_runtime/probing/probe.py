"""Probe a target: load it, measure it, compare it with its contract, and write the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, cast

from pydantic_core import to_jsonable_python

from pesto_runtime.errors import BadField
from pesto_runtime.probing.data import TestImages
from pesto_runtime.probing.folding import Folded, measure_fold
from pesto_runtime.probing.measuring import Effort, Measured, measure
from pesto_runtime.probing.memory import MemoryUse, measure_memory, memory_faults
from pesto_runtime.probing.subject import ProbedProcess
from pesto_runtime.probing.verdict import Verdict, exactness_of, judge
from pesto_runtime.run.callers import close_callers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description


@dataclass(frozen=True)
class ProbeReport:
    """What was found about a process.

    Attributes:
        description: Its contract.
        seed: Seed of the data.
        measured: The measurement of its images or of its partials.
        verdict: The same beside the contract.
        memory: The memory of calls; None if it was not measured.
        defaults: The values of inputs that were not given; others may need another margin.
    """

    description: Description
    seed: int
    measured: Measured | Folded
    verdict: Verdict
    memory: MemoryUse | None
    defaults: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def faults(self) -> tuple[BadField, ...]:
        """Fields of the contract that say less than was measured."""
        of_memory = memory_faults(self.description, self.memory) if self.memory else ()
        return (*self.verdict.faults, *of_memory)

    @property
    def is_complete(self) -> bool:
        """Whether all experiments were made; otherwise a margin is a lower limit only."""
        return not isinstance(self.measured, Measured) or self.measured.is_complete

    @property
    def remarks(self) -> tuple[str, ...]:
        """Fields of the contract that say more than was measured; none before the end."""
        return self.verdict.remarks if self.is_complete else ()

    def to_json(self) -> dict[str, JsonValue]:
        """Return the report as a document."""
        said = self.description
        document = {
            "process": said.name,
            "version": said.version,
            "digest": said.digest,
            "tileable": said.tileable,
            "nature": self.verdict.nature,
            "reaches": self.verdict.reaches,
            "errors": self.faults,
            "remarks": self.remarks,
            "seed": self.seed,
            "measured": {k: v for k, v in vars(self.measured).items() if k != "profiles"},
            "memory": self.memory,
        }
        return cast("dict[str, JsonValue]", to_jsonable_python(document, fallback=str))

    def lines(self) -> Iterator[str]:
        """Yield the report as text."""
        said, measured = self.description, self.measured
        yield f"{said.name} {said.version} ({said.tileable})"
        yield self.verdict.nature
        if isinstance(measured, Measured):
            yield from _measured_lines(self.verdict, measured)
        yield f"{measured.calls} calls, data: {', '.join(measured.data)}; seed {self.seed}"
        if self.defaults:
            values = ", ".join(f"{name}={value}" for name, value in self.defaults.items())
            yield f"  with {values}; another value may need a larger margin: give it by -i"
        for kind, error in measured.refused.items():
            yield f"  it fails on data {kind!r}: {error.detail}"
        if self.memory is not None:
            yield (
                f"memory: {self.memory.input_pixel:.1f} bytes per input pixel and "
                f"{self.memory.fixed / (1 << 20):.1f} MiB per call, beside the arrays"
            )


def probe(
    target: str,
    texts: Mapping[str, str],
    *,
    limit: int = 64,
    seconds: float = 30.0,
    seed: int = 0,
    memory: bool = False,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
) -> ProbeReport:
    """Measure a target or a service, and compare the result with its contract.

    Args:
        target: A target, or the URL of a service.
        texts: Input name -> text, as for `pesto process`; images are used beside made ones.
        limit: Largest margin to look for, pixels; at least twice the declared one is looked for.
        seconds: Time after which no further experiment starts.
        seed: Seed of the data.
        memory: Whether to measure the memory of calls.
        on_step: Called after each step with the number of steps so far and of all.

    Raises:
        InvalidInput: it takes no image, or an input does not exist.
        PestoError: it cannot be loaded, or failed on all data.
    """
    try:
        process = ProbedProcess.load(target, texts)
        said, images = process.description, TestImages(process.specs, seed)
        measured: Measured | Folded
        if said.tileable == "reduce":
            measured = measure_fold(process.partial, process.caller.finish, said.folds, images)
            verdict = _verdict_of_fold(measured)
        else:
            effort = Effort(
                max(limit, 2 * max(asdict(said.margin).values())), seconds=seconds, on_step=on_step
            )
            measured = measure(process.call, images, effort=effort, exactness=exactness_of(said))
            verdict = judge(said, measured)
    finally:
        close_callers()
    use = measure_memory(target, texts) if memory else None
    defaults = {
        port.name: port.schema["default"]
        for port in said.inputs
        if port.kind == "json" and port.has_default and port.name not in texts
    }
    return ProbeReport(said, seed, measured, verdict, use, defaults)


def _verdict_of_fold(folded: Folded) -> Verdict:
    if not folded.fault:
        return Verdict("reduce: the fold of the partials of parts equals the whole", ())
    way_out = "correct the folds of `reduce`, or declare tileable='whole'"
    fault = BadField("/x-reduce", f"declared a reduce, measured {folded.fault}: {way_out}")
    return Verdict("no reduce: the fold depends on the division of the raster", (), (fault,))


def _measured_lines(verdict: Verdict, measured: Measured) -> Iterator[str]:
    for each in verdict.reaches if not measured.is_random else ():
        declared = "nothing" if each.declared is None else each.declared.to_json()
        at_least = "" if measured.is_complete else "at least "
        is_over = each.unlimited or each.displaced
        margin = f"over {measured.limit}" if is_over else f"{at_least}{each.margin.to_json()}"
        data = f", on data: {', '.join(each.data)}" if each.data else ""
        yield f"  {each.input} -> {each.output}: margin {margin}, declared {declared}{data}"
    if verdict.nature == "map":
        scales = [f"{name} {scale.to_json()}" for name, scale in measured.scales.items() if scale]
        exact = f"within {verdict.tolerance:.2g}" if verdict.tolerance else "bitwise"
        yield f"  alignment {measured.align}, scale {', '.join(scales)}, {exact}"
        rows, cols = measured.size
        if measured.is_complete:
            yield (
                f"No difference was found beyond these margins, up to {measured.limit} pixels in "
                f"images of {cols} x {rows}. Data that need a larger one cannot be excluded: "
                "give your own by -i."
            )
