"""Probe a target: load it, measure it, compare it with its contract, and write the report."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pesto_runtime.probing.data import TestImages
from pesto_runtime.probing.folding import Folded, measure_fold
from pesto_runtime.probing.measuring import Effort, Measured, measure
from pesto_runtime.probing.memory import MemoryUse, measure_memory, memory_faults
from pesto_runtime.probing.subject import ProbedProcess
from pesto_runtime.probing.verdict import (
    Verdict,
    declared_margin,
    exactness_of,
    fold_faults,
    judge,
    to_json,
)
from pesto_runtime.run.callers import close_callers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pesto_runtime.contract import Description
    from pesto_runtime.errors import BadField


@dataclass(frozen=True)
class ProbeReport:
    """What was found about a process.

    Attributes:
        description: Its contract.
        seed: Seed of the data.
        measured: The measurement of its images; None for a reduce.
        verdict: The same beside the contract.
        folded: The measurement of its partials; None if it is not a reduce.
        memory: The memory of calls; None if it was not measured.
        faults: Fields of the contract that say less than was measured.
    """

    description: Description
    seed: int
    measured: Measured | None
    verdict: Verdict | None
    folded: Folded | None
    memory: MemoryUse | None
    faults: tuple[BadField, ...]

    @property
    def remarks(self) -> tuple[str, ...]:
        """Fields of the contract that say more than was measured."""
        return self.verdict.remarks if self.verdict else ()

    def lines(self) -> Iterator[str]:
        """Yield the report as text."""
        said = self.description
        yield f"{said.name} {said.version} ({said.tileable})"
        if self.verdict is not None and self.measured is not None:
            yield from _measured_lines(said, self.verdict, self.measured, self.seed)
        if self.folded is not None:
            yield from _folded_lines(self.folded)
        if self.memory is not None:
            yield (
                f"memory: {self.memory.input_pixel:.1f} bytes per input pixel and "
                f"{self.memory.fixed / (1 << 20):.1f} MiB per call, beside the arrays"
            )

    def to_json(self) -> dict[str, object]:
        """Return the report as a document."""
        document: dict[str, object] = {
            "process": self.description.name,
            "version": self.description.version,
            "digest": self.description.digest,
            "tileable": self.description.tileable,
            "seed": self.seed,
        }
        if self.verdict is not None and self.measured is not None:
            document |= to_json(self.description, self.verdict, self.measured)
        if self.folded is not None:
            document["reduce"] = {
                "calls": self.folded.calls,
                "data": list(self.folded.data),
                "fault": self.folded.fault or None,
            }
        if self.memory is not None:
            document["memory"] = {
                "input_pixel": self.memory.input_pixel,
                "fixed": self.memory.fixed,
            }
        document["errors"] = [asdict(fault) for fault in self.faults]
        document["remarks"] = list(self.remarks)
        return document


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
        subject = ProbedProcess.load(target, texts)
        said = subject.description
        images = TestImages(subject.specs, seed)
        measured = verdict = folded = None
        if said.tileable == "reduce":
            folded = measure_fold(subject.partial, subject.caller.finish, said.folds, images)
            faults = fold_faults(folded)
        else:
            sides = asdict(said.margin).values()
            effort = Effort(max(limit, 2 * max(sides)), seconds=seconds, on_step=on_step)
            measured = measure(subject.call, images, effort=effort, exactness=exactness_of(said))
            verdict = judge(said, measured)
            faults = verdict.faults
    finally:
        close_callers()
    use = measure_memory(target, texts) if memory else None
    if use is not None:
        faults += memory_faults(said, use)
    return ProbeReport(said, seed, measured, verdict, folded, use, faults)


def _measured_lines(said: Description, verdict: Verdict, measured: Measured, seed: int
                    ) -> Iterator[str]:  # fmt: skip
    yield verdict.nature
    for each in verdict.reaches if not measured.is_random else ():
        declared = declared_margin(said, each.input)
        known = "nothing" if declared is None else declared.to_json()
        margin = (
            f"over {measured.limit}" if each.unlimited or each.displaced else each.margin.to_json()
        )
        data = f", on data: {', '.join(each.data)}" if each.data else ""
        yield f"  {each.input} -> {each.output}: margin {margin}, declared {known}{data}"
    if verdict.nature == "map":
        scales = {name: scale.to_json() for name, scale in measured.scales.items() if scale}
        listed = ", ".join(f"{name} {scale}" for name, scale in scales.items())
        exact = f"within {verdict.tolerance:.2g}" if verdict.tolerance else "bitwise"
        yield f"  alignment {measured.align}, scale {listed}, {exact}"
    rows, cols = measured.size
    images = Counter(measured.data)
    yield (
        f"{measured.calls} calls on images of {cols} x {rows} pixels "
        f"({', '.join(images)}), seed {seed}" + ("" if measured.is_complete else "; time ended")
    )
    for kind, error in measured.refused.items():
        yield f"  it fails on data {kind!r}: {error.detail}"
    if verdict.nature == "map":
        yield (
            f"No difference was found beyond these margins, up to {measured.limit} pixels. Data "
            "that need a larger one cannot be excluded: give your own by -i."
        )


def _folded_lines(folded: Folded) -> Iterator[str]:
    same = "differs from" if folded.fault else "equals"
    yield (
        f"the fold of the partials of parts {same} the partial of the whole "
        f"({folded.calls} calls, data: {', '.join(folded.data)})"
    )
    for kind, error in folded.refused.items():
        yield f"  it fails on data {kind!r}: {error.detail}"
