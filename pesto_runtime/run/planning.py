"""Check a pipeline, and plan a run of it: read the inputs, and divide the scenes into chunks.

Importing this file loads neither pixels nor network, because orchestrators need the shape of a
pipeline whenever they parse a DAG. It does not run anything.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from pesto_runtime.contract import Compression, Pipeline, Plan
from pesto_runtime.errors import InvalidInput, InvalidPipeline, StoreFailed
from pesto_runtime.pipeline import (
    KnownFacts,
    PhaseCost,
    Sizing,
    check,
    completed,
    make_plan,
    phase_cost,
    phases_of,
    raster_bytes,
    read_later,
)
from pesto_runtime.pipeline.conversions import with_conversions
from pesto_runtime.places import href_of
from pesto_runtime.run.cache_planning import planned_cache, uncached_stages
from pesto_runtime.run.catalogs import read_document
from pesto_runtime.run.pipeline_inputs import (
    PipelineInputs,
    with_defaults,
    with_literal_images,
)
from pesto_runtime.run.warp_planning import require_warps, warped_grids
from pesto_runtime.tiling import tile_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Literal

    from pesto_runtime.contract import Phase, ReportForm, Scene
    from pesto_runtime.pipeline import Checked
    from pesto_runtime.pipeline.conversions import Conversion
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.services import Services


@dataclass(frozen=True)
class PhaseShape:
    """The facts of a phase that do not depend on the scene.

    Attributes:
        number: Index of the phase in the plan.
        kind: `map`, `whole` or `call`.
        stages: Ids of its map stages in order, or of its only whole or call stage.
        reduces: Ids of the reduces that read its blocks.
        rasters: Rasters (`$stage.port`) that a later phase reads: mosaicked before it starts.
        folded: Ids of map stages with values that are folded over tiles.
    """

    number: int
    kind: Literal["map", "whole", "call"]
    stages: tuple[str, ...]
    reduces: tuple[str, ...]
    rasters: tuple[str, ...]
    folded: tuple[str, ...] = ()

    @property
    def values(self) -> tuple[str, ...]:
        """Ids of the stages whose values exist when the phase is closed."""
        return (*self.folded, *self.reduces)

    @property
    def fans_out(self) -> bool:
        """Whether it has chunks."""
        return self.kind != "call"


PUBLISHED_BYTES_PER_S = 400e6
"""Bytes of products that are copied and hashed in a second."""


@dataclass(frozen=True)
class PhaseEstimate:
    """The estimated cost of a phase, from nominal rates; good to a factor of three.

    Attributes:
        tiles: Number of tiles.
        chunks: Number of tasks.
        bytes_read: Raw bytes of the pixels of its sources, without margins.
        bytes_made: Raw bytes of the pixels that it stores.
        memory_bytes: Memory for the tile that one worker computes.
        seconds: Time of one worker.
    """

    tiles: int
    chunks: int
    bytes_read: int
    bytes_made: int
    memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Planned:
    """A plan with its check and its estimates.

    Attributes:
        plan: The plan.
        checked: The type check that it passed.
        estimates: Estimated cost of each phase.
    """

    plan: Plan
    checked: Checked
    estimates: tuple[PhaseEstimate, ...]

    @property
    def publish_seconds(self) -> float:
        """Seconds to write all products, as compressed to a half."""
        return sum(each.bytes_made for each in self.estimates) / 2 / PUBLISHED_BYTES_PER_S


def load_pipeline(path: AnyPath) -> Pipeline:
    """Read the file of a pipeline, on this machine, in a bucket or on a web server.

    Raises:
        InvalidInput: it does not exist, or is not JSON.
        InvalidPipeline: it does not fit the schema; with every wrong field.
    """
    document = read_document(path)
    try:
        return Pipeline.parse(document)
    except InvalidPipeline as error:
        raise InvalidPipeline.of(str(path), error.fields) from error


def insert_conversions(path: Path, found: Sequence[Conversion]) -> None:
    """Write proposed conversions into the file of a pipeline, as stages of their own.

    Raises:
        InvalidInput: it is not the file of a pipeline on this machine.
        StoreFailed: it cannot be written.
    """
    document = read_document(path)
    if path.suffix != ".json" or not isinstance(document, dict):
        raise InvalidInput(f"--insert-converters changes the file of a pipeline; {path} is none")
    try:
        path.write_text(json.dumps(with_conversions(document, found), indent=2) + "\n")
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


def check_pipeline(
    pipeline: Pipeline, services: Services, *, inputs: PipelineInputs | None = None
) -> Checked:
    """Type-check a pipeline against the descriptions of its services, and against its inputs.

    Args:
        pipeline: The pipeline.
        services: The services of its processes.
        inputs: Scenes and parameters; None to check without them.
    """
    pipeline, inputs = with_literal_images(pipeline, services, inputs)
    inputs = inputs and with_defaults(pipeline, services, inputs)
    return check(
        pipeline,
        KnownFacts(
            descriptions=services.descriptions,
            digests=services.digests,
            plain=services.plain,
            scenes=inputs.scenes if inputs else {},
            unreadable={n: str(error) for n, error in inputs.unreadable.items()} if inputs else {},
            parameters=inputs.parameters if inputs else None,
            offered=services.offered,
        ),
    )


def shape(pipeline: Pipeline, services: Services) -> tuple[PhaseShape, ...]:
    """Compute the phases of a pipeline; they are the same for every scene.

    Raises:
        InvalidPipeline: the pipeline does not check; with every error.
    """
    checked = check_pipeline(pipeline, services)
    checked.require(pipeline.name)
    phases = phases_of(checked.stages, pipeline.outputs.values())
    return tuple(
        PhaseShape(
            number=number,
            kind=phase.kind,
            stages=tuple(stage.id for stage in phase.stages),
            reduces=tuple(stage.id for stage in phase.reduces),
            rasters=read_later(phases, number),
            folded=tuple(stage.id for stage in phase.folded),
        )
        for number, phase in enumerate(phases)
    )


def plan(  # noqa: PLR0913  # the options of `pesto run`
    pipeline: Pipeline,
    services: Services,
    inputs: PipelineInputs,
    *,
    store: str,
    sizing: Sizing,
    patience_s: float = 60.0,
    folder: AnyPath | None = None,
    report: ReportForm = "links",
    compress: str = "deflate",
    cache: str | None = None,
) -> Planned:
    """Check a pipeline, and make the plan of a run.

    Args:
        pipeline: The pipeline.
        services: The services of its processes.
        inputs: Scenes and parameters.
        store: Base href of the run store.
        sizing: Limits for the sizes of tiles and chunks.
        patience_s: Seconds that the run waits for a service that restarts or does not respond.
        folder: The output folder that the run will own; None for a plan of no run.
        report: What `report.html` has of the products; `none` for no report.
        compress: Codec and level of blocks, as `Compression.parse` reads them.
        cache: Path or href of a cache of blocks, which runs share; None for none.

    Raises:
        InvalidPipeline: the pipeline or its inputs do not check; with every error.
        StoreRefused: the cache cannot be opened.
        RasterUnreadable: the only error is a scene that cannot be read.
        GridMismatch: the scenes are not on one grid.
        InvalidInput: no tile fits into the memory, `compress` is not known, or an image is warped
            onto a grid that it does not touch.
    """
    compression = Compression.parse(compress)
    require_patience(patience_s)
    pipeline, inputs = with_literal_images(pipeline, services, inputs)
    inputs = with_defaults(pipeline, services, inputs)
    checked = check_pipeline(pipeline, services, inputs=inputs)
    _require(pipeline, checked, inputs)
    given = {*inputs.parameters, *inputs.scenes}
    pipeline = completed(pipeline, services.descriptions, given=given)
    grids = warped_grids(checked, inputs) if any(s.is_warp for s in checked.stages) else {}
    require_warps(checked, inputs.scenes, grids)
    planned = make_plan(
        pipeline,
        checked,
        services.services,
        grids=grids,
        scenes=inputs.scenes,
        parameters=inputs.parameters,
        store=store,
        sizing=sizing,
        run_id=uuid4().hex,
        compression=compression,
    )
    warnings = tuple(str(each) for each in (*services.changed, *checked.warnings))
    warnings += tuple(_unidentified(inputs.scenes))
    if cache is not None:
        place = planned_cache(cache, planned, pipeline, checked, services=services)
        planned = planned.model_copy(update={"cache": place})
        warnings += tuple(uncached_stages(planned))
    owned = href_of(folder) if folder else ""
    planned = planned.model_copy(
        update={
            "warnings": warnings,
            "folder": owned,
            "patience_s": patience_s,
            "report": report,
        }
    )
    return Planned(planned, checked, _estimates(planned, checked))


def require_patience(seconds: float) -> None:
    """Require a number of seconds that a plan can state.

    Raises:
        InvalidInput: it is negative, infinite, or no number.
    """
    if not 0 <= seconds < math.inf:
        raise InvalidInput(
            f"patience of {seconds} s is no time to wait for a service: give seconds from 0 on, "
            "as 86400 for a day (--patience, patience_s)"
        )


def count_tiles(phase: Phase) -> int:
    """Return the number of tiles of a phase."""
    return sum(tile_count(chunk, phase.tile) for chunk in phase.chunks)


def _unidentified(scenes: Mapping[str, Scene]) -> Iterator[str]:
    for name, scene in scenes.items():
        if not scene.identity:
            yield (
                f"input {name!r}: the server of {scene.href} states neither ETag nor Last-Modified "
                "for HEAD: a change of the scene during the run is not noticed, and no other run "
                "reuses its blocks"
            )


def _estimates(plan: Plan, checked: Checked) -> tuple[PhaseEstimate, ...]:
    remote = {name for name, service in plan.services.items() if service.is_remote}
    grouped = phases_of(checked.stages, Pipeline.parse(plan.pipeline).outputs.values())
    return tuple(
        _estimate(phase, phase_cost(stages, checked.types, phase.size, remote=remote), checked)
        for phase, stages in zip(plan.phases, grouped, strict=True)
    )


def _estimate(phase: Phase, cost: PhaseCost, checked: Checked) -> PhaseEstimate:
    def raw(names: tuple[str, ...]) -> int:
        return sum(raster_bytes(checked.types[name], phase.size) for name in names)

    return PhaseEstimate(
        tiles=count_tiles(phase),
        chunks=len(phase.chunks),
        bytes_read=raw(phase.sources),
        bytes_made=raw(phase.writes),
        memory_bytes=int(phase.tile[0] * phase.tile[1] * cost.pixel_bytes + cost.fixed_bytes),
        seconds=cost.seconds,
    )


def _require(pipeline: Pipeline, checked: Checked, inputs: PipelineInputs) -> None:
    """Do nothing if there are no errors.

    Raises:
        PestoError: the only error is a scene that cannot be read, or a retry can help.
        InvalidPipeline: with every error.
    """
    unreadable = inputs.unreadable.values()
    if len(checked.errors) == len(unreadable):
        for error in unreadable:
            if error.retryable or len(unreadable) == 1:
                raise error
    checked.require(pipeline.name)
