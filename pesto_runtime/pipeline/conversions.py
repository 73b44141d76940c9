"""Propose stages that convert a raster for a port that it does not fit, and insert them.

Only conversions that lose nothing are proposed. Bands need none: a port chooses them by name.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from pesto_runtime.contract import Scale
from pesto_runtime.contract.pipeline import Reference, parse_binding
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.pipeline.types import RasterType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Pipeline, RasterContract, Stage
    from pesto_runtime.pipeline.types import ValueType

_MODULE = "pesto_runtime.processor.converters"
_EXACT = {
    "float32": ("uint8", "int8", "uint16", "int16"),
    "float64": ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"),
}
"""dtype -> the dtypes whose numbers it represents exactly."""
_FACTORS = (2, 3)


@dataclass(frozen=True)
class Conversion:
    """A proposed stage.

    Attributes:
        stage: Id of the stage whose input it converts.
        port: That input.
        source: The raster, as `$mask.cloud`.
        process: Name of the converter.
        reason: What does not fit.
    """

    stage: str
    port: str
    source: Reference
    process: str
    reason: str

    @property
    def id(self) -> str:
        """The id of the new stage."""
        return f"{self.process}-of-{self.source.owner}-{self.source.port}"

    @property
    def target(self) -> str:
        """The function that runs it."""
        return f"{_MODULE}:{self.process.replace('-', '_')}"

    def __str__(self) -> str:
        return (
            f"stage {self.stage!r}, input {self.port!r}: {self.reason}; {self.process} converts it "
            f"without loss: a stage {self.id!r}"
        )


def conversions(
    pipeline: Pipeline,
    descriptions: Mapping[str, Description],
    types: Mapping[str, ValueType],
) -> tuple[Conversion, ...]:
    """Return the conversions that make inputs fit, as far as there are any.

    Args:
        pipeline: The pipeline.
        descriptions: Process -> description.
        types: `$owner.port` -> the type of the value, as `check` returns them.
    """
    return tuple(
        each
        for stage in pipeline.stages
        if stage.process in descriptions
        for each in _of_stage(stage, descriptions[stage.process], types)
    )


def with_conversions(
    document: Mapping[str, JsonValue], found: Sequence[Conversion]
) -> dict[str, JsonValue]:
    """Return the document of a pipeline with a stage for each conversion, before its first reader.

    A raster that two stages need in one form is converted once.
    """
    changed = copy.deepcopy(dict(document))
    stages = cast("list[dict[str, JsonValue]]", changed["stages"])
    services = cast("dict[str, JsonValue]", changed.setdefault("services", {}))
    for each in found:
        place = next(n for n, stage in enumerate(stages) if stage["id"] == each.stage)
        inputs = cast("dict[str, JsonValue]", stages[place]["inputs"])
        inputs[each.port] = f"${each.id}.image"
        services[each.process] = each.target
        if not any(stage["id"] == each.id for stage in stages):
            stages.insert(place, {"id": each.id, "process": each.process,
                                  "inputs": {"image": str(each.source)}})  # fmt: skip
    return changed


def _of_stage(
    stage: Stage, description: Description, types: Mapping[str, ValueType]
) -> Iterator[Conversion]:
    if description.is_warp:  # which takes any number type, scale and grid
        return
    rasters = {
        port: (source, replace(raster, scale=raster.scale / description.ratio(port)))
        for port, (source, raster) in _rasters(stage, description, types)
    }
    largest = max((raster.scale.x for _, raster in rasters.values()), default=Scale().x)
    for port, (source, raster) in rasters.items():
        declared = description.input(port)
        contract = declared.raster if declared is not None else None
        process = _number_converter(raster, contract) if contract is not None else None
        if process is not None and contract is not None:
            reason = f"{source} is {' or '.join(raster.dtype)}, not {' or '.join(contract.dtype)}"
            yield Conversion(stage.id, port, source, process, reason)
        elif raster.scale.x == raster.scale.y and largest / raster.scale.x in _FACTORS:
            reason = f"the scale of {source} is {raster.scale.to_json()}, that of others {largest}"
            yield Conversion(stage.id, port, source, f"enlarge-{largest / raster.scale.x}", reason)


def _rasters(
    stage: Stage, description: Description, types: Mapping[str, ValueType]
) -> Iterator[tuple[str, tuple[Reference, RasterType]]]:
    for name, value in stage.inputs.items():
        port = description.input(name)
        try:
            reference = parse_binding(value)
        except InvalidPipeline:  # reported by `check`
            continue
        raster = types.get(str(reference))
        is_raster = isinstance(raster, RasterType) and port is not None and port.kind == "image"
        if is_raster and reference is not None:
            yield name, (reference, cast("RasterType", raster))


def _number_converter(raster: RasterType, contract: RasterContract) -> str | None:
    wanted = contract.dtype
    if contract.scaled or not wanted or not raster.dtype or set(raster.dtype) <= set(wanted):
        return None
    has_meaning = any(each.scale != 1 or each.offset != 0 for each in raster.values)
    if has_meaning:
        return "physical-values" if "float32" in wanted else None
    return next(
        (f"to-{dtype}" for dtype, exact in _EXACT.items()
         if dtype in wanted and set(raster.dtype) <= {*exact, dtype}),
        None,
    )  # fmt: skip
