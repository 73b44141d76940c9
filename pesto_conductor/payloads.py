"""Define the input and the output of each task type: hrefs, indices and counts, never pixels.

Conductor replaces an expression without a value by null, so every optional field accepts null.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, JsonValue

from pesto_runtime.contract import package_version
from pesto_runtime.contract.base import ClosedValue

Targets: TypeAlias = str | list[str]
Holes: TypeAlias = Literal["fail", "keep"]


class TaskOutput(ClosedValue):
    """What every output has, except those of chunks: a JOIN has 256 of them in 64 KB."""

    package: str = Field(
        default_factory=package_version,
        description="Version of this package that the worker has.",
    )


class DiscoverInput(ClosedValue):
    """Services whose descriptions are requested."""

    urls: list[str] = Field(min_length=1, description="Services, or targets.")
    catalog: str | None = Field(default=None, description="Folder to save descriptions in.")


class DiscoverOutput(TaskOutput):
    """The processes of the services."""

    services: dict[str, str] = Field(description="Process name -> URL, for `pesto_plan`.")
    digests: dict[str, str] = Field(description="Process name -> digest of its description.")


class PlanInput(ClosedValue):
    """A run that is to be planned."""

    pipeline: dict[str, JsonValue] = Field(description="The pipeline's document.")
    base: str | None = Field(
        default=None, description="Directory to which the pipeline's own targets are relative."
    )
    inputs: dict[str, JsonValue] = Field(description="Input name -> href, or a value.")
    folder: str = Field(min_length=1, description="Output folder.")
    services: dict[str, Targets | dict[str, JsonValue]] | None = Field(
        default=None,
        description="Process name -> target, URL, URLs, or {url, overlay}; overrides the pipeline.",
    )
    store: str | None = Field(default=None, description="Run store; in the folder if absent.")
    workers: int | None = Field(default=None, ge=1, description="Chunks that run at once.")
    max_tasks: int | None = Field(
        default=None, ge=1, le=256, description="Largest number of chunks of a phase."
    )
    tile: int | None = Field(default=None, ge=1, description="Side of a tile, pixels.")
    patience: float | None = Field(
        default=None, ge=0, description="Seconds to wait for a service that restarts; 60 if absent."
    )
    report: Literal["links", "embed", "none"] | None = Field(
        default=None, description="What `report.html` has of the products; `none`: no report."
    )
    compress: str | None = Field(
        default=None,
        description="Codec of image outputs: deflate[:1-12] (default), zstd[:1-22] or none.",
    )
    cache: str | None = Field(
        default=None, description="Cache of blocks, which runs share; all workers must reach it."
    )
    holes: Holes | None = Field(
        default=None, description="As in `pesto_process`, for all chunks of the plan."
    )
    concurrency: int | None = Field(default=None, ge=1, description="Tiles of a chunk at once.")
    fresh: bool | None = Field(
        default=None, description="Delete the blocks that earlier runs have stored."
    )
    take_over: bool | None = Field(
        default=None, description="Take the folder from a run that still owns it."
    )
    replace: bool | None = Field(
        default=None, description="Overwrite the finished result of another pipeline or scene."
    )
    preflight: Literal["refuse", "warn"] | None = Field(
        default=None,
        description="If workers of other machines poll, and a place is on this one: `refuse`"
        " (default), or `warn` if they share it.",
    )


class ChunkInput(ClosedValue):
    """A chunk of a plan, which one task computes."""

    plan: str = Field(description="href of the plan")
    phase: int = Field(ge=0, description="number of the phase")
    start: int = Field(ge=0, description="first chunk, inclusive")
    stop: int = Field(ge=1, description="last chunk, exclusive")
    holes: Holes | None = Field(
        default=None,
        description="After a failed tile, `fail` (the default): the task fails; "
        "`keep`: it completes, and its output counts the holes.",
    )
    concurrency: int | None = Field(default=None, ge=1, description="Tiles at once.")


class PlanOutput(TaskOutput):
    """A plan, and the chunks of each of its phases."""

    plan: str = Field(description="href of the plan")
    run: str = Field(description="Identity of the run.")
    started: str = Field(description="Start of the run, ISO 8601.")
    tiles: int
    chunks: list[list[ChunkInput]] = Field(description="By phase; empty for a single call.")


class ServiceChunkInput(ChunkInput):
    """A chunk in the queue of a service; its plan names the service."""

    service: Targets | None = Field(default=None, description="The service, as registered.")


class CloseInput(ClosedValue):
    """A phase whose chunks are done."""

    plan: str = Field(description="href of the plan")
    phase: int = Field(ge=0, description="number of the phase")


class CloseOutput(TaskOutput):
    """The stages that could not be finished."""

    unmade: list[str] = Field(description="Ids of stages without a result, because of holes.")


class PublishInput(ClosedValue):
    """A run whose phases are done."""

    plan: str = Field(description="href of the plan")
    folder: str = Field(description="Output folder.")
    started: str | None = Field(default=None, description="Start of the run, ISO 8601.")
    as_cog: bool | None = Field(default=None, description="Write cloud-optimised GeoTIFFs.")
    overviews: bool | None = Field(default=None, description="Write GeoTIFFs with overviews.")
    keep: bool | None = Field(default=None, description="Keep the run store.")


class PublishOutput(TaskOutput):
    """The outputs of a run."""

    status: Literal["COMPLETE", "PARTIAL"]
    result: str = Field(description="href of result.json")
    outputs: dict[str, JsonValue] = Field(description="Name -> href, or the value itself.")
    tiles: dict[str, JsonValue] = Field(description="Computed, reused, holes.")


class MosaicInput(ClosedValue):
    """A raster of a plan to write to a file."""

    plan: str = Field(description="href of the plan")
    raster: str = Field(description="Its reference: `$stage.port`.")
    path: str = Field(description="File to write.")


class MosaicOutput(TaskOutput):
    """A raster that was written."""

    href: str
    sha256: str
    holes: int = Field(description="Blocks that are missing, or have a hole.")


class MergeInput(ClosedValue):
    """A vector of a plan to write to a file."""

    plan: str = Field(description="href of the plan")
    vector: str = Field(description="Its reference: `$stage.port`.")
    path: str = Field(description="File to write.")


class MergeOutput(TaskOutput):
    """A vector that was written."""

    href: str
    sha256: str
    features: int
    holes: int = Field(description="Blocks that are missing, or have a hole.")


class ReduceInput(ClosedValue):
    """A stage of a plan that reduces blocks to values."""

    plan: str = Field(description="href of the plan")
    stage: str = Field(description="Id of the reduce stage.")


class ReduceOutput(TaskOutput):
    """Whether the values were computed."""

    made: bool = Field(description="False if there are holes.")


class CallInput(ClosedValue):
    """One plain call of one process on whole images, outside any plan."""

    service: Targets = Field(description="A target, or URLs of replicas.")
    values: dict[str, JsonValue] = Field(description="Input name -> href of an image, or a value.")
    keep: dict[str, str] | None = Field(default=None, description="Output name -> file.")


class CallOutput(TaskOutput):
    """The outputs of a call."""

    outputs: dict[str, JsonValue] = Field(description="Name -> value, or the path of its file.")


class CleanupInput(ClosedValue):
    """A workflow that failed; its blocks stay stored for `retry`, unless `forget` is set."""

    workflow: str = Field(description="Id of the workflow.")
    reason: str | None = Field(default=None, description="Why the workflow failed.")
    plan: str | None = Field(default=None, description="href of its plan")
    folder: str | None = Field(default=None, description="Its output folder.")
    forget: bool | None = Field(default=None, description="Delete its objects in the run store.")


class CleanupOutput(TaskOutput):
    """Whether the run can be resumed."""

    forgotten: bool = Field(description="Whether the objects were deleted; else `retry` resumes.")


class PlanScenesInput(PlanInput):
    """A campaign that is to be planned: one pipeline over many scenes."""

    scenes: list[JsonValue] = Field(
        min_length=1,
        description="For each scene its href, or an object of its inputs, with an `id`.",
    )
    inputs: dict[str, JsonValue] = Field(
        default_factory=dict, description="Input name -> href, or a value, for all scenes."
    )
    as_cog: bool | None = Field(default=None, description="Write cloud-optimised GeoTIFFs.")
    overviews: bool | None = Field(default=None, description="Write GeoTIFFs with overviews.")


class ScenesTaskInput(ClosedValue):
    """A task of a campaign: chunks of one scene or of several."""

    campaign: str = Field(description="href of the plan of the campaign")
    phase: int = Field(ge=0, description="number of the phase")
    task: int = Field(ge=0, description="number of the task in its phase")
    holes: Holes | None = Field(
        default=None,
        description="After a failed tile, `fail` (the default): its scene fails; "
        "`keep`: it ends PARTIAL.",
    )
    concurrency: int | None = Field(default=None, ge=1, description="Tiles at once.")


class PlanScenesOutput(TaskOutput):
    """The plan of a campaign, and the tasks of each of its phases."""

    campaign: str = Field(description="href of the plan of the campaign")
    started: str = Field(description="Start of the run, ISO 8601.")
    planned: int = Field(description="Scenes that have a plan.")
    complete: int = Field(description="Scenes that an earlier run has completed.")
    tasks: list[list[ScenesTaskInput]] = Field(description="By phase.")


class ScenesTaskOutput(ClosedValue):
    """Counts of a task of a campaign."""

    scenes: int = Field(default=0, description="Scenes whose chunks are computed.")
    failed: int = Field(default=0, description="Scenes that failed.")
    tiles: int = 0
    reused: int = 0
    holes: int = 0
    blocks: int = 0
    bytes_read: int = 0


class CloseScenesInput(ClosedValue):
    """A phase of a campaign whose tasks are done."""

    campaign: str = Field(description="href of the plan of the campaign")
    phase: int = Field(ge=0, description="number of the phase")


class CloseScenesOutput(TaskOutput):
    """The number of failed scenes."""

    failed: int = Field(description="Scenes that have failed in this phase or before.")


class PublishScenesInput(ClosedValue):
    """A campaign whose phases are done."""

    campaign: str = Field(description="href of the plan of the campaign")
    folder: str = Field(min_length=1, description="Folder of the campaign.")
    started: str | None = Field(default=None, description="Start of the run, ISO 8601.")
    as_cog: bool | None = Field(default=None, description="Write cloud-optimised GeoTIFFs.")
    overviews: bool | None = Field(default=None, description="Write GeoTIFFs with overviews.")
    keep: bool | None = Field(default=None, description="Keep the run stores.")


class PublishScenesOutput(TaskOutput):
    """The end of a campaign."""

    status: Literal["COMPLETE", "PARTIAL"]
    scenes: Literal["all-published", "some-failed"]
    campaign: str = Field(description="href of campaign.json")
    counts: dict[str, int] = Field(description="Status -> number of scenes.")
    failed: list[str] = Field(description="Ids of failed scenes, 20 at most.")
