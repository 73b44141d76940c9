"""Whether what one stage makes fits what another takes, and what to do where it does not."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from pesto_runtime.errors import BadField, shortened
from pesto_runtime.pipeline.types import JsonType, RasterType, ValueType, VectorType
from pesto_runtime.schema import why_not_accepted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import Port, RasterContract, Reference

PER_TILE = "has a value for every tile and none for the scene: make it the output of a reduce"


def edge_faults(
    given: ValueType, port: Port, *, reference: Reference, where: str
) -> Iterator[BadField]:
    """Why a value cannot be bound to an input port; nothing where it can."""
    if port.kind == "images":
        told = "the port takes a list of images, which a pipeline cannot bind: call it outside one"
        yield BadField(where, told, str(reference))
    elif isinstance(given, RasterType) != (port.kind == "image"):
        made = _word(given)
        taken = "an image" if port.kind == "image" else "a JSON value"
        yield BadField(where, f"{reference} is {made}, but the port takes {taken}", str(reference))
    elif isinstance(given, JsonType) and given.per_tile:
        yield BadField(where, f"{reference} {PER_TILE}", str(reference))
    elif not isinstance(given, RasterType):
        reason = why_not_accepted(port.schema, given.schema)
        if reason:
            yield BadField(where, f"{reference} does not fit: {reason}", str(reference))
    elif port.raster is not None:
        yield from _dtype_faults(given, port.raster, reference, where)
        yield from _band_faults(given, port.raster, reference, where)


def _word(given: ValueType) -> str:
    if isinstance(given, VectorType):
        return "a vector"
    return "an image" if isinstance(given, RasterType) else "a JSON value"


def edge_warnings(
    given: ValueType, port: Port, *, reference: Reference, where: str
) -> Iterator[BadField]:
    """What fits by luck or by position only."""
    if not isinstance(given, RasterType) or port.raster is None:
        return
    names = port.raster.band_names
    if names and given.bands is not None and not any(given.bands):
        yield BadField(
            where, f"the bands of {reference} have no names: taken in order as {', '.join(names)}"
        )
    wanted = port.raster.nodata
    if wanted is None or given.nodata is None or (isnan(wanted) and isnan(given.nodata)):
        return
    if wanted != given.nodata:
        yield BadField(
            where, f"nodata of {reference} is {given.nodata:g}, the port expects {wanted:g}"
        )


def _dtype_faults(
    given: RasterType, taken: RasterContract, reference: Reference, where: str
) -> Iterator[BadField]:
    unfit = [name for name in given.dtype if name not in taken.dtype]
    if taken.dtype and unfit:
        yield BadField(
            where,
            f"{reference} is {' or '.join(given.dtype)}, but the port takes "
            f"{' or '.join(taken.dtype)}: insert a stage that converts it, or bind another raster",
            str(reference),
        )


def _band_faults(
    given: RasterType, taken: RasterContract, reference: Reference, where: str
) -> Iterator[BadField]:
    if given.bands is None or taken.bands is None:
        return
    has = f"{reference} has {len(given.bands)}" + (
        f" ({', '.join(name or 'unnamed' for name in given.bands)})" if any(given.bands) else ""
    )
    names = taken.band_names
    if names is None or not any(given.bands):
        if taken.band_count != len(given.bands):
            yield BadField(where, f"{taken.band_count} bands are taken, {has}", str(reference))
        return
    missing = [name for name in names if name not in given.bands]
    if missing:
        yield BadField(
            where,
            f"band {', '.join(missing)} is missing: {has}; bind a raster that has it, or name the "
            "bands of this one (GDAL band descriptions)",
            shortened(list(given.bands)),
        )
