"""Compare what was measured with the contract: faults where it says less, remarks where more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import Margin, Tolerance
from pesto_runtime.errors import BadField, json_pointer
from pesto_runtime.probing.measuring import WINDOW, Measured
from pesto_runtime.probing.reach import SIDES, Profile, Side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import Description, Port
    from pesto_runtime.probing.folding import Folded


@dataclass(frozen=True)
class Reach:
    """How far one output looks in one input.

    Attributes:
        input: Name of the input.
        output: Name of the output.
        margin: Measured margin; on an unlimited side the limit.
        unlimited: Sides on which pixels beyond the limit count.
        displaced: Sides on which a window that starts or ends elsewhere gives other outputs, though
            no pixel beyond the limit counts.
        beyond: Largest difference beyond the margin.
        data: Kinds of data that showed the margin.
    """

    input: str
    output: str
    margin: Margin
    unlimited: tuple[Side, ...]
    displaced: tuple[Side, ...]
    beyond: float
    data: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """A measured process beside its contract.

    Attributes:
        nature: `map`, or why it cannot be tiled.
        reaches: One per pair of image input and image output.
        tolerance: Largest difference beyond the margins; 0 for bitwise.
        faults: Fields of the contract that say less than was measured.
        remarks: Fields that say more.
    """

    nature: str
    reaches: tuple[Reach, ...]
    tolerance: float
    faults: tuple[BadField, ...]
    remarks: tuple[str, ...]

    @property
    def margin(self) -> Margin:
        """The largest margin of all pairs, side by side."""
        margin = Margin()
        for reach in self.reaches:
            margin = margin.union(reach.margin)
        return margin


def exactness_of(description: Description) -> Tolerance | None:
    """Return the differences that a contract permits; None for bitwise."""
    for port in (*description.inputs, *description.outputs):
        if port.raster is not None and isinstance(port.raster.exactness, Tolerance):
            return port.raster.exactness
    return None


def judge(description: Description, measured: Measured) -> Verdict:
    """Compare a measurement with the contract of the process."""
    declared = exactness_of(description)
    reaches = tuple(
        _reach(description, measured, port.name, output, declared)
        for port in description.image_inputs
        for output in measured.scales
    )
    nature = _nature(measured, reaches)
    verdict = Verdict(nature, reaches, max((r.beyond for r in reaches), default=0), (), ())
    if description.tileable != "map":
        return _with(verdict, (), tuple(_remarks_of_whole(verdict)))
    if nature != "map":
        fault = BadField("/tileable", f"declared map, measured {nature}: {_way_out(measured)}")
        return _with(verdict, (fault,), ())
    faults = [*_margin_faults(description, verdict), *_other_faults(description, measured, verdict)]
    return _with(verdict, tuple(faults), tuple(_remarks(description, verdict)))


def _with(verdict: Verdict, faults: tuple[BadField, ...], remarks: tuple[str, ...]) -> Verdict:
    return Verdict(verdict.nature, verdict.reaches, verdict.tolerance, faults, remarks)


def _reach(
    description: Description, measured: Measured, name: str, output: str, declared: Tolerance | None
) -> Reach:
    """Combine what an output depends on with what cuts of the window change."""
    sides: dict[str, int] = {}
    unlimited: list[Side] = []
    displaced: list[Side] = []
    data: set[str] = set()
    beyond = 0.0
    names = [port.name for port in description.image_inputs]
    for side in SIDES:
        found = {
            each: measured.profiles.get((each, output, side), Profile())
            for each in (*names, WINDOW)
        }
        reaches = {each: _margin(profile, measured.limit, declared)
                   for each, profile in found.items()}  # fmt: skip
        # What no input explains is an effect of the window's edge: every input needs that margin.
        explained = max(reaches[each] for each in names)
        mine = [name, WINDOW] if reaches[WINDOW] > explained else [name]
        far = max(mine, key=lambda each: reaches[each])
        if reaches[far] > measured.limit:
            (unlimited if reaches[name] > measured.limit else displaced).append(side)
        sides[side] = min(reaches[far], measured.limit)
        if sides[side]:
            data.add(found[far].data)
        beyond = max(
            beyond, *(found[each].largest_beyond(reaches[each]) for each in (name, WINDOW))
        )
    return Reach(
        name,
        output,
        Margin(**sides),
        tuple(unlimited),
        tuple(displaced),
        beyond,
        tuple(sorted(data)),
    )


def _margin(profile: Profile, limit: int, declared: Tolerance | None) -> int:
    """Return the margin: exact if it is within the limit, else beyond rounding errors."""
    if declared is None and profile.reach() <= limit:
        return profile.reach()
    return profile.loose_reach()


def _nature(measured: Measured, reaches: tuple[Reach, ...]) -> str:
    if measured.is_random:
        return "random: two equal calls differ"
    sizes = [name for name, scale in measured.scales.items() if scale is None]
    if sizes:
        return f"not tileable: the size of {sizes[0]!r} is no ratio of the input's size"
    sides = {side for reach in reaches for side in reach.unlimited}
    if len(sides) == len(SIDES):
        return f"not tileable: global statistic (reaches over {measured.limit} pixels everywhere)"
    if sides:
        listed = ", ".join(side for side in SIDES if side in sides)
        return f"not tileable: reaches over {measured.limit} pixels to the {listed}"
    if measured.align is None or any(reach.displaced for reach in reaches):
        return "not tileable: depends on the position or size of the window"
    return "map"


def _way_out(measured: Measured) -> str:
    if measured.is_random:
        return "seed its random numbers by the pixel's position, or declare tileable='whole'"
    return (
        "declare tileable='whole', compute the statistic in a reduce, or measure with a larger "
        f"--limit than {measured.limit}"
    )


def _pointer(port: Port, name: str, *, side: str = "input") -> str:
    return f"/{side}" + json_pointer("properties", port.name, "x-raster", name)


def _margin_faults(description: Description, verdict: Verdict) -> Iterator[BadField]:
    """Yield a fault if a run would read too little; it reads the largest margin of all inputs."""
    if description.margin.union(verdict.margin) == description.margin:
        return
    for port in description.image_inputs:
        found, data = _of_input(verdict, port.name)
        if description.margin.union(found) != description.margin:
            declared = port.raster.margin if port.raster else Margin()
            needed = declared.union(found).to_json()
            yield BadField(
                _pointer(port, "margin"),
                f"declared {declared.to_json()}, measured {found.to_json()} "
                f"(on data: {', '.join(data)}): declare margin={needed}",
            )


def _of_input(verdict: Verdict, name: str) -> tuple[Margin, tuple[str, ...]]:
    margin = Margin()
    data: set[str] = set()
    for reach in verdict.reaches:
        if reach.input == name:
            margin = margin.union(reach.margin)
            data.update(reach.data)
    return margin, tuple(sorted(data))


def _other_faults(description: Description, measured: Measured, verdict: Verdict
                  ) -> Iterator[BadField]:  # fmt: skip
    first = description.image_inputs[0]
    quantum = math.lcm(_align(description), *_denominators(description))
    if measured.align is not None and quantum % measured.align:
        yield BadField(
            _pointer(first, "align"),
            f"declared {_align(description)}, measured {measured.align}: declare "
            f"align={measured.align}",
        )
    for port in description.outputs:
        scale = measured.scales.get(port.name)
        if scale is not None and port.raster is not None and port.raster.scale != scale:
            yield BadField(
                _pointer(port, "scale", side="output"),
                f"declared {port.raster.scale.to_json()}, measured {scale.to_json()}: declare "
                f"scale={scale.to_json()!r}",
            )
    if verdict.tolerance and exactness_of(description) is None:
        atol = float(f"{2 * verdict.tolerance:.0e}")
        yield BadField(
            _pointer(first, "exactness"),
            f"declared bitwise, measured differences of {verdict.tolerance:.2g} far from any edge:"
            f' declare exactness={{"atol": {atol:g}}}',
        )


def _align(description: Description) -> int:
    return math.lcm(*(port.raster.align for port in description.image_inputs if port.raster))


def _denominators(description: Description) -> list[int]:
    scales = [port.raster.scale for port in description.outputs if port.raster]
    return [ratio.denominator for scale in scales for ratio in (scale.x, scale.y)]


def _remarks(description: Description, verdict: Verdict) -> Iterator[str]:
    for port in description.image_inputs:
        declared = port.raster.margin if port.raster else Margin()
        found, _ = _of_input(verdict, port.name)
        if declared.union(found) != found:
            yield (
                f"{port.name}: declares margin {declared.to_json()}, measured {found.to_json()}; "
                "a smaller margin reads less, if no data need more"
            )
    if exactness_of(description) is not None and not verdict.tolerance:
        yield "declares a tolerance, but no difference was found: it may be bitwise"


def _remarks_of_whole(verdict: Verdict) -> Iterator[str]:
    if verdict.nature == "map":
        margin = verdict.margin.to_json()
        yield f"is never tiled, because it declares no margin; margin={margin} would make it a map"


def fold_faults(folded: Folded) -> tuple[BadField, ...]:
    """Return a fault if the outputs of a reduce depend on the division of its raster."""
    if not folded.fault:
        return ()
    way_out = "correct the folds of `reduce`, or declare tileable='whole'"
    return (BadField("/x-reduce", f"declared a reduce, measured {folded.fault}: {way_out}"),)


def declared_margin(description: Description, name: str) -> Margin | None:
    """Return the margin that an input declares; None for an input without a raster contract."""
    port = description.input(name)
    return port.raster.margin if port is not None and port.raster is not None else None


def to_json(description: Description, verdict: Verdict, measured: Measured) -> dict[str, object]:
    """Return the document of `--json`."""
    return {
        "nature": verdict.nature,
        "margins": [
            {
                "input": each.input,
                "output": each.output,
                "margin": each.margin.to_json(),
                "declared": margin.to_json()
                if (margin := declared_margin(description, each.input))
                else None,
                "unlimited": [*each.unlimited, *each.displaced],
                "data": list(each.data),
            }
            for each in verdict.reaches
        ],
        "align": measured.align,
        "scales": {
            name: scale.to_json() if scale else None for name, scale in measured.scales.items()
        },
        "tolerance": verdict.tolerance,
        "limit": measured.limit,
        "calls": measured.calls,
        "complete": measured.is_complete,
        "data": list(measured.data),
        "refused": {kind: error.detail for kind, error in measured.refused.items()},
    }
