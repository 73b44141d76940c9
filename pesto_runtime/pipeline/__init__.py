"""Check pipelines from descriptions, group stages into phases, and make plans. No I/O."""

from __future__ import annotations

from pesto_runtime.pipeline.cache_keys import cache_place, scene_origin
from pesto_runtime.pipeline.check import Checked, KnownFacts, check
from pesto_runtime.pipeline.grids import places_of_images
from pesto_runtime.pipeline.parameters import (
    FedPort,
    completed,
    fed_ports,
    input_defaults,
    input_faults,
    input_schema,
    type_schema,
    way_to_write,
)
from pesto_runtime.pipeline.phases import (
    PhaseStages,
    grids_of,
    phases_of,
    read_later,
    step_of,
    steps_of,
)
from pesto_runtime.pipeline.plan import make_plan, phase_chain, run_key, value_keys
from pesto_runtime.pipeline.scene_grids import base_grids, place_of, raster_sizes
from pesto_runtime.pipeline.sizing import MOST_TASKS, PhaseCost, Sizing, phase_cost, raster_bytes
from pesto_runtime.pipeline.types import (
    BoundStage,
    GridType,
    JsonType,
    RasterType,
    ValueType,
    VectorType,
    image_scale,
    made_type,
    taken_type,
)

__all__ = [
    "MOST_TASKS",
    "BoundStage",
    "Checked",
    "FedPort",
    "GridType",
    "JsonType",
    "KnownFacts",
    "PhaseCost",
    "PhaseStages",
    "RasterType",
    "Sizing",
    "ValueType",
    "VectorType",
    "base_grids",
    "cache_place",
    "check",
    "completed",
    "fed_ports",
    "grids_of",
    "image_scale",
    "input_defaults",
    "input_faults",
    "input_schema",
    "made_type",
    "make_plan",
    "phase_chain",
    "phase_cost",
    "phases_of",
    "place_of",
    "places_of_images",
    "raster_bytes",
    "raster_sizes",
    "read_later",
    "run_key",
    "scene_origin",
    "step_of",
    "steps_of",
    "taken_type",
    "type_schema",
    "value_keys",
    "way_to_write",
]
