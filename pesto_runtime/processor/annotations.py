"""What an author writes inside `Annotated[...]`: a raster or vector contract, an output's name."""

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


@dataclass(frozen=True)
class Named:
    """Names the single output of a process: `Annotated[float, Named("fraction")]`."""

    name: str


@dataclass(frozen=True)
class Raster:
    """What an image parameter or an image output holds; only what is given is declared.

    Attributes:
        name: Name of the output; a parameter is named by itself.
        bands: Band names in the order wanted, or how many bands; absent for any.
        dtype: One numpy dtype name or several; absent for any.
        nodata: Value of pixels without data; `"nan"` for not-a-number.
        margin: Input pixels needed around an output pixel: one number, or top right bottom left.
        edge: What the process sees beyond the scene: nothing (`clip`) or a mirror (`reflect`).
        scale: Output pixels per input pixel: a ratio, or one per axis (x, y). Outputs only.
        align: Tile origins and sizes are multiples of it, pixels.
        exactness: `bitwise`, or `{"rtol": …, "atol": …}`.
        tile: Which tile sizes it takes: min, max, preferred, fixed; pixels.
        memory: What one call needs: input_pixel, output_pixel, fixed; bytes.
        capabilities: What an orchestrator may filter on: sensors, resolution, levels, formats.
    """

    name: str | None = None
    bands: Sequence[str] | int | None = None
    dtype: str | Sequence[str] | None = None
    nodata: float | str | None = None
    margin: int | Mapping[str, int] | Margin | None = None
    edge: Literal["clip", "reflect"] | None = None
    scale: float | str | Sequence[float | str] | Scale | None = None
    align: int | None = None
    exactness: Literal["bitwise"] | Mapping[str, float] | None = None
    tile: Mapping[str, int] | None = None
    memory: Mapping[str, float] | None = None
    capabilities: Mapping[str, JsonValue] | None = None

    def __hash__(self) -> int:
        return hash(self.name)  # lists inside are welcome; `Annotated[...] | None` hashes its parts

    @property
    def declared(self) -> dict[str, object]:
        """The fields of the raster contract that were given."""
        given = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in given if name != "name" and value is not None}

    def contract(self) -> RasterContract:
        """The value that goes into the description.

        Raises:
            InvalidContract: a field makes no sense; all of them are named.
        """
        try:
            return RasterContract.model_validate(self.declared)
        except ValidationError as error:
            raise InvalidContract.of(
                "Raster(...)", bad_fields(error, value=self.declared)
            ) from error


@dataclass(frozen=True)
class Vector:
    """What a vector output holds: a GeoJSON FeatureCollection, in pixels of the window given.

    `Annotated[dict, Vector(name="ships", geometry="Point")]`; x is the column, y the row, (0, 0)
    the top left corner of the window, margin included.

    Attributes:
        name: Name of the output.
        geometry: One GeoJSON type of geometry or several; absent for any.
    """

    name: str | None = None
    geometry: str | Sequence[str] | None = None

    def __hash__(self) -> int:
        return hash(self.name)  # as a Raster's

    def contract(self) -> VectorContract:
        """The value that goes into the description.

        Raises:
            InvalidContract: there is no such geometry.
        """
        declared = {} if self.geometry is None else {"geometry": self.geometry}
        try:
            return VectorContract.model_validate(declared)
        except ValidationError as error:
            raise InvalidContract.of("Vector(...)", bad_fields(error, value=declared)) from error


class ProcessOptions(TypedDict, total=False):
    """What `@process(...)` takes."""

    name: str
    """Name of the process; by default the function's, with `-` for `_`."""
    version: str
    """Its version."""
    title: str
    """A few words for people."""
    family: str
    """Group of processes that it belongs to."""
    organization: str
    """Its author's organization."""
    email: str
    """Its author's address."""
    keywords: Sequence[str]
    """Words to find it by."""
    margin: int | Mapping[str, int] | Margin
    """Margin of every image input without its own, pixels; makes the process a map."""
    align: int
    """Alignment of every image input without its own, pixels."""
    reduce: Mapping[str, Fold]
    """Fold of each key of the partial that the function returns; makes the process a reduce."""
    finish: Callable[..., object]
    """Turns the folded partial of a reduce into the outputs."""
    tileable: Tileable
    """`map`, `reduce` or `whole`, where it does not follow from the other options."""
    releases_gil: bool
    """Whether threads speed it up."""
    batched: bool
    """Whether a request may carry several calls; the function is called once for each."""
    max_batch_size: int
    """Most calls of such a request; 16 by default."""
    resources: Mapping[str, float]
    """What one instance wants: `cpu` (cores), `gpu` (devices), `ram` (GiB)."""
    setup: Callable[[], object]
    """Called once, before the service reports that it is ready."""
