"""Load a run for a worker: its plan, checked and typed again, its store, and the names in it.

Also finds missing blocks and blocked phases, from the footers of packs and the names in the store.
It does not read blocks or pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pesto_runtime.contract import (
    Chunk,
    Description,
    Pipeline,
    Plan,
    Reference,
    parse_binding,
)
from pesto_runtime.errors import InvalidInput, NotFound
from pesto_runtime.pipeline import (
    BoundStage,
    JsonType,
    KnownFacts,
    PhaseStages,
    RasterType,
    VectorType,
    base_grids,
    check,
    phases_of,
    place_of,
    raster_sizes,
)
from pesto_runtime.run.packs import StoredBlocks
from pesto_runtime.run.plan_files import PLANS, read_plan, save_plan
from pesto_runtime.store import Store, open_store
from pesto_runtime.tiling import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Grid, RasterClass, Window
    from pesto_runtime.pipeline import GridType, ValueType
    from pesto_runtime.tiling import BlockIndex, Size


_RESULT_FOLDERS = ("scalars", "rasters", "vectors")
"""Folders of the objects that later phases read; the name of an object starts with its key."""


@dataclass(frozen=True)
class RunContext:
    """A plan with everything that a worker derives from it.

    Attributes:
        plan: The plan.
        store: Its run store.
        stages: Stage id -> stage, bound and typed.
        types: `$owner.port` -> type of the value.
        phases: The phases of the plan, with their stages.
        sizes: Raster or vector -> width and height of its grid.
        bases: Name of a grid -> its pixels.
    """

    plan: Plan
    store: Store
    stages: Mapping[str, BoundStage]
    types: Mapping[str, ValueType]
    phases: tuple[PhaseStages, ...]
    sizes: Mapping[str, Size]
    bases: Mapping[str, Grid]

    def raster_type(self, name: str) -> RasterType:
        """Return the type of a raster by its reference.

        Raises:
            InvalidInput: it is not a raster.
        """
        found = self.types[name]
        if not isinstance(found, RasterType):
            raise InvalidInput(f"{name} is not a raster")
        return found

    def grid_type(self, name: str) -> GridType:
        """Return the type of a raster or a vector by its reference.

        Raises:
            InvalidInput: it is a JSON value.
        """
        found = self.types[name]
        if isinstance(found, JsonType):
            raise InvalidInput(f"{name} is a JSON value, neither a raster nor a vector")
        return found

    def place(self, value: GridType) -> Grid:
        """Return the pixels on Earth of a raster or a vector."""
        return place_of(value, self.bases, self.plan.scenes, self.types)

    def value(self, reference: Reference) -> JsonValue:
        """Return a JSON value of the run: a parameter, an output of a stage, or a merged vector.

        Raises:
            NotFound: its stage has not finished.
        """
        if reference.is_input:
            return self.plan.parameters[reference.port]
        if isinstance(self.types.get(str(reference)), VectorType):
            return self.store.get_json(vector_name(self, str(reference)))
        outputs = self.store.get_json(scalars_name(self, reference.owner))
        if not isinstance(outputs, dict) or reference.port not in outputs:
            raise NotFound(f"{reference} is not among the outputs of its stage")
        return outputs[reference.port]

    def parameters(self, stage: BoundStage) -> dict[str, JsonValue]:
        """Return the JSON inputs of a stage: its literals and the values bound to it.

        Raises:
            NotFound: a stage that computes one of them has not finished.
        """
        values = {port: self.value(reference) for port, reference in stage.values.items()}
        return {**stage.literals, **values}


def begin_run(plan: Plan, *, joins: bool = False) -> str:
    """Store a plan in its run store, and delete the tile records of earlier attempts.

    Args:
        plan: The plan.
        joins: Whether an identical run is at work; its tile records then stay.

    Returns:
        The plan's href: the only value that a task needs to load the run.

    Raises:
        StoreFailed: the store cannot be written.
    """
    href = save_plan(plan)
    if not joins:
        open_store(plan.store).delete_folder(f"manifests/{plan.run}")
    return href


@lru_cache(maxsize=8)
def load_context(plan_href: str) -> RunContext:
    """Load a run by the href of its plan, once per process.

    Raises:
        NotFound: the plan does not exist.
        OtherVersion: another version of the package made it, with other plans or products.
        InvalidInput: it is no plan.
    """
    return context_of(read_plan(plan_href))


def context_of(plan: Plan) -> RunContext:
    """Derive the context of a run from its plan.

    Raises:
        InvalidPipeline: the pipeline does not check; with every error.
        StoreRefused: the run store cannot be opened.
    """
    pipeline = Pipeline.parse(plan.pipeline)
    descriptions = {
        name: Description.parse(service.description) for name, service in plan.services.items()
    }
    facts = KnownFacts(descriptions, scenes=plan.scenes, parameters=plan.parameters)
    checked = check(pipeline, facts)
    checked.require(pipeline.name)
    bases = base_grids(plan.scenes, checked.types, plan.grids)
    return RunContext(
        plan=plan,
        store=open_store(plan.store),
        stages={stage.id: stage for stage in checked.stages},
        types=checked.types,
        phases=phases_of(checked.stages, pipeline.outputs.values()),
        sizes=raster_sizes(checked.types, bases),
        bases=bases,
    )


def chunks_of(plan_href: str, number: int) -> list[Chunk]:
    """Return the chunks of a phase, one for each task; none for a phase without tiles."""
    phase = load_context(plan_href).plan.phases[number]
    return [
        Chunk(plan=plan_href, phase=number, start=index, stop=index + 1)
        for index in range(len(phase.chunks))
    ]


def forget_run(plan: Plan) -> None:
    """Delete all objects that runs of a plan have stored; blocks of other keys stay.

    Raises:
        StoreFailed: the store cannot be written.
    """
    store, keys = open_store(plan.store), set(plan.keys.values())
    for key in keys:
        for folder in ("blocks", "features", "holes", "partials", "unfinished"):
            store.delete_folder(f"{folder}/{key}")
    stored = [(folder, keys) for folder in _RESULT_FOLDERS]
    for folder, known in (*stored, (PLANS, {plan.run})):
        names = [name for name in store.names(folder) if _stem(name) in known]
        store.delete(names)
    for raster in (*plan.keys, *(f"$inputs.{name}" for name in plan.scenes)):
        store.delete_folder(samples_folder(plan, raster))
    store.delete_folder(f"manifests/{plan.run}")
    # A worker of an orchestrator outlives the run: with the cached plan it would start a chunk of a
    # run that no longer exists, and store blocks that are never deleted.
    load_context.cache_clear()


def is_blocked(context: RunContext, number: int) -> bool:
    """Whether a phase cannot start: its inputs from earlier phases have holes or are missing."""
    if not number:
        return False
    phase = context.phases[number]
    stored = {name for folder in _RESULT_FOLDERS for name in context.store.names(folder)}
    sources = [name for name in phase.sources if not _is_input(name)]
    members = (*phase.stages, *phase.reduces)
    values = [each for stage in members for each in stage.values.values() if not each.is_input]
    needed = [_grid_name(context, name) for name in sources]
    needed += [
        scalars_name(context, each.owner) for each in values if str(each) not in phase.sources
    ]
    return not stored.issuperset(needed)


def skipped_outputs(context: RunContext) -> frozenset[str]:
    """Return the references of the outputs that do not exist, because their inputs have holes.

    Of a stage with values that are folded over tiles, a hole costs the values alone.
    """
    stored = set(context.store.names("scalars"))
    skipped: set[str] = set()
    without_values: set[str] = set()
    for number, phase in enumerate(context.phases):
        if is_blocked(context, number):
            skipped.update(stage.id for stage in (*phase.stages, *phase.reduces))
        ends = phase.stages if phase.kind == "call" else phase.reduces
        skipped.update(each.id for each in ends if scalars_name(context, each.id) not in stored)
        without_values.update(
            each.id for each in phase.folded if scalars_name(context, each.id) not in stored
        )
    wanted = Pipeline.parse(context.plan.pipeline).outputs.values()
    owners = {each: Reference.model_validate(parse_binding(each)).owner for each in wanted}
    return frozenset(
        each
        for each, owner in owners.items()
        if owner in skipped
        or (owner in without_values and isinstance(context.types[each], JsonType))
    )


def missing_blocks(
    context: RunContext, name: str, *, window: Window | None = None
) -> tuple[BlockIndex, ...]:
    """Return the blocks (row, col) of a raster or a vector that are not stored, row-major.

    Args:
        context: The run.
        name: The raster or vector.
        window: Pixels of its grid that are searched; None for all.

    Raises:
        StoreFailed: the store does not respond.
    """
    return stored_blocks(context, name, window=window).missing_blocks


def stored_blocks(context: RunContext, name: str, *, window: Window | None = None) -> StoredBlocks:
    """Return the blocks of a raster or a vector that are stored without a hole.

    Args:
        context: The run.
        name: The raster or vector.
        window: Pixels of its grid of which blocks are returned; None for all.

    Raises:
        StoreFailed: the store does not respond.
    """
    part = window or whole(context.sizes[name])
    return StoredBlocks.of(context.store, folder_of(context, name), part)


def declared_classes(context: RunContext, raster: str) -> tuple[RasterClass, ...]:
    """Return the classes that the contract of a stage's output declares; none for other rasters."""
    reference = parse_binding(raster)
    stage = context.stages.get(reference.owner) if reference else None
    port = stage.description.output(reference.port) if stage and reference else None
    return (port.raster.classes or ()) if port and port.raster else ()


def grid_of(context: RunContext, owner: str) -> str:
    """Return the raster or vector whose blocks an owner has: of a reduce, its first raster."""
    stage = context.stages.get(owner)
    return owner if stage is None else str(next(iter(stage.rasters.values())))


def folder_of(context: RunContext, owner: str) -> str:
    """Return the folder of the packs of a raster or a vector, or of a reduce's partials (by id)."""
    kind = "blocks"
    if owner in context.stages:
        kind = "partials"
    elif isinstance(context.types[owner], VectorType):
        kind = "features"
    return f"{kind}/{context.plan.keys[owner]}"


def holed_name(context: RunContext, raster: str, index: tuple[int, int]) -> str:
    """Return the name of a block (row, col) with a hole, which only the product may use."""
    return f"holes/{context.plan.keys[raster]}/{index[0]}/{index[1]}"


def unfinished_name(context: RunContext, raster: str, index: tuple[int, int]) -> str:
    """Return the name of the pixels of a block (row, col) with a hole, for the next attempt."""
    return f"unfinished/{context.plan.keys[raster]}/{index[0]}/{index[1]}"


def samples_folder(plan: Plan, raster: str) -> str:
    """Return the folder of the samples of a scene or of a raster, for the report."""
    key = plan.keys.get(raster)
    if key is None:
        scene = plan.scenes[raster.rpartition(".")[2]]
        key = hashlib.sha256(scene.model_dump_json().encode()).hexdigest()[:32]
    return f"samples/{key}"


def scalars_name(context: RunContext, stage_id: str) -> str:
    """Return the name of the JSON outputs of a stage."""
    return f"scalars/{context.plan.keys[stage_id]}.json"


def raster_name(context: RunContext, raster: str) -> str:
    """Return the name of a raster that a later phase reads."""
    return f"rasters/{context.plan.keys[raster]}.tif"


def raster_digest_name(context: RunContext, raster: str) -> str:
    """Return the name of the checksum of a raster that a later phase reads."""
    return f"rasters/{context.plan.keys[raster]}.json"


def vector_name(context: RunContext, vector: str) -> str:
    """Return the name of a vector that a later phase receives as a value."""
    return f"vectors/{context.plan.keys[vector]}.json"


def manifest_name(context: RunContext, phase: int, start: int, stop: int) -> str:
    """Return the name of the tile records of a range of chunks."""
    return f"manifests/{context.plan.run}/{phase}-{start}-{stop}.json"


def stage_manifest_name(context: RunContext, stage_id: str) -> str:
    """Return the name of the cost of a stage's single call."""
    return f"manifests/{context.plan.run}/{stage_id}.json"


def _grid_name(context: RunContext, name: str) -> str:
    """Return the name of a mosaicked raster or a merged vector."""
    is_vector = isinstance(context.types[name], VectorType)
    return vector_name(context, name) if is_vector else raster_name(context, name)


def _is_input(name: str) -> bool:
    reference = parse_binding(name)
    return reference is not None and reference.is_input


def _stem(name: str) -> str:
    """Return the key in the name of an object: `rasters/KEY.tif`, `plans/RUN-DIGEST.json`."""
    return name.rpartition("/")[2].partition(".")[0].partition("-")[0]
