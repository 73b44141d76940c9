"""Define the values of one call beside its inputs: options, tile, images, jobs, problems.

No pixels are read or encoded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue, PlainSerializer

from pesto_runtime.contract.base import ClosedValue, Nodata, Value
from pesto_runtime.contract.geometry import ReadWindowField, Transform, WindowField
from pesto_runtime.contract.selection import BandsField
from pesto_runtime.errors import BadField, json_pointer, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


LONGEST_LEASE_S = 30 * 24 * 3600
"""Longest lease of a job, seconds: 30 days."""

Moment = Annotated[datetime, PlainSerializer(datetime.isoformat, when_used="json")]


class Example(Value):
    """One call of a process, and the outputs that it must return."""

    inputs: dict[str, JsonValue] = Field(description="As in the body of a request.")
    outputs: dict[str, JsonValue] = Field(description="JSON outputs; others are not compared.")
    tolerance: float = Field(default=0, ge=0, description="Allowed difference of each number.")


class ProblemField(ClosedValue):
    """One wrong field."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the request")
    detail: str
    value: str | None = Field(default=None, description="the start of the offending value")


class Problem(Value):
    """The body of every answer that is an error."""

    type: str = Field(default="about:blank", description="urn:pesto:error:SLUG")
    title: str = ""
    status: int = Field(ge=400, le=599)
    detail: str
    retryable: bool = Field(default=False, description="whether the same request can succeed later")
    errors: tuple[ProblemField, ...] = ()


class TileInfo(ClosedValue):
    """Position of a call's pixels in the scene; passed to a parameter with this type hint.

    Attributes:
        read: The window that the process receives, margin included; pixels of the scene. It
            extends beyond the scene where pixels are mirrored (`edge`) or filled (`fill`).
        write: The part of it that is written to the product.
        own: The part of it that no other tile has: values that are folded count its pixels alone.
            None for a process without such values in a run.
        scene_size: Width and height of the whole scene.
        crs: Authority code (`EPSG:32616`) or WKT2; None for a raster without a CRS.
        transform: Affine coefficients (a, b, c, d, e, f) of the *scene*, row-major as in rasterio.
        nodata: Of the first image input.
        tags: Dataset tags of the first image input.
        scales: Physical value per stored step, per band that the process receives of the first
            image input: `physical = stored * scale + offset`. Empty if it is not known.
        offsets: Physical value of a stored 0, per band.
        units: Unit of the physical values, per band; None if it is not known.
    """

    read: ReadWindowField
    write: WindowField
    own: WindowField | None = None
    scene_size: tuple[int, int]
    crs: str | None = None
    transform: Transform | None = None
    nodata: Nodata = None
    tags: dict[str, str] = Field(default_factory=dict)
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    units: tuple[str | None, ...] = ()

    @property
    def own_slices(self) -> tuple[slice, slice]:
        """Slices (row, col) of an image of the call that select the tile's own pixels."""
        return (self.own or self.write).relative_to(self.read).slices


class WireImage(Value):
    """An image on the wire, by href or inline, with what a sensor model wants to know of it."""

    model_config = ConfigDict(title="Image")

    href: str | None = None
    data: str | None = Field(default=None, description="base64 of an image file")
    window: WindowField | None = None
    bands: BandsField = None
    identity: str | None = Field(default=None, description="as in an image reference")
    sensor: str | None = None
    acquired: datetime | None = Field(default=None, description="time of acquisition, RFC 3339")
    resolution: float | None = Field(default=None, gt=0, description="metres per pixel")
    level: str | None = Field(default=None, description="processing level")
    ephemeris: dict[str, JsonValue] | None = Field(default=None, description="free form")


class ImageCapabilities(Value):
    """Images that a process is made for; an orchestrator may filter on any of it."""

    sensors: tuple[str, ...] = ()
    resolution: tuple[float, float] | None = Field(
        default=None, description="[finest, coarsest] in metres per pixel"
    )
    levels: tuple[str, ...] = ()
    formats: tuple[str, ...] = Field(default=(), description="media types")


class InputCapabilities(Value):
    """Capabilities of every image input of a process, by port."""

    ports: dict[str, ImageCapabilities] = Field(default_factory=dict)


class CallOptions(Value):
    """The reserved key `pesto` of a request.

    Attributes:
        tile: The value of the process's `TileInfo` parameter.
        out: Output name -> href to write it to; the response then contains the href.
        partial: Whether to return the partial of a reduce.
        finish: A merged partial; the response has the outputs computed from it.
        roi: PESTO's own window option, passed through.
        lease_s: Seconds without a request for the job of this call, after which the job is
            dismissed; None for never.
    """

    tile: TileInfo | None = None
    out: dict[str, str] = Field(default_factory=dict)
    partial: bool = False
    finish: dict[str, JsonValue] | None = None
    roi: dict[str, JsonValue] | None = None
    lease_s: float | None = Field(default=None, gt=0, le=LONGEST_LEASE_S)


class Job(Value):
    """One accepted execution; `jobID`, `status` and `type` say it as OGC API Processes does."""

    id: str
    key: str | None = Field(default=None, description="the Idempotency-Key it came with")
    state: Literal["accepted", "running", "successful", "failed", "dismissed"]
    progress: float = Field(default=0, ge=0, le=100, description="percent")
    error: dict[str, JsonValue] | None = Field(default=None, description="a problem document")
    lease_until: Moment | None = None
    outputs: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="output name -> href, or hrefs of a list of images"
    )
    created: Moment | None = None
    started: Moment | None = None
    finished: Moment | None = None
    expires: Moment | None = Field(default=None, description="when its results are deleted")
    log: tuple[str, ...] = Field(default=(), description="last lines that the algorithm wrote")
    job_id: str | None = Field(default=None, alias="jobID")
    process_id: str | None = Field(default=None, alias="processID")
    status: str | None = None
    type: Literal["process"] = "process"
    message: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, with or without results."""
        return self.state not in ("accepted", "running")


_UNSET = object()


def bad_fields(
    error: ValidationError, *, prefix: str = "", value: object = _UNSET
) -> Iterator[BadField]:
    """Convert the errors of pydantic: JSON pointer, reason, value.

    Args:
        error: The error that pydantic raised.
        prefix: JSON pointer to the validated value.
        value: The validated value. With it, the keys of the value are separated from the names of
            union branches, and the errors of all branches become one field.
    """
    # pydantic adds a branch's name to `loc` and reports one error per branch of a union:
    # https://docs.pydantic.dev/latest/errors/errors/
    reasons: dict[str, list[str]] = {}
    values: dict[str, str | None] = {}
    for each in error.errors(include_url=False):
        where = prefix + json_pointer(*_place(each, value))
        reasons.setdefault(where, []).append(each["msg"].removeprefix("Value error, "))
        values[where] = None if each["type"] == "missing" else shortened(each["input"])
    for where, messages in reasons.items():
        if not any(
            other.startswith(where + "/") for other in reasons
        ):  # a deeper one is more exact
            yield BadField(where, "; or ".join(dict.fromkeys(messages)), values[where])


def _place(error: ErrorDetails, value: object) -> Iterator[int | str]:
    """Yield the parts of a location that are keys and indices of the value."""
    for part in error["loc"]:
        if value is _UNSET:
            yield part
        elif isinstance(value, Mapping):
            if part in value or error["type"] == "missing":
                yield part
                value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int):
            yield part
            value = value[part] if part < len(value) else None
