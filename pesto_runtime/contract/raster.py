"""Define the raster contract of an image port (`x-raster`): the facts that tiling needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from pesto_runtime.contract.base import (
    NUMERIC_DTYPES,
    BandValues,
    ClosedValue,
    DeclaredNodata,
    Fill,
    Value,
    why_no_nodata,
)
from pesto_runtime.contract.classification import RasterClass, require_classes
from pesto_runtime.contract.geometry import Margin, MarginField, Scale, ScaleField
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction


class Tolerance(ClosedValue):
    """How far a tiled result may be from the untiled one: |a - b| <= atol + rtol * |b|."""

    rtol: float = Field(default=0.0, ge=0)
    atol: float = Field(default=0.0, ge=0)


class TileLimits(ClosedValue):
    """Which tile sizes, margin included, a process takes; pixels along each axis."""

    min: int | None = Field(default=None, ge=1)
    max: int | None = Field(default=None, ge=1)
    preferred: int | None = Field(default=None, ge=1)
    fixed: int | None = Field(default=None, ge=1, description="the one size that it takes")

    def at(self, axes: tuple[Fraction, Fraction]) -> TileLimits:
        """Return the limits in pixels of a grid that has so many of these for one of its own."""
        sizes = {
            name: [size / axis for axis in axes]
            for name in ("min", "max", "preferred", "fixed")
            if (size := getattr(self, name)) is not None
        }
        least = {name: math.ceil(max(found)) for name, found in sizes.items() if name == "min"}
        return self.model_copy(
            update={name: math.floor(min(found)) for name, found in sizes.items()} | least
        )

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        least, most = self.min or 1, self.max or math.inf
        for name, size in (("preferred", self.preferred), ("fixed", self.fixed), ("min", least)):
            if size is not None and not least <= size <= most:
                raise ValueError(f"{name} {size} is not between min {least} and max {most}")
        return self


class Memory(ClosedValue):
    """What one call needs beside its input and output arrays; bytes."""

    input_pixel: float = Field(default=0, ge=0, description="bytes per input pixel, all bands")
    output_pixel: float = Field(default=0, ge=0, description="bytes per output pixel, all bands")
    fixed: float = Field(default=0, ge=0, description="bytes per call")
    gpu_input_pixel: float = Field(default=0, ge=0)
    gpu_output_pixel: float = Field(default=0, ge=0)
    gpu_fixed: float = Field(default=0, ge=0)


def _dtypes(value: object) -> object:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, (list, tuple)):
        unknown = [name for name in names if name not in NUMERIC_DTYPES]
        if unknown:
            raise ValueError(f"unknown dtype {unknown[0]!r}; known: {', '.join(NUMERIC_DTYPES)}")
        return tuple(names)
    return value


def one_or_list(names: tuple[str, ...]) -> str | list[str]:
    """Return a single name as a string, several as a list."""
    return names[0] if len(names) == 1 else list(names)


class RasterContract(Value):
    """What an image port takes or gives.

    Bands are names in order, a count, or None for any. `scale` is on output ports; the rest of the
    geometry (`ratio`, `margin`, `edge`, `fill`, `align`, `tile`) is on input ports, in pixels of
    the port's own image.
    """

    bands: tuple[str, ...] | int | None = Field(
        default=None, description="Band names in order, a number of bands, or absent for any."
    )
    dtype: Annotated[
        tuple[str, ...],
        BeforeValidator(_dtypes),
        PlainSerializer(one_or_list),
        WithJsonSchema({"oneOf": [
            {"enum": list(NUMERIC_DTYPES)},
            {"type": "array", "items": {"enum": list(NUMERIC_DTYPES)}},
        ]}),
    ] = Field(default=(), description="One dtype, or several; absent for any.")  # fmt: skip
    nodata: DeclaredNodata = Field(
        default=None,
        description="The value of pixels without data; null or `none` for none. Absent, or "
        "`inherit`: that of the first image, if bands and dtype are its own.",
    )
    values: BandValues | None = Field(
        default=None, description="Meaning of the numbers of an output, in all bands."
    )
    scaled: bool = Field(
        default=False, description="The process receives physical values in float32, nodata NaN."
    )
    margin: MarginField = Field(default=Margin())
    edge: Literal["clip", "reflect"] = Field(
        default="clip", description="What the process sees beyond the scene."
    )
    fill: Fill = Field(
        default=None,
        description="What extends a scene at its far edges to a multiple of `align` and to the "
        "smallest tile: `reflect`, `edge` or a number.",
    )
    scale: ScaleField = Field(default=Scale())
    ratio: ScaleField = Field(
        default=Scale(),
        description="Pixels of an image input per pixel of the first one: N, or `1/N`.",
    )
    align: int = Field(default=1, ge=1, description="Tile origins and sizes are multiples of it.")
    mask: bool | str | None = Field(
        default=None,
        description="Marks the valid pixels of another image input: true for the first one, or "
        "its name; one band of uint8, 0 for a pixel without data.",
    )
    per_band: bool = Field(
        default=False,
        description="A mask has one band for each band of its image, and not one for all.",
    )
    exactness: Literal["bitwise"] | Tolerance = "bitwise"
    tile: TileLimits | None = None
    memory: Memory | None = None
    classes: tuple[RasterClass, ...] | None = Field(
        default=None,
        min_length=1,
        description="The meaning of its values: value, name, color_hint, description.",
    )
    capabilities: dict[str, JsonValue] | None = Field(
        default=None, description="What an orchestrator may filter on: imageCapabilities."
    )
    windows: Literal["own", "none"] | None = Field(
        default=None,
        description="Which window of the input a call receives: one that the process finds itself, "
        "or none, as only the grid counts. For the built-in process `warp`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fields_are_complete(cls, fields: object) -> object:
        if isinstance(fields, Mapping) and fields.get("mask"):
            fields = {"dtype": "uint8", **fields}
            if not fields.get("per_band"):
                fields = {"bands": 1, **fields}
        if isinstance(fields, Mapping) and fields.get("nodata") == "inherit":
            return {name: value for name, value in fields.items() if name != "nodata"}
        return fields

    @model_validator(mode="after")
    def _values_are_consistent(self) -> Self:
        if self.scaled and self.dtype not in ((), ("float32",)):
            raise ValueError(
                f"a scaled image is float32, not {' or '.join(self.dtype)}: leave dtype out"
            )
        if self.values is not None and self.values.scale == 0:
            raise ValueError("values: a scale of 0 makes all numbers equal; declare another")
        return self

    @field_validator("nodata")
    @classmethod
    def _nodata_fits(cls, nodata: float | None, info: ValidationInfo) -> float | None:
        for dtype in info.data.get("dtype", ()):
            if reason := why_no_nodata(nodata, dtype):
                raise ValueError(reason)
        return nodata

    @field_validator("ratio")
    @classmethod
    def _ratio_is_whole(cls, ratio: Scale) -> Scale:
        if any(1 not in axis.as_integer_ratio() for axis in (ratio.x, ratio.y)):
            raise ValueError(f"ratio {ratio.to_json()} is neither a whole number nor 1/N")
        return ratio

    @field_validator("tile")
    @classmethod
    def _tile_fits(cls, tile: TileLimits | None, info: ValidationInfo) -> TileLimits | None:
        align, margin = info.data.get("align", 1), info.data.get("margin", Margin())
        most = tile and (tile.fixed or tile.max)
        if tile is None or most is None:
            return tile
        name = "fixed" if tile.fixed else "max"
        least = max(margin.left + margin.right, margin.top + margin.bottom)
        if most < align or (tile.fixed and tile.fixed % align):
            raise ValueError(f"{name} {most} is not a multiple of align {align}")
        if most <= least:
            raise ValueError(f"{name} {most} includes the margin, and has no room beside {least}")
        return tile

    @field_validator("bands", mode="before")
    @classmethod
    def _bands_are_not_boolean(cls, bands: object) -> object:
        # pydantic accepts True as the integer 1, except in strict mode.
        if isinstance(bands, bool):
            raise ValueError(f"bands {bands} is neither names nor a number of bands")  # noqa: TRY004  # pydantic's protocol
        return bands

    @field_validator("bands")
    @classmethod
    def _bands_are_valid(cls, bands: tuple[str, ...] | int | None) -> tuple[str, ...] | int | None:
        if isinstance(bands, int) and bands < 1:
            raise ValueError(f"bands {bands} is not a number of bands >= 1")
        if isinstance(bands, tuple) and (not bands or len(set(bands)) != len(bands)):
            raise ValueError(f"bands {list(bands)} must be one or more distinct names")
        return bands

    @model_validator(mode="after")
    def _classes_are_values(self) -> Self:
        if self.classes:
            require_classes(self.classes, self.dtype)
        return self

    @model_validator(mode="after")
    def _geometry_agrees(self) -> Self:
        if self.edge == "reflect" and self.fill not in (None, "reflect"):
            raise ValueError(
                f"fill {self.fill!r} contradicts edge 'reflect', which mirrors pixels beyond the "
                "scene: declare fill 'reflect', or edge 'clip'"
            )
        bands = None if self.per_band else 1
        if self.mask and (self.band_count != bands or self.dtype != ("uint8",)):
            raise ValueError(
                f"a mask is {'uint8' if self.per_band else 'one band of uint8'}: remove `bands` "
                "and `dtype`"
            )
        if self.per_band and not self.mask:
            raise ValueError("per_band is for a mask: declare `mask`, or remove it")
        if isinstance(self.fill, (int, float)):
            for dtype in self.dtype:
                if reason := why_no_nodata(self.fill, dtype):
                    raise ValueError(reason.replace("nodata", "fill", 1))
        return self

    def at_ratio(self, ratio: Scale) -> RasterContract:
        """Return the contract with `align` and `tile` in pixels of the first image.

        Args:
            ratio: Pixels of the image per pixel of the first one.
        """
        if ratio.is_one:
            return self
        axes = (ratio.x, ratio.y)
        align = math.lcm(*((self.align / axis).numerator for axis in axes))
        tile = self.tile and self.tile.at(axes)
        return self.model_copy(update={"align": align, "tile": tile, "ratio": Scale()})

    @property
    def received_dtype(self) -> tuple[str, ...]:
        """The dtypes that the process may receive; empty for any."""
        return ("float32",) if self.scaled else self.dtype

    @property
    def inherits_nodata(self) -> bool:
        """Whether nodata is that of the first image, and not declared."""
        return "nodata" not in self.model_fields_set

    @property
    def band_names(self) -> tuple[str, ...] | None:
        """Names of the bands in order; None if the contract does not name them."""
        return self.bands if isinstance(self.bands, tuple) else None

    @property
    def band_count(self) -> int | None:
        """Number of bands; None for any."""
        return len(self.bands) if isinstance(self.bands, tuple) else self.bands

    def pick(
        self, bands: Sequence[str | None], *, in_order: bool = False, of: str = "it"
    ) -> tuple[int, ...] | None:
        """Return the 1-based numbers of a raster's bands that the port takes; None for all.

        Args:
            bands: Names of the raster's bands in order; None for a band without one.
            in_order: Whether the order of the bands is stated: they were listed by number or name,
                or their form has no names. It counts only where the names do not decide.
            of: The raster, for messages.

        Raises:
            InvalidInput: the number of bands is wrong, a name is missing or is that of two bands,
                or the bands have no names.
        """
        wanted, count = self.band_names, len(bands)
        if wanted is None:
            if self.band_count not in (None, count):
                raise InvalidInput(f"{self.band_count} bands are taken, {of} has {count}")
            return None
        numbers = {
            name: [i for i, band in enumerate(bands, start=1) if band == name] for name in wanted
        }
        for name, found in numbers.items():
            if len(found) > 1:
                listed = " and ".join(map(str, found))
                raise InvalidInput(f"bands {listed} of {of} are both named {name!r}")
        if all(numbers.values()):
            return tuple(found[0] for found in numbers.values())
        if in_order and count == len(wanted):
            return None
        missing = [name for name, found in numbers.items() if not found]
        raise InvalidInput(_not_picked(wanted, bands, missing, in_order=in_order, of=of))

    @property
    def bands_example(self) -> str:
        """The fragment of an image's text that names the bands of the port: `#bands=red:N`.

        The numbers are for the user to fill in: a proposal would be pasted, right or wrong.
        """
        return f"#bands={','.join(f'{name}:N' for name in self.band_names or ())}"

    def to_json(self) -> dict[str, JsonValue]:
        """Return only the declared fields, in the form of `x-raster`."""
        document: dict[str, JsonValue] = self.model_dump(
            mode="json", exclude_unset=True, exclude_none=True
        )
        if self.nodata is None and not self.inherits_nodata:
            document["nodata"] = None
        return document


def _not_picked(
    wanted: Sequence[str],
    bands: Sequence[str | None],
    missing: list[str],
    *,
    in_order: bool,
    of: str,
) -> str:
    names, is_named = ", ".join(wanted), any(bands)
    if not is_named and not in_order:
        return f"the {len(bands)} bands of {of} have no names, and the port takes {names}"
    listed = f" ({', '.join(name or 'unnamed' for name in bands)})" if is_named else ""
    has = f"{of} has {len(bands)}{listed}"
    if in_order:
        return f"{len(wanted)} bands are taken ({names}), {has}"
    return f"band {', '.join(missing)} is missing: {has}"
