"""What a worker knows of a run: its plan, re-checked and typed, and its store. Loaded once."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from pesto_runtime.contract import (
    Chunk,
    Description,
    Pipeline,
    Plan,
    Reference,
    bad_fields,
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
    check,
    phases_of,
)
from pesto_runtime.pipeline import raster_sizes as sizes_of
from pesto_runtime.raster.read import gdal_version
from pesto_runtime.store import Store, open_store
from pesto_runtime.tiling import blocks_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.pipeline import GridType, ValueType
    from pesto_runtime.tiling import BlockIndex, Size


_PLANS = "plans"


@dataclass(frozen=True)
class RunContext:
    """A plan, ready to be worked on.

    Attributes:
        plan: The plan.
        store: Its run store.
        stages: Stage id -> stage, bound and typed.
        types: `$owner.port` -> type of the value.
        phases: As the plan has them, with their stages.
        sizes: Raster or vector -> width and height of its grid.
    """

    plan: Plan
    store: Store
    stages: Mapping[str, BoundStage]
    types: Mapping[str, ValueType]
    phases: tuple[PhaseStages, ...]
    sizes: Mapping[str, Size]

    def raster_type(self, name: str) -> RasterType:
        """The type of a raster by its reference."""
        found = self.types[name]
        if not isinstance(found, RasterType):
            raise InvalidInput(f"{name} is no raster")
        return found

    def grid_type(self, name: str) -> GridType:
        """The type of a raster or a vector by its reference."""
        found = self.types[name]
        if isinstance(found, JsonType):
            raise InvalidInput(f"{name} is a JSON value, neither a raster nor a vector")
        return found

    def value(self, reference: Reference) -> JsonValue:
        """A JSON value of the run: a parameter, what a finished stage made, or a merged vector.

        Raises:
            NotFound: the stage that makes it has not finished.
        """
        if reference.is_input:
            return self.plan.parameters[reference.port]
        if isinstance(self.types.get(str(reference)), VectorType):
            return self.store.get_json(vector_name(self, str(reference)))
        outputs = self.store.get_json(scalars_name(self, reference.owner))
        if not isinstance(outputs, dict) or reference.port not in outputs:
            raise NotFound(f"{reference} was not made by its stage")
        return outputs[reference.port]

    def forget_manifests(self) -> None:
        """Delete the tile records that an earlier attempt at this run left."""
        self.store.delete(list(self.store.names(f"manifests/{self.plan.run}")))

    def parameters(self, stage: BoundStage) -> dict[str, JsonValue]:
        """The JSON inputs of a stage: its literals and the values bound to it."""
        values = {port: self.value(reference) for port, reference in stage.values.items()}
        return {**stage.literals, **values}


def save_plan(plan: Plan) -> str:
    """Put a plan into its run store, and answer its href.

    Raises:
        StoreFailed: the store cannot be written.
    """
    store = open_store(plan.store)
    data = plan.model_dump_json().encode()
    name = f"{_PLANS}/{plan.run}-{hashlib.sha256(data).hexdigest()[:8]}.json"
    store.put(name, data)
    return store.href(name)


def begin_run(plan: Plan) -> str:
    """Put a plan into its run store, and forget what earlier attempts told of their tiles.

    Returns:
        The plan's href: all that a task has to be told of it.

    Raises:
        StoreFailed: the store cannot be written.
    """
    href = save_plan(plan)
    load_context(href).forget_manifests()
    return href


def chunks_of(plan_href: str, number: int) -> list[Chunk]:
    """What the tasks of a phase are given, one each; none for a phase without tiles."""
    phase = load_context(plan_href).plan.phases[number]
    return [
        Chunk(plan=plan_href, phase=number, start=index, stop=index + 1)
        for index in range(len(phase.chunks))
    ]


def forget_run(plan: Plan) -> None:
    """Delete what runs of this plan left in their store; blocks of other keys stay.

    Raises:
        StoreFailed: the store cannot be written.
    """
    store, keys = open_store(plan.store), set(plan.keys.values())
    for key in keys:
        for folder in ("blocks", "features", "holes", "partials", "unfinished"):
            store.delete(list(store.names(f"{folder}/{key}")))
    made = [(folder, keys) for folder in ("scalars", "rasters", "vectors")]
    for folder, known in (*made, (_PLANS, {plan.run})):
        names = [name for name in store.names(folder) if _stem(name) in known]
        store.delete(names)
    store.delete(list(store.names(f"manifests/{plan.run}")))
    load_context.cache_clear()  # a process that outlives the run must not find its plan


def _stem(name: str) -> str:
    """The key that an object is filed under: `rasters/KEY.tif`, `plans/RUN-DIGEST.json`."""
    return name.rpartition("/")[2].partition(".")[0].partition("-")[0]


@lru_cache(maxsize=8)
def load_context(plan_href: str) -> RunContext:
    """Load a plan from its store, once per process.

    Raises:
        NotFound: there is no plan of this href.
        InvalidInput: it is none that this version reads.
    """
    base, _, name = plan_href.rpartition(f"/{_PLANS}/")
    data = open_store(base).get(f"{_PLANS}/{name}")
    try:
        plan = Plan.model_validate_json(data)
    except ValidationError as error:
        raise InvalidInput.of(f"plan {plan_href}", bad_fields(error)) from error
    return context_of(plan)


def context_of(plan: Plan) -> RunContext:
    """Make a plan ready to be worked on."""
    pipeline = Pipeline.parse(plan.pipeline)
    descriptions = {
        name: Description.parse(service.description) for name, service in plan.services.items()
    }
    facts = KnownFacts(descriptions, scenes=plan.scenes, parameters=plan.parameters)
    checked = check(pipeline, facts)
    checked.require(pipeline.name)
    return RunContext(
        plan=plan,
        store=open_store(plan.store),
        stages={stage.id: stage for stage in checked.stages},
        types=checked.types,
        phases=phases_of(checked.stages, pipeline.outputs.values()),
        sizes=sizes_of(checked.types, plan.size),
    )


def block_name(context: RunContext, raster: str, index: tuple[int, int]) -> str:
    """Where a raster's block (row, col) is kept."""
    return f"blocks/{context.plan.keys[raster]}/{index[0]}/{index[1]}"


def feature_name(context: RunContext, vector: str, index: tuple[int, int]) -> str:
    """Where the features that a block (row, col) owns are kept."""
    return f"features/{context.plan.keys[vector]}/{index[0]}/{index[1]}"


def spoilt_name(context: RunContext, raster: str, index: tuple[int, int]) -> str:
    """Where a block (row, col) that has a hole is kept, for the product alone."""
    return f"holes/{context.plan.keys[raster]}/{index[0]}/{index[1]}"


def partial_name(context: RunContext, stage_id: str, index: tuple[int, int]) -> str:
    """Where a reduce's partial of a block (row, col) is kept."""
    return f"partials/{context.plan.keys[stage_id]}/{index[0]}/{index[1]}"


def scalars_name(context: RunContext, stage_id: str) -> str:
    """Where the JSON outputs of a stage are kept."""
    return f"scalars/{context.plan.keys[stage_id]}.json"


def raster_name(context: RunContext, raster: str) -> str:
    """Where a raster that a later phase reads is kept."""
    return f"rasters/{context.plan.keys[raster]}.tif"


def vector_name(context: RunContext, vector: str) -> str:
    """Where a vector that a later phase takes as a value is kept."""
    return f"vectors/{context.plan.keys[vector]}.json"


def manifest_name(context: RunContext, phase: int, start: int, stop: int) -> str:
    """Where the tile records of a range of chunks are kept."""
    return f"manifests/{context.plan.run}/{phase}-{start}-{stop}.json"


def stage_manifest_name(context: RunContext, stage_id: str) -> str:
    """Where the cost of a stage's one call is kept."""
    return f"manifests/{context.plan.run}/{stage_id}.json"


_KEPT = ("rasters", "scalars", "vectors")


def blocks_there(context: RunContext, name: str) -> set[BlockIndex]:
    """The blocks (row, col) of a raster or a vector that are kept and have no hole."""
    folder = "features" if isinstance(context.types[name], VectorType) else "blocks"
    return {_index(each) for each in context.store.names(f"{folder}/{context.plan.keys[name]}")}


def blocks_missing(context: RunContext, name: str) -> tuple[BlockIndex, ...]:
    """The blocks (row, col) of a raster or a vector that are not, row-major."""
    there = blocks_there(context, name)
    return tuple(index for index in blocks_of(context.sizes[name]) if index not in there)


def is_blocked(context: RunContext, number: int) -> bool:
    """Whether a phase cannot begin: what it reads of earlier ones has holes, or was not made."""
    if not number:
        return False
    phase = context.phases[number]
    kept = {name for folder in _KEPT for name in context.store.names(folder)}
    sources = [name for name in phase.sources if not _is_input(name)]
    members = (*phase.stages, *phase.reduces)
    values = [each for stage in members for each in stage.values.values() if not each.is_input]
    needed = [_grid_name(context, name) for name in sources]
    needed += [
        scalars_name(context, each.owner) for each in values if str(each) not in phase.sources
    ]
    return not kept.issuperset(needed)


def unmade_stages(context: RunContext) -> frozenset[str]:
    """Ids of the stages that made nothing, as what they read has holes."""
    kept = set(context.store.names("scalars"))
    found: set[str] = set()
    for number, phase in enumerate(context.phases):
        if is_blocked(context, number):
            found.update(stage.id for stage in (*phase.stages, *phase.reduces))
        ends = phase.stages if phase.kind == "call" else phase.reduces
        found.update(stage.id for stage in ends if scalars_name(context, stage.id) not in kept)
    return frozenset(found)


def _grid_name(context: RunContext, name: str) -> str:
    """Where what a later phase reads is kept, once it is whole."""
    is_vector = isinstance(context.types[name], VectorType)
    return vector_name(context, name) if is_vector else raster_name(context, name)


def _is_input(name: str) -> bool:
    reference = parse_binding(name)
    return reference is not None and reference.is_input


def _index(name: str) -> BlockIndex:
    row, col = name.rsplit("/", 2)[1:]
    return (int(row), int(col))


_PACKAGES = ("pesto-workflows", "numpy", "rasterio", "obstore", "pydantic")


def versions() -> dict[str, str]:
    """Package or tool -> version."""
    found = {"python": platform.python_version(), "gdal": gdal_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was not installed
            found[name] = "not installed"
    return found


def cpu_features() -> tuple[str, ...]:
    """The machine, and the SIMD extensions that numpy uses on it."""
    config = np.show_config(mode="dicts")
    simd = config.get("SIMD Extensions", {}) if isinstance(config, dict) else {}
    return (platform.machine(), *simd.get("baseline", []), *simd.get("found", []))
