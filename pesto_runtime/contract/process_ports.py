"""Define the ports of a process: its named inputs and outputs, and what holds for them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from pesto_runtime.contract.geometry import Scale
from pesto_runtime.errors import BadField, json_pointer, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract.raster import RasterContract
    from pesto_runtime.contract.vector import VectorContract

PortKind: TypeAlias = Literal["image", "images", "vector", "json"]
Fold: TypeAlias = Literal["sum", "min", "max", "concat"]
FOLDS: tuple[Fold, ...] = get_args(Fold)

IMAGE_KINDS: tuple[PortKind, ...] = ("image", "images")
"""Kinds of ports that take one image, or a list of them."""


@dataclass(frozen=True, slots=True)
class Port:
    """A named input or output of a process.

    Attributes:
        name: As in the object schema.
        kind: `image`, `images` (a list), `vector` (GeoJSON) or plain `json`.
        schema: Its JSON schema, as in the description.
        required: Whether a call must bind it; outputs are never required.
        raster: Its raster contract; None if the description has none.
        vector: Its vector contract; None for any other kind.
        fold: How the values of tiles become one; None for a port without `x-fold`.
    """

    name: str
    kind: PortKind
    schema: Mapping[str, JsonValue]
    required: bool
    raster: RasterContract | None
    vector: VectorContract | None = None
    fold: Fold | None = None

    @property
    def has_default(self) -> bool:
        """Whether the schema has a default for an absent value."""
        return "default" in self.schema


def is_mask(port: Port) -> bool:
    """Return whether a port takes the valid pixels of another image."""
    return port.raster is not None and bool(port.raster.mask)


def masks_of(inputs: tuple[Port, ...]) -> dict[str, str]:
    """Return the image of each mask: the one that it names, else the first."""
    first = next((p.name for p in inputs if p.kind in IMAGE_KINDS and not is_mask(p)), "")
    return {
        port.name: port.raster.mask if isinstance(port.raster.mask, str) else first
        for port in inputs
        if port.raster is not None and port.raster.mask
    }


def ratios_of(inputs: tuple[Port, ...]) -> dict[str, Scale]:
    """Return the ratio of each image input to the first one; a mask has that of its image."""
    own = {port.name: port.raster.ratio for port in inputs if port.raster is not None}
    return own | {mask: own.get(image, Scale()) for mask, image in masks_of(inputs).items()}


def mask_faults(inputs: tuple[Port, ...]) -> Iterator[BadField]:
    """Yield the errors of masks: of an image that does not exist, or is of another kind."""
    kinds = {p.name: p.kind for p in inputs if p.kind in IMAGE_KINDS and not is_mask(p)}
    own = {port.name: port.kind for port in inputs}
    for name, image in masks_of(inputs).items():
        where = json_pointer("input", "properties", name, "x-raster", "mask")
        if image not in kinds:
            detail = f"names no image input; there are {', '.join(kinds) or 'none'}"
            yield BadField(where, detail, shortened(image or True))
        elif own[name] != kinds[image]:
            wanted = "a list of masks" if kinds[image] == "images" else "one mask"
            yield BadField(where, f"{image!r} has {wanted}, one for each image", shortened(image))


def ratio_faults(inputs: tuple[Port, ...], *, tileable: str | None) -> Iterator[BadField]:
    """Yield the errors of ratios of images: of the first one, of a mask, or of a reduce."""
    images = [port for port in inputs if port.kind in IMAGE_KINDS and not is_mask(port)]
    for port in (p for p in inputs if p.raster is not None and not p.raster.ratio.is_one):
        where = json_pointer("input", "properties", port.name, "x-raster", "ratio")
        stated = shortened(port.raster and port.raster.ratio.to_json())
        if is_mask(port):
            yield BadField(where, "a mask has the ratio of its image: remove it", stated)
        elif port is images[0]:
            yield BadField(where, "the first image has ratio 1: ratios are relative to it", stated)
        elif tileable == "reduce":
            detail = "a reduce reads blocks of one grid: combine the images in a map before it"
            yield BadField(where, detail, stated)
        elif port.raster and port.raster.tile and (fixed := port.raster.tile.fixed):
            sides = {fixed / axis for axis in (port.raster.ratio.x, port.raster.ratio.y)}
            if len(sides) > 1 or any(side.denominator > 1 for side in sides):
                yield BadField(where, f"{fixed} pixels, the fixed size of tiles, are no square of "
                               "whole pixels of the first image", stated)  # fmt: skip


def window_faults(name: str, inputs: tuple[Port, ...]) -> Iterator[BadField]:
    """Yield an error for each input with `windows` of another process than `warp`."""
    for port in inputs:
        if port.raster is not None and port.raster.windows is not None and name != "warp":
            where = json_pointer("input", "properties", port.name, "x-raster", "windows")
            detail = "is for the built-in process `warp`: declare `margin`, or `tileable`"
            yield BadField(where, detail, port.raster.windows)


def fold_faults(outputs: tuple[Port, ...], *, tileable: str | None) -> Iterator[BadField]:
    """Yield the errors of folds: of an unknown name, an image, or a process that is not a map."""
    for port in (p for p in outputs if "x-fold" in p.schema):
        where = json_pointer("output", "properties", port.name, "x-fold")
        stated = shortened(port.schema["x-fold"])
        if port.fold is None:
            yield BadField(where, f"is none of {', '.join(FOLDS)}", stated)
        elif port.kind != "json":
            yield BadField(where, "is for JSON values: tiles of images are put together", stated)
        elif tileable != "map":
            detail = "is for a map, which has a value for each tile: declare a margin, 0 for none"
            yield BadField(where, detail, stated)
