"""Bind the inputs of one stage, and report each binding that does not fit its port.

The pipeline as a whole (order, cycles, outputs, pins) is checked in `check`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from math import isnan
from typing import TYPE_CHECKING

from pesto_runtime.contract import Description, Port, Reference, Stage, literal, parse_binding
from pesto_runtime.contract.base import why_no_nodata
from pesto_runtime.errors import BadField, InvalidInput, InvalidPipeline, json_pointer, shortened
from pesto_runtime.pipeline.parameters import FedPort, literal_faults
from pesto_runtime.pipeline.types import (
    BoundStage,
    GridPlace,
    JsonType,
    RasterType,
    StageKind,
    ValueType,
    VectorType,
    output_types,
)
from pesto_runtime.pipeline.warps import warp_faults, warped_type
from pesto_runtime.schema import why_not_accepted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import RasterContract

PER_TILE = "has one value per tile and not one per scene: make it the output of a reduce"


@dataclass(frozen=True)
class Binding:
    """A stage with its bindings as far as they are known, and its errors and warnings."""

    stage: BoundStage
    errors: tuple[BadField, ...]
    warnings: tuple[BadField, ...]


@dataclass
class _Bound:
    """Bindings of a stage by kind, collected while they are read."""

    rasters: dict[str, Reference] = field(default_factory=dict)
    values: dict[str, Reference] = field(default_factory=dict)
    literals: dict[str, JsonValue] = field(default_factory=dict)
    errors: list[BadField] = field(default_factory=list)
    warnings: list[BadField] = field(default_factory=list)


def bind_stage(
    stage: Stage,
    description: Description,
    types: Mapping[str, ValueType],
    *,
    where: str,
    failed: set[str],
    place: GridPlace | None = None,
) -> Binding:
    """Bind a stage's inputs to the inputs of the pipeline and the outputs of earlier stages.

    Args:
        stage: The stage of the pipeline.
        description: The description of its process.
        types: Types of the pipeline's inputs and of the outputs of earlier stages.
        where: JSON pointer to the stage.
        failed: Stages that have errors, or come later; a reference to one is not an error here,
            because it is reported elsewhere.
        place: The grid of the image that a warp makes; None for any other process.
    """
    bound = _Bound()
    for name, value in stage.inputs.items():
        port, pointer = description.input(name), json_pointer(*name.split("."))
        if port is None:
            bound.errors.append(_unknown_port(name, description, f"{where}/inputs{pointer}"))
        else:
            _bind(bound, port, value, types, f"{where}/inputs{pointer}", failed)
    for port in (port for port in description.inputs if port.name in bound.literals):
        pointer = f"{where}/inputs{json_pointer(port.name)}"
        fed = FedPort(stage.id, port, description)
        bound.errors += literal_faults(fed, bound.literals[port.name], pointer)
    bound.errors += _missing(stage, description, where)
    # In the order of the ports, masks last: of which image the outputs inherit does not depend on
    # the pipeline.
    masks = description.masks
    made = {name: image for name, image in masks.items()
            if name not in bound.rasters and image in bound.rasters}  # fmt: skip
    bound.rasters |= {name: bound.rasters[image] for name, image in made.items()}
    ports = [port.name for port in description.data_inputs]
    bound.rasters = {name: bound.rasters[name] for name in (*ports, *masks)
                     if name in bound.rasters}  # fmt: skip
    kind = _kind(description, bound.rasters)
    first = _first(description, bound.rasters, types)
    outputs = output_types(description, first, kind=kind)
    grid = first[1].grid if first else ""
    if place is not None:
        grid = place.grid
        source = first[1] if first else RasterType()
        outputs = {"image": warped_type(source, bound.literals, place)}
    bound_stage = BoundStage(
        stage, description, kind, bound.rasters, bound.values, bound.literals, outputs, made, grid
    )
    if place is None and not bound.errors:
        bound.errors += _output_faults(bound_stage, where)
    geometry_faults = _geometry_faults if place is None else warp_faults
    bound.errors += geometry_faults(bound_stage, types, where)
    bound.warnings += _geometry_warnings(bound_stage, where)
    return Binding(bound_stage, tuple(bound.errors), tuple(bound.warnings))


def _first(
    description: Description, rasters: Mapping[str, Reference], types: Mapping[str, ValueType]
) -> tuple[Port, RasterType] | None:
    """Return the first image port that has a raster, and the raster."""
    for port in description.image_inputs:
        source = types.get(str(rasters.get(port.name)))
        if isinstance(source, RasterType):
            return port, source
    return None


def _bind(
    bound: _Bound,
    port: Port,
    value: JsonValue,
    types: Mapping[str, ValueType],
    where: str,
    failed: set[str],
) -> None:
    try:
        reference = parse_binding(value)
    except InvalidPipeline as error:
        bound.errors.append(BadField(where, error.detail, shortened(value)))
        return
    if reference is None:
        _bind_literal(bound, port, literal(value), where)
        return
    (bound.rasters if port.kind == "image" else bound.values)[port.name] = reference
    value_type = types.get(str(reference))
    if value_type is None:
        if reference.owner not in failed:
            bound.errors.append(
                BadField(where, unknown_reference(reference, types), str(reference))
            )
        return
    bound.errors += edge_faults(value_type, port, reference=reference, where=where)
    bound.warnings += edge_warnings(value_type, port, reference=reference, where=where)


def _bind_literal(bound: _Bound, port: Port, value: JsonValue, where: str) -> None:
    if port.kind == "image":
        detail = "an image port is bound to $inputs.NAME or $STAGE.OUTPUT"
        bound.errors.append(BadField(where, detail, shortened(value)))
        return
    bound.literals[port.name] = value


def edge_faults(
    value: ValueType, port: Port, *, reference: Reference, where: str
) -> Iterator[BadField]:
    """Yield the reasons why a value cannot be bound to an input port."""
    if isinstance(value, RasterType) != (port.kind == "image"):
        actual = _kind_phrase(value)
        wanted = "an image" if port.kind == "image" else "a JSON value"
        yield BadField(
            where, f"{reference} is {actual}, but the port takes {wanted}", str(reference)
        )
    elif isinstance(value, JsonType) and value.per_tile:
        yield BadField(where, f"{reference} {PER_TILE}", str(reference))
    elif not isinstance(value, RasterType):
        reason = why_not_accepted(port.schema, value.schema)
        if reason:
            yield BadField(where, f"{reference} does not fit: {reason}", str(reference))
    elif port.raster is not None:
        yield from _dtype_faults(value, port.raster, reference, where)
        yield from _fill_faults(value, port.raster, where)
        yield from _band_faults(value, port.raster, reference, where)


def _kind_phrase(value: ValueType) -> str:
    if isinstance(value, VectorType):
        return "a vector"
    return "an image" if isinstance(value, RasterType) else "a JSON value"


def edge_warnings(
    value: ValueType, port: Port, *, reference: Reference, where: str
) -> Iterator[BadField]:
    """Yield a warning for each property that is assumed and not declared, or that differs."""
    if not isinstance(value, RasterType) or port.raster is None:
        return
    # NaN is not equal to itself, so two NaN need a comparison of their own.
    wanted = port.raster.nodata
    if wanted is None or value.nodata is None or (isnan(wanted) and isnan(value.nodata)):
        return
    if wanted != value.nodata:
        yield BadField(
            where, f"nodata of {reference} is {value.nodata:g}, the port expects {wanted:g}"
        )


def _dtype_faults(
    value: RasterType, contract: RasterContract, reference: Reference, where: str
) -> Iterator[BadField]:
    if contract.scaled:
        yield from _unscalable(value, reference, where)
        return
    unfit = [name for name in value.dtype if name not in contract.dtype]
    if contract.dtype and unfit:
        yield BadField(
            where,
            f"{reference} is {' or '.join(value.dtype)}, but the port takes "
            f"{' or '.join(contract.dtype)}: insert a stage that converts it, or bind another "
            "raster",
            str(reference),
        )


def _unscalable(value: RasterType, reference: Reference, where: str) -> Iterator[BadField]:
    if any(name.startswith("complex") for name in value.dtype):
        yield BadField(
            where,
            f"{reference} is {' or '.join(value.dtype)}, and the port is `scaled`: complex numbers "
            "have no scale; leave `scaled` out, or bind another raster",
            str(reference),
        )


def _fill_faults(value: RasterType, contract: RasterContract, where: str) -> Iterator[BadField]:
    """Yield an error if the dtype that a port inherits cannot hold its `fill`."""
    fill = contract.fill
    if isinstance(fill, (int, float)) and not contract.dtype and not contract.scaled:
        for dtype in value.dtype:
            if reason := why_no_nodata(fill, dtype):
                yield BadField(where, reason.replace("nodata", "fill", 1), str(fill))


def _band_faults(
    value: RasterType, contract: RasterContract, reference: Reference, where: str
) -> Iterator[BadField]:
    if value.bands is None or contract.bands is None:
        return
    try:
        contract.pick(value.bands, in_order=value.in_order, of=str(reference))
    except InvalidInput as error:
        yield BadField(where, f"{error.detail}{_way_to_bands(contract, reference)}",
                       shortened(list(value.bands)))  # fmt: skip


def _way_to_bands(contract: RasterContract, reference: Reference) -> str:
    if contract.band_names is None:
        return ""
    if reference.is_input:
        example = f"FILE{contract.bands_example}"
        return (
            f"; state which bands to take: -i {reference.port}={example}, or {example} in a literal"
        )
    return (
        "; bind another raster, or name the bands where they are computed (Raster(bands=[…])), or "
        f"where the scene is given (FILE{contract.bands_example})"
    )


def _missing(stage: Stage, description: Description, where: str) -> Iterator[BadField]:
    for port in description.inputs:
        if port.required and not port.has_default and port.name not in stage.inputs:
            yield BadField(
                f"{where}/inputs/{port.name}",
                f"{description.name} requires it: bind {port.name!r} to "
                f"{'an image' if port.kind == 'image' else 'a value'}",
            )


def _unknown_port(name: str, description: Description, where: str) -> BadField:
    names = [port.name for port in description.inputs]
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names) or 'none'}"
    return BadField(where, f"{description.name} has no input {name!r}; {hint}", name)


def unknown_reference(reference: Reference, types: Mapping[str, ValueType]) -> str:
    """Return the message about a reference to a value that does not exist, with a suggestion."""
    close = get_close_matches(str(reference), types, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(types) or 'none'}"
    return f"{reference} does not exist; {hint}"


def _kind(description: Description, rasters: Mapping[str, Reference]) -> StageKind:
    return description.tileable if rasters else "call"


def _geometry_faults(
    stage: BoundStage, types: Mapping[str, ValueType], where: str
) -> Iterator[BadField]:
    """Yield the errors of inputs that cannot be tiled."""
    contract = stage.description
    bound = {port: types.get(str(reference)) for port, reference in stage.rasters.items()}
    scales = {
        port: raster.scale / contract.ratio(port)
        for port, raster in bound.items()
        if isinstance(raster, RasterType)
    }
    if len({*scales.values()}) > 1:
        yield BadField(f"{where}/inputs", _other_scales(contract, bound))
    for port in contract.image_inputs:
        raster = port.raster
        if raster is None or port.name not in stage.rasters:
            continue
        pointer = f"{where}/inputs/{port.name}"
        if stage.kind == "reduce" and (raster.margin.to_json() != 0 or raster.align != 1):
            yield BadField(
                pointer, "a reduce reads product blocks: it has no margin and no alignment; "
                "move the part that needs neighbours into a map stage before it")  # fmt: skip
        limited = raster.tile is not None and (raster.tile.fixed or raster.tile.min)
        if stage.kind == "reduce" and limited:
            yield BadField(
                pointer, "a reduce reads product blocks, which are smaller at the scene's edges: "
                "it has no `tile.fixed` and no `tile.min`")  # fmt: skip
        if stage.kind == "whole" and raster.tile is not None and raster.tile.fixed:
            yield BadField(pointer, "a process that takes whole images has no `tile.fixed`: "
                           "declare its margin, or remove the size")  # fmt: skip


def _other_scales(contract: Description, bound: Mapping[str, ValueType | None]) -> str:
    if not contract.has_ratios:
        return "its images have different scales; all must have the same"
    listed = [
        f"{port} has {raster.scale.to_json()} where the ratio of the port is "
        f"{contract.ratio(port).to_json()}"
        for port, raster in bound.items()
        if isinstance(raster, RasterType)
    ]
    return f"its images have other scales than their ratios need: {', '.join(listed)}"


def _output_faults(stage: BoundStage, where: str) -> Iterator[BadField]:
    """Yield the errors of image outputs: on no grid, on two grids, or with impossible nodata."""
    rasters = {port: made for port, made in stage.makes.items() if isinstance(made, RasterType)}
    for port, made in rasters.items():
        reasons = (why_no_nodata(made.nodata, dtype) for dtype in made.dtype)
        if reason := next(filter(None, reasons), None):
            yield BadField(
                f"{where}/process",
                f"output {port!r}: {reason}; declare another nodata, or the dtype of the output",
                stage.description.name,
            )
    scales = {
        port: output.scale for port, output in stage.makes.items() if isinstance(output, RasterType)
    }
    if scales and stage.kind in ("call", "reduce"):
        yield BadField(
            f"{where}/process",
            f"output {next(iter(scales))!r} is an image that is not on a grid of the pipeline: "
            "only a process that maps images, or takes whole images, can have image outputs here",
            stage.description.name,
        )
    elif len(set(scales.values())) > 1:
        listed = ", ".join(f"{port} {scale.to_json()}" for port, scale in scales.items())
        yield BadField(
            f"{where}/process", f"its images have different scales: {listed}; use one scale"
        )


def _geometry_warnings(stage: BoundStage, where: str) -> Iterator[BadField]:
    for port in (*stage.description.inputs, *stage.description.outputs):
        if port.raster is not None and port.raster.exactness != "bitwise" and stage.kind == "map":
            yield BadField(
                where, f"{stage.description.name} is exact within a tolerance only: tiled and "
                "untiled results may differ by it")  # fmt: skip
    if stage.kind == "whole" and stage.description.known.tileable is None:
        yield BadField(
            f"{where}/process",
            f"{stage.description.name} does not say that it can be tiled, so it is given the whole "
            "image at once: declare its margin (0 where it needs no neighbours), or `tileable`",
        )
