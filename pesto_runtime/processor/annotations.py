"""Define `Raster`, `Vector` and `Named` for `Annotated[...]`, and the options of `@process`.

How a type hint with them is read is in `hints` and `ports`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, TypedDict

from pydantic import ValidationError

from pesto_runtime.contract import RasterContract, VectorContract, bad_fields
from pesto_runtime.errors import InvalidContract

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Fold, Margin, Scale, Tileable
    from pesto_runtime.processor.blending import Blend


@dataclass(frozen=True)
class Named:
    """Names an output of a process: `Annotated[float, Named("fraction")]`.

    Attributes:
        name: Name of the output; by default `result`, or the key of the TypedDict.
        fold: Of a map, how the values of its tiles become that of the scene: `sum`, `min`, `max` or
            `concat`. The process then counts the pixels of `TileInfo.own` alone.
    """

    name: str = ""
    fold: Fold | None = None


@dataclass(frozen=True)
class Raster:
    """The raster contract of an image parameter or output; only the given fields are declared.

    That of `list[np.ndarray]` holds for each image of the list.

    Attributes:
        name: Name of the output; an input has the name of its parameter.
        bands: Band names in the order wanted, or the number of bands; absent for any.
        dtype: One numpy dtype name or several; absent for any.
        nodata: Value of pixels without data; `"nan"` for not-a-number, None for none. By default
            an output has that of the first image, if bands and dtype are its own.
        values: Outputs only: what a stored number means, as `{"scale": 1e-4, "offset": -0.1,
            "unit": "K"}`: its physical value is `number * scale + offset`.
        scaled: Inputs only: whether the process receives physical values, as float32 with NaN for
            pixels that are nodata.
        margin: Input pixels needed around an output pixel: one number, or top right bottom left.
        edge: Pixels beyond the scene: none (`clip`) or mirrored ones (`reflect`).
        fill: Pixels that extend the scene to a multiple of `align` and to the smallest tile, at
            its right and lower edge: `reflect`, `edge`, or a number; `"nan"` for not-a-number.
        scale: Output pixels per pixel of the first image: a ratio, or one per axis (x, y). Outputs
            only.
        ratio: Pixels per pixel of the first image, along each side: 2 for a panchromatic image of
            15 m beside a first one of 30 m, `"1/2"` for 20 m beside 10 m. Inputs only; `margin`,
            `align` and `tile` are in pixels of the image itself.
        align: Tile origins and sizes are multiples of it, pixels.
        mask: The parameter receives the valid pixels of another image as a bool array (row, col),
            True for valid: of the first image with `True`, or of the parameter that is named. Of a
            list of images it is a list of such arrays.
        per_band: Masks only: the array is bool (band, row, col), for each band of the image.
        exactness: `bitwise`, or `{"rtol": …, "atol": …}`.
        tile: Tile sizes that it accepts: min, max, preferred, fixed; pixels.
        memory: Memory of one call: input_pixel, output_pixel, fixed; bytes.
        classes: The meaning of its values: `{"value": 1, "name": "water", "color_hint": "1f6fb4"}`
            for each; also `description`. Reports and products have these names and colours.
        windows: For the built-in process `warp`: `own` for an input whose windows it finds itself,
            `none` for one whose grid alone counts.
        capabilities: For orchestrators to filter on: sensors, resolution, levels, formats.
    """

    name: str | None = None
    bands: Sequence[str] | int | None = None
    dtype: str | Sequence[str] | None = None
    nodata: float | str | None = "inherit"
    values: Mapping[str, float | str] | None = None
    scaled: bool = False
    margin: int | Mapping[str, int] | Margin | None = None
    edge: Literal["clip", "reflect"] | None = None
    fill: float | str | None = None
    scale: float | str | Sequence[float | str] | Scale | None = None
    ratio: int | str | Sequence[int | str] | Scale | None = None
    align: int | None = None
    mask: bool | str | None = None
    per_band: bool = False
    exactness: Literal["bitwise"] | Mapping[str, float] | None = None
    tile: Mapping[str, int] | None = None
    memory: Mapping[str, float] | None = None
    classes: Sequence[Mapping[str, JsonValue]] | None = None
    windows: Literal["own", "none"] | None = None
    capabilities: Mapping[str, JsonValue] | None = None

    def __hash__(self) -> int:
        return hash(self.name)  # other fields may be lists, and `Annotated[...] | None` is hashed

    @property
    def declared(self) -> dict[str, object]:
        """Fields of the raster contract that are not their defaults."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        found = {f.name: value for f, value in values if f.name != "name" and value != f.default}
        # On the wire a mask is an image of one band, or of the bands of its image.
        if self.mask:
            found = {"dtype": "uint8", **found}
        return {"bands": 1, **found} if self.mask and not self.per_band else found

    def contract(self) -> RasterContract:
        """Return the contract for the description.

        Raises:
            InvalidContract: fields are invalid; the error lists all of them.
        """
        try:
            return RasterContract.model_validate(self.declared)
        except ValidationError as error:
            raise InvalidContract.of(
                "Raster(...)", bad_fields(error, value=self.declared)
            ) from error


@dataclass(frozen=True)
class Vector:
    """The contract of a vector output: a GeoJSON FeatureCollection, in pixels of the window.

    `Annotated[dict, Vector(name="ships", geometry="Point")]`; x is the column, y the row, (0, 0)
    the top left corner of the window, margin included.

    Attributes:
        name: Name of the output.
        geometry: One GeoJSON type of geometry or several; absent for any.
    """

    name: str | None = None
    geometry: str | Sequence[str] | None = None

    def __hash__(self) -> int:
        return hash(self.name)  # as in Raster

    def contract(self) -> VectorContract:
        """Return the contract for the description.

        Raises:
            InvalidContract: the geometry type does not exist.
        """
        declared = {} if self.geometry is None else {"geometry": self.geometry}
        try:
            return VectorContract.model_validate(declared)
        except ValidationError as error:
            raise InvalidContract.of("Vector(...)", bad_fields(error, value=declared)) from error


class ProcessOptions(TypedDict, total=False):
    """Options of `@process(...)`."""

    name: str
    """Name of the process; by default the function's, with `-` for `_`."""
    version: str
    """Its version."""
    title: str
    """A short title for people."""
    family: str
    """Group of processes that it belongs to."""
    organization: str
    """Its author's organization."""
    email: str
    """Its author's address."""
    keywords: Sequence[str]
    """Words for a search."""
    margin: int | Mapping[str, int] | Margin
    """Margin of every image input without its own, pixels; makes the process a map."""
    align: int
    """Alignment of every image input without its own, pixels."""
    fill: float | str
    """What extends every image input without its own: `reflect`, `edge` or a number."""
    blend: Blend
    """Overlapping windows of one size, whose outputs are blended; it replaces these three."""
    reduce: Mapping[str, Fold]
    """Fold of each key of the partial that the function returns; makes the process a reduce."""
    finish: Callable[..., object]
    """Turns the folded partial of a reduce into the outputs."""
    tileable: Tileable
    """`map`, `reduce` or `whole`, if it does not follow from the other options."""
    releases_gil: bool
    """Whether the function releases the GIL, so that threads make it faster."""
    batched: bool
    """Whether a request may carry several calls; the function is called once for each."""
    max_batch_size: int
    """Maximum number of calls in such a request; 16 by default."""
    resources: Mapping[str, float]
    """Resources of one instance: `cpu` (cores), `gpu` (devices), `ram` (GiB)."""
    examples: Sequence[Mapping[str, JsonValue]]
    """Calls that the contract kit makes: `inputs`, `outputs`, and a `tolerance` of numbers."""
    setup: Callable[[], object]
    """Called once, before the service reports that it is ready."""
