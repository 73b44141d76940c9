"""Define the values of a run: scene, plan, phase, chunk and the result of a chunk."""

from __future__ import annotations

import math
from enum import StrEnum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from pesto_runtime.contract.base import BandValues, ClosedValue, Nodata
from pesto_runtime.contract.compression import Compression
from pesto_runtime.contract.geometry import Scale, Transform, WindowField, rescaled
from pesto_runtime.contract.selection import Bands, ImageReference, Selection
from pesto_runtime.errors import OtherVersion, reason_of

PRODUCT_FORMAT = 4
"""Version of the byte layout of products; part of every block key."""

BLOCK = 512
"""Side of a product block, pixels."""


ReportForm: TypeAlias = Literal["links", "embed", "none"]
"""What `report.html` has of the products: links, their bytes; or no report is written."""


@cache
def package_version() -> str:
    """Return the version of this package; `0+unknown` if it is not installed."""
    try:
        return version("pesto-workflows")
    except PackageNotFoundError:
        return "0+unknown"


class ProductForm(StrEnum):
    """Form of image outputs: GeoTIFFs without or with overviews, or cloud-optimised ones."""

    TIF = "tif"
    OVERVIEWS = "tif-overviews"
    COG = "cog"

    @classmethod
    def of(cls, *, as_cog: bool, overviews: bool) -> Self:
        """Return the form of two settings; a cloud-optimised GeoTIFF always has overviews."""
        if as_cog:
            return cls("cog")
        return cls("tif-overviews" if overviews else "tif")


class Grid(ClosedValue):
    """Pixels on Earth.

    Attributes:
        width: Columns.
        height: Rows.
        crs: Authority code or WKT2; None where it is not known.
        transform: Affine coefficients; None where they are not known.
    """

    width: int = Field(ge=0)
    height: int = Field(ge=0)
    crs: str | None = None
    transform: Transform | None = None

    def at(self, scale: Scale) -> Grid:
        """Return the same area with `scale` pixels per pixel.

        Incomplete pixels at the far edges are dropped.
        """
        if scale.is_one:
            return self
        transform = self.transform and rescaled(self.transform, float(scale.x), float(scale.y))
        width, height = math.floor(self.width * scale.x), math.floor(self.height * scale.y)
        return Grid(width=width, height=height, crs=self.crs, transform=transform)


class Scene(ClosedValue):
    """Facts of a raster, as a plan needs them.

    Attributes:
        href: Where it is.
        identity: Size, modification time and inode of a file; ETag or the like of a remote
            raster; empty if its server states none. A changed scene is another scene.
        width: Columns.
        height: Rows.
        bands: Band descriptions in order; None for a band without one.
        dtype: One dtype for all bands.
        nodata: None where the raster declares none.
        crs: Authority code or WKT2; None where there is none.
        has_points: Whether control points or RPC state its place.
        transform: Affine coefficients (a, b, c, d, e, f).
        block: Width and height of the file's own blocks.
        tags: Dataset tags.
        validity: What states its valid pixels, by GDAL's rules: `all` of them are valid, `nodata`,
            a `mask` of the dataset (inside the file or beside it), or an `alpha` band. In addition,
            NaN is not valid.
        selection: The bands and the window of the raster that the facts are of; None for all of it.
        values: Meaning of each band's numbers; empty if they are the physical values.
        unread: Names of files beside a remote raster without a place that may state it.
        driver: GDAL's driver that a worker must allow to open it; empty for one that each allows.
    """

    href: str
    identity: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    bands: tuple[str | None, ...] = Field(min_length=1)
    dtype: str
    nodata: Nodata = None
    crs: str | None = None
    has_points: bool = False
    transform: Transform | None = None
    block: tuple[int, int] = (BLOCK, BLOCK)
    tags: dict[str, str] = Field(default_factory=dict)
    selection: Selection | None = None
    values: tuple[BandValues, ...] = ()
    unread: tuple[str, ...] = ()
    driver: str = ""
    validity: Literal["all", "nodata", "mask", "alpha"] = "all"

    @property
    def grid(self) -> Grid:
        """Its pixels on Earth."""
        return Grid(width=self.width, height=self.height, crs=self.crs, transform=self.transform)

    @property
    def has_mask(self) -> bool:
        """Whether a mask or an alpha band states its valid pixels."""
        return self.validity in ("mask", "alpha")

    @property
    def reference(self) -> ImageReference:
        """The image as its user would write it: href, bands and window."""
        chosen = self.selection or Selection()
        bands: Bands | None = chosen.bands
        if chosen.bands is not None and chosen.names is not None:
            bands = dict(zip(chosen.names, chosen.bands, strict=True))
        return ImageReference(href=self.href, bands=bands, window=chosen.window)


class Service(ClosedValue):
    """What runs a process: a target in the worker itself, or URLs of replicas.

    Attributes:
        targets: A target, or one URL or more.
        description: The description, overlay merged in.
        build: Identity of the code: a hash of its sources, else name and version.
        transports: Media types of the service's `Accept-Post`; empty where it has none.
        digest: Digest of the description without the overlay, as the service states it.
        states_code: Whether every response of the service states build and digest.
    """

    targets: tuple[str, ...] = Field(min_length=1)
    description: dict[str, JsonValue]
    build: str
    transports: tuple[str, ...] = ()
    digest: str = ""
    states_code: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether calls go over HTTP."""
        return self.targets[0].startswith(("http://", "https://"))


class Phase(ClosedValue):
    """Stages that run together on one fan-out.

    Attributes:
        kind: `map` (tiles), `whole` (one call on whole rasters) or `call` (no raster at all).
        stages: Ids of the map stages, or of the one whole or call stage, in order.
        reduces: Ids of reduce stages that read the phase's blocks.
        sources: Rasters that it reads: `$inputs.x`, or rasters and vectors of earlier phases.
        writes: Rasters and vectors whose blocks it keeps.
        size: Width and height of the grid that tiles divide, pixels.
        tile: Width and height of a tile, pixels.
        chunks: Rectangles of whole product blocks, row-major.
    """

    kind: Literal["map", "whole", "call"]
    stages: tuple[str, ...]
    reduces: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    tile: tuple[int, int] = (BLOCK, BLOCK)
    chunks: tuple[WindowField, ...] = ()


class CachePlace(ClosedValue):
    """The cache of a run, and the keys of its blocks there.

    Attributes:
        href: Base href of the cache.
        keys: Raster, vector (`$stage.output`), or id of a stage -> its key in the cache; values
            that are not cached are absent.
        movable: Rasters whose blocks are also taken from runs over other windows of their scenes.
    """

    href: str
    keys: dict[str, str]
    movable: tuple[str, ...] = ()


class Plan(ClosedValue):
    """Everything a worker needs to do any part of a run.

    Attributes:
        format: Version of this document.
        run: Identity of the run: of its pipeline, services, inputs and parameters.
        pipeline: The pipeline.
        scenes: Image inputs of the pipeline.
        parameters: Its other inputs.
        services: Process name -> service.
        keys: Value (`$stage.output`) or stage id -> what its blocks are filed under.
        phases: In order.
        store: Base href of the run store.
        warnings: What will run, but deserves a look.
        folder: Href of the output folder that the run owns; empty for a plan of no run.
        patience_s: Seconds to wait for a service that restarts or does not respond.
        report: Whether `report.html` has links to the products, their bytes, or is not written.
        compress: Codec and level of the blocks, as `Compression.parse` reads them.
        product_format: Version of the bytes of blocks and products: workers of another one would
            mix two kinds.
        package: Version of the package that made the plan.
        grids: Image of a `warp` that states its own grid -> that grid.
        cache: The cache from which blocks are taken, and to which they are given; None for none.
    """

    format: Literal[2] = 2
    run: str
    pipeline: dict[str, JsonValue]
    scenes: dict[str, Scene]
    parameters: dict[str, JsonValue]
    services: dict[str, Service]
    keys: dict[str, str]
    phases: tuple[Phase, ...]
    store: str
    warnings: tuple[str, ...] = ()
    folder: str = ""
    patience_s: float = Field(default=60.0, ge=0)
    report: ReportForm = "links"
    compress: str = str(Compression())
    product_format: int = PRODUCT_FORMAT
    package: str = Field(default_factory=package_version)
    grids: dict[str, Grid] = Field(default_factory=dict)
    cache: CachePlace | None = None

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        # A plan without such grids is that of earlier versions, whose workers can run it.
        document: dict[str, object] = handler(self)
        return {key: value for key, value in document.items() if key != "grids" or value}

    @property
    def compression(self) -> Compression:
        """Codec and level of the blocks of all rasters."""
        return Compression.parse(self.compress)


class PlanVersion(BaseModel):
    """What a plan of any version of the package says of its version.

    Attributes:
        format: Version of the plan.
        product_format: Version of the bytes of blocks and products; the first plans had none.
        package: Version of the package that made it.
    """

    format: int
    product_format: int = 0
    package: str = "0.1"

    def require_own(self, href: str) -> None:
        """Require that this package makes such plans and blocks.

        Raises:
            OtherVersion: it does not; with the href of the plan, and both versions.
        """
        wanted = (Plan.model_fields["format"].default, PRODUCT_FORMAT)
        if (self.format, self.product_format) != wanted:
            raise OtherVersion(
                f"plan {href} was made by pesto-workflows {self.package} with plan format "
                f"{self.format} and product format {self.product_format}, and this process has "
                f"{package_version()} with {wanted[0]} and {wanted[1]}: install one version on all "
                "workers, and plan again"
            )


class Chunk(ClosedValue):
    """What crosses a task boundary: where the plan is, and which chunks of it."""

    plan: str = Field(description="href of the plan")
    phase: int = Field(ge=0)
    start: int = Field(ge=0, description="first chunk, inclusive")
    stop: int = Field(ge=1, description="last chunk, exclusive")


class Hole(ClosedValue):
    """A tile that failed finally."""

    window: WindowField
    stage: str
    error: dict[str, JsonValue] = Field(description="a problem document")

    @property
    def reason(self) -> str:
        """The detail of the error, with the first of its wrong fields."""
        return reason_of(self.error)


class StageCost(ClosedValue):
    """Calls and time of a stage in one chunk."""

    calls: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class ChunkResult(ClosedValue):
    """What comes back from a chunk: a manifest's href and counts, never pixels.

    Attributes:
        manifest: href of the chunk's tile records.
        tiles: Tiles computed.
        reused: Tiles not computed, as all their blocks were there.
        holes: Tiles that failed for good.
        blocks: Blocks written.
        bytes_read: Bytes of pixels read from scenes.
    """

    manifest: str
    tiles: int = 0
    reused: int = 0
    holes: int = 0
    blocks: int = 0
    bytes_read: int = 0
