"""What goes into the tasks of each type, and what comes out: hrefs, indices and counts, no pixels.

Conductor resolves an expression that leads nowhere to null, so that every optional input may be.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, JsonValue

from pesto_runtime.contract.raster import ClosedValue

Targets: TypeAlias = str | list[str]
Holes: TypeAlias = Literal["fail", "keep"]


class DiscoverInput(ClosedValue):
    """Services to ask what they are."""

    urls: list[str] = Field(min_length=1, description="Services, or targets.")
    catalog: str | None = Field(default=None, description="Folder to save descriptions in.")


class DiscoverOutput(ClosedValue):
    """What they are."""

    services: dict[str, str] = Field(description="Process name -> URL, as `pesto_plan` takes it.")
    digests: dict[str, str] = Field(description="Process name -> digest of its description.")


class PlanInput(ClosedValue):
    """A run, as it is asked for."""

    pipeline: dict[str, JsonValue] = Field(description="The pipeline's document.")
    base: str | None = Field(
        default=None, description="Directory that the pipeline's own targets are relative to."
    )
    inputs: dict[str, JsonValue] = Field(description="Input name -> href, or a value.")
    folder: str = Field(min_length=1, description="Where the outputs go.")
    services: dict[str, Targets | dict[str, JsonValue]] | None = Field(
        default=None,
        description="Process name -> target, URL, URLs, or {url, overlay}; before the pipeline's.",
    )
    store: str | None = Field(default=None, description="Run store; the folder's own if absent.")
    workers: int | None = Field(default=None, ge=1, description="Chunks that will run at once.")
    max_tasks: int | None = Field(default=None, ge=1, le=256, description="Most chunks.")
    tile: int | None = Field(default=None, ge=1, description="Side of a tile, pixels.")
    holes: Holes | None = Field(default=None, description="What a failed tile does to its task.")
    concurrency: int | None = Field(default=None, ge=1, description="Tiles of a chunk at once.")
    fresh: bool | None = Field(default=None, description="Forget what earlier runs left.")


class ChunkInput(ClosedValue):
    """A chunk of a plan: what one task works on."""

    plan: str = Field(description="href of the plan")
    phase: int = Field(ge=0, description="number of the phase")
    start: int = Field(ge=0, description="first chunk, inclusive")
    stop: int = Field(ge=1, description="last chunk, exclusive")
    holes: Holes | None = Field(
        default=None, description="`fail` (the default): the task fails; `keep`: holes are told."
    )
    concurrency: int | None = Field(default=None, ge=1, description="Tiles at once.")


class PlanOutput(ClosedValue):
    """A plan, and the chunks of each of its phases."""

    plan: str = Field(description="href of the plan")
    run: str = Field(description="Identity of the run.")
    started: str = Field(description="When: ISO 8601.")
    tiles: int
    chunks: list[list[ChunkInput]] = Field(description="By phase; none for a single call.")


class ServiceChunkInput(ChunkInput):
    """A chunk in the queue of a service; its plan names the service."""

    service: Targets | None = Field(default=None, description="The service, as registered.")


class CloseInput(ClosedValue):
    """A phase whose chunks are done."""

    plan: str = Field(description="href of the plan")
    phase: int = Field(ge=0, description="number of the phase")


class CloseOutput(ClosedValue):
    """What the phase owed, and could not make."""

    unmade: list[str] = Field(description="Ids of stages that holes kept from being made.")


class PublishInput(ClosedValue):
    """A run whose phases are done."""

    plan: str = Field(description="href of the plan")
    folder: str = Field(description="Where the outputs go.")
    started: str | None = Field(default=None, description="ISO 8601.")
    as_cog: bool | None = Field(default=None, description="Write cloud-optimised GeoTIFFs.")
    keep: bool | None = Field(default=None, description="Keep the run store.")


class PublishOutput(ClosedValue):
    """Where the outputs are."""

    status: Literal["COMPLETE", "PARTIAL"]
    result: str = Field(description="href of result.json")
    outputs: dict[str, JsonValue] = Field(description="Name -> href, or the value itself.")
    tiles: dict[str, JsonValue] = Field(description="Computed, reused, holes.")


class MosaicInput(ClosedValue):
    """A raster of a plan to write to a file."""

    plan: str = Field(description="href of the plan")
    raster: str = Field(description="Its reference: `$stage.port`.")
    path: str = Field(description="File to write.")


class MosaicOutput(ClosedValue):
    """A raster that was written."""

    href: str
    sha256: str
    holes: int = Field(description="Blocks that are not there whole.")


class MergeInput(ClosedValue):
    """A vector of a plan to write to a file."""

    plan: str = Field(description="href of the plan")
    vector: str = Field(description="Its reference: `$stage.port`.")
    path: str = Field(description="File to write.")


class MergeOutput(ClosedValue):
    """A vector that was written."""

    href: str
    sha256: str
    features: int
    holes: int = Field(description="Blocks that are not there whole.")


class ReduceInput(ClosedValue):
    """A stage of a plan that folds blocks to values."""

    plan: str = Field(description="href of the plan")
    stage: str = Field(description="Id of the reduce stage.")


class ReduceOutput(ClosedValue):
    """Whether it was made; False where holes kept it from being."""

    made: bool


class CallInput(ClosedValue):
    """One plain call of one process on whole images, outside any plan."""

    service: Targets = Field(description="A target, or URLs of replicas.")
    values: dict[str, JsonValue] = Field(description="Input name -> href of an image, or a value.")
    keep: dict[str, str] | None = Field(default=None, description="Output name -> file.")


class CallOutput(ClosedValue):
    """What it answered."""

    outputs: dict[str, JsonValue] = Field(description="Name -> value, or the path of its file.")


class CleanupInput(ClosedValue):
    """A workflow that failed; everything is kept for `retry`, unless it is to be forgotten."""

    workflow: str = Field(description="Id of the workflow.")
    reason: str | None = Field(default=None, description="Why the workflow failed.")
    plan: str | None = Field(default=None, description="href of its plan")
    folder: str | None = Field(default=None, description="Where its outputs go.")
    forget: bool | None = Field(default=None, description="Delete what the run store holds.")


class CleanupOutput(ClosedValue):
    """What was cleaned up."""

    forgotten: bool = Field(description="Whether the run store was emptied; else `retry` resumes.")
