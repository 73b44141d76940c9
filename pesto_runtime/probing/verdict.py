"""Compare what was measured with the contract: faults where it says less, remarks where more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import Margin, Tolerance
from pesto_runtime.errors import BadField, json_pointer
from pesto_runtime.probing.measuring import WINDOW
from pesto_runtime.probing.reach import SIDES, Profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import Description, Port
    from pesto_runtime.probing.measuring import Measured
    from pesto_runtime.probing.reach import Side


@dataclass(frozen=True)
class Reach:
    """How far one output looks in one input.

    Attributes:
        input: Name of the input.
        output: Name of the output.
        margin: Measured margin; the limit on a side on which it is larger.
        declared: Margin of the contract; None for an input without `x-raster`.
        unlimited: Sides on which pixels beyond the limit count.
        displaced: Sides on which a window that starts or ends elsewhere gives other outputs, though
            no pixel beyond the limit counts.
        beyond: Largest difference beyond the margin.
        data: Kinds of data that showed the margin.
    """

    input: str
    output: str
    margin: Margin
    declared: Margin | None
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
        faults: Fields of the contract that say less than was measured.
        remarks: Fields that say more.
    """

    nature: str
    reaches: tuple[Reach, ...]
    faults: tuple[BadField, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def margin(self) -> Margin:
        """The largest margin of all pairs, side by side."""
        return _union(self.reaches)

    @property
    def tolerance(self) -> float:
        """The largest difference beyond the margins; 0 for bitwise."""
        return max((reach.beyond for reach in self.reaches), default=0.0)


def exactness_of(description: Description) -> Tolerance | None:
    """Return the differences that a contract permits; None for bitwise."""
    for port in (*description.inputs, *description.outputs):
        if port.raster is not None and isinstance(port.raster.exactness, Tolerance):
            return port.raster.exactness
    return None


def judge(description: Description, measured: Measured) -> Verdict:
    """Compare a measurement with the contract of the process."""
    reaches = tuple(
        _reach(description, measured, port, output)
        for port in description.data_inputs
        for output in measured.scales
    )
    found = Verdict(_nature(measured, reaches), reaches)
    if description.tileable != "map":
        return Verdict(found.nature, reaches, (), tuple(_remarks_of_whole(found)))
    if found.nature != "map":
        way_out = (
            "seed its random numbers by the pixel's position, or declare tileable='whole'"
            if measured.is_random
            else "declare tileable='whole', compute the statistic in a reduce, or measure with a "
            f"larger --limit than {measured.limit}"
        )
        fault = BadField("/tileable", f"declared map, measured {found.nature}: {way_out}")
        return Verdict(found.nature, reaches, (fault,))
    faults = [*_margin_faults(description, found), *_other_faults(description, measured, found)]
    return Verdict("map", reaches, tuple(faults), tuple(_remarks(description, found)))


def _reach(description: Description, measured: Measured, port: Port, output: str) -> Reach:
    """Combine what an output depends on with what cuts of the window change."""
    sides: dict[str, int] = {}
    unlimited: list[Side] = []
    displaced: list[Side] = []
    data: set[str] = set()
    beyond = 0.0
    names = [each.name for each in description.data_inputs]
    declared = exactness_of(description)
    for side in SIDES:
        found = {
            each: measured.profiles.get((each, output, side), Profile())
            for each in (*names, WINDOW)
        }
        reaches = {each: _margin(profile, measured.limit, declared)
                   for each, profile in found.items()}  # fmt: skip
        # What no input explains is an effect of the window's edge: every input needs that margin.
        is_explained = reaches[WINDOW] <= max(reaches[each] for each in names)
        far = port.name if is_explained else WINDOW
        if reaches[far] > measured.limit:
            (unlimited if reaches[port.name] > measured.limit else displaced).append(side)
        sides[side] = min(reaches[far], measured.limit)
        if sides[side]:
            data.add(found[far].data)
        beyond = max(
            beyond, *(found[each].largest_beyond(reaches[each]) for each in (port.name, WINDOW))
        )
    return Reach(
        port.name, output, Margin(**sides), port.raster.margin if port.raster else None,
        tuple(unlimited), tuple(displaced), beyond, tuple(sorted(data)),
    )  # fmt: skip


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
    sides = [side for side in SIDES if any(side in reach.unlimited for reach in reaches)]
    if len(sides) == len(SIDES):
        return f"not tileable: global statistic (reaches over {measured.limit} pixels everywhere)"
    if sides:
        return f"not tileable: reaches over {measured.limit} pixels to the {', '.join(sides)}"
    if measured.align is None or any(reach.displaced for reach in reaches):
        return "not tileable: depends on the position or size of the window"
    return "map"


def _union(reaches: tuple[Reach, ...]) -> Margin:
    margin = Margin()
    for reach in reaches:
        margin = margin.union(reach.margin)
    return margin


def _pointer(port: Port, field: str, *, side: str = "input") -> str:
    return f"/{side}" + json_pointer("properties", port.name, "x-raster", field)


def _margin_faults(description: Description, found: Verdict) -> Iterator[BadField]:
    """Yield a fault if a run would read too little; it reads the largest margin of all inputs."""
    for port in description.data_inputs:
        mine = tuple(reach for reach in found.reaches if reach.input == port.name)
        needed = _union(mine)
        if description.margin.union(needed) != description.margin:
            declared = mine[0].declared or Margin()
            data = sorted({kind for reach in mine for kind in reach.data})
            yield BadField(
                _pointer(port, "margin"),
                f"declared {declared.to_json()}, measured {needed.to_json()} (on data: "
                f"{', '.join(data)}): declare margin={declared.union(needed).to_json()}",
            )


def _other_faults(description: Description, measured: Measured, found: Verdict
                  ) -> Iterator[BadField]:  # fmt: skip
    inputs = [port.raster for port in description.data_inputs if port.raster]
    outputs = [port for port in description.outputs if port.raster and port.name in measured.scales]
    first, align = description.data_inputs[0], math.lcm(*(raster.align for raster in inputs))
    scales = [port.raster.scale for port in outputs if port.raster]
    implied = [ratio.denominator for scale in scales for ratio in (scale.x, scale.y)]
    if measured.align is not None and math.lcm(align, *implied) % measured.align:
        yield BadField(
            _pointer(first, "align"),
            f"declared {align}, measured {measured.align}: declare align={measured.align}",
        )
    for port, declared in zip(outputs, scales, strict=True):
        scale = measured.scales[port.name]
        if scale is not None and declared != scale:
            yield BadField(
                _pointer(port, "scale", side="output"),
                f"declared {declared.to_json()}, measured {scale.to_json()}: declare "
                f"scale={scale.to_json()!r}",
            )
    if found.tolerance and exactness_of(description) is None:
        yield BadField(
            _pointer(first, "exactness"),
            f"declared bitwise, measured differences of {found.tolerance:.2g} far from any edge: "
            f'declare exactness={{"atol": {float(f"{2 * found.tolerance:.0e}"):g}}}',
        )


def _remarks(description: Description, found: Verdict) -> Iterator[str]:
    for port in description.data_inputs:
        mine = tuple(reach for reach in found.reaches if reach.input == port.name)
        declared, needed = mine[0].declared or Margin(), _union(mine)
        if declared.union(needed) != needed:
            yield (
                f"{port.name}: declares margin {declared.to_json()}, measured {needed.to_json()}; "
                "a smaller margin reads less, if no data need more"
            )
    if exactness_of(description) is not None and not found.tolerance:
        yield "declares a tolerance, but no difference was found: it may be bitwise"


def _remarks_of_whole(found: Verdict) -> Iterator[str]:
    if found.nature == "map":
        margin = found.margin.to_json()
        yield f"is never tiled, because it declares no margin; margin={margin} would make it a map"
