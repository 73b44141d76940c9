"""Check stages of the built-in process `warp`, and find the type of the image that one makes."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pesto_runtime.contract import Scale
from pesto_runtime.contract.base import why_no_nodata
from pesto_runtime.errors import BadField, shortened
from pesto_runtime.pipeline.types import RasterType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.pipeline.types import BoundStage, GridPlace, ValueType

_GRID = ("crs", "resolution")
_FIXED = ("ratio", "nodata")


def warp_ratio(value: JsonValue) -> Scale:
    """Return the pixels of a warped image per pixel of `like`; 1 for a value that is wrong."""
    with suppress(ValueError):  # reported where the stage is bound
        return Scale.of(1 if value is None else value)
    return Scale()


def warped_type(
    source: RasterType, literals: Mapping[str, JsonValue], place: GridPlace
) -> RasterType:
    """Return the type of a warped image: all facts of its source, on another grid.

    Its mask becomes nodata, which pixels beyond the source have, too: the one that the stage
    states, that of the source, or NaN.

    Args:
        source: The type of its source.
        literals: The inputs of the stage that are literals.
        place: Its grid.
    """
    stated = literals.get("nodata")
    nodata = source.nodata
    if isinstance(stated, (int, float)):
        nodata = float(stated)
    elif nodata is None and source.dtype and all(d.startswith(("float", "complex"))
                                                 for d in source.dtype):  # fmt: skip
        nodata = math.nan
    return replace(source, nodata=nodata, scale=place.scale, grid=place.grid, mask="")


def warp_faults(
    stage: BoundStage, types: Mapping[str, ValueType], where: str
) -> Iterator[BadField]:
    """Yield the errors of the inputs of a warp."""
    given = {**stage.literals, **stage.values}
    is_like = "like" in stage.rasters
    stated = [name for name in _GRID if given.get(name) is not None]
    if is_like and stated:
        yield BadField(
            f"{where}/inputs/{stated[0]}",
            "`like` states the grid already: remove one of them",
            shortened(stage.literals.get(stated[0])),
        )
    elif not is_like and not stated:
        yield BadField(
            f"{where}/inputs", "which grid is wanted? Bind `like`, or state `crs`, `resolution`"
        )
    if stage.literals.get("crs") == "":
        yield BadField(f"{where}/inputs/crs", "is empty: write a CRS, or leave it out", "")
    ratio = stage.literals.get("ratio")
    if ratio is not None:
        yield from _ratio_faults(ratio, f"{where}/inputs/ratio", is_like=is_like)
    resolution = stage.literals.get("resolution")
    if isinstance(resolution, (int, float)) and not resolution > 0:
        yield BadField(f"{where}/inputs/resolution", "must be above 0", shortened(resolution))
    for name, reference in stage.values.items():
        if name in _FIXED or not reference.is_input:
            wanted = "a literal" if name in _FIXED else "a literal, or an input of the pipeline"
            detail = f"is needed when the run is planned: make it {wanted}"
            yield BadField(f"{where}/inputs/{name}", detail, str(reference))
    yield from _nodata_faults(stage, types, where)


def _ratio_faults(ratio: JsonValue, where: str, *, is_like: bool) -> Iterator[BadField]:
    try:
        scale = Scale.of(ratio)
    except ValueError as error:
        yield BadField(where, str(error), shortened(ratio))
        return
    if any(1 not in axis.as_integer_ratio() for axis in (scale.x, scale.y)):
        yield BadField(where, "is neither a whole number nor 1/N", shortened(ratio))
    elif not is_like and not scale.is_one:
        yield BadField(where, "is relative to `like`: bind it", shortened(ratio))


def _states_nodata(stage: BoundStage) -> bool:
    """Whether it does, rightly or not: what is wrong is reported as such."""
    return stage.literals.get("nodata") is not None or "nodata" in stage.values


def _nodata_faults(
    stage: BoundStage, types: Mapping[str, ValueType], where: str
) -> Iterator[BadField]:
    source = types.get(str(stage.rasters.get("image")))
    made = stage.makes["image"]
    if not isinstance(source, RasterType) or not isinstance(made, RasterType):
        return
    pointer = f"{where}/inputs/nodata"
    if source.dtype and made.nodata is None and not _states_nodata(stage):
        detail = (
            f"{stage.rasters['image']} has no nodata, and pixels beyond it need one: state a "
            f"number of {' or '.join(source.dtype)}"
        )
        yield BadField(pointer, detail)
    for reason in filter(None, (why_no_nodata(made.nodata, dtype) for dtype in source.dtype)):
        yield BadField(pointer, reason, shortened(made.nodata))
