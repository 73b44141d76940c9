"""The verbs of a run, the same for every engine: discover, check, plan, process, mosaic, reduce.

Each takes and gives small values, never pixels, and may be called twice: the second time writes
the same bytes at the same place, or nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.activities.callers import close_callers
    from pesto_runtime.activities.chunk import (
        TileRecord,
        Watch,
        manifests_of,
        process,
        tile_records,
    )
    from pesto_runtime.activities.context import RunContext, forget_run, load_context, save_plan
    from pesto_runtime.activities.discovery import Found, discover, find
    from pesto_runtime.activities.merging import merge
    from pesto_runtime.activities.outcome import call, materialise, mosaic, reduce
    from pesto_runtime.activities.planning import (
        Inputs,
        PhaseEstimate,
        Planned,
        check_pipeline,
        count_tiles,
        load_pipeline,
        plan,
        read_inputs,
    )
    from pesto_runtime.activities.publishing import RunRecord, finished_result, publish
    from pesto_runtime.activities.services import Services, resolve_services
    from pesto_runtime.activities.single import call_once

_HOMES = {
    "Found": "discovery",
    "Inputs": "planning",
    "PhaseEstimate": "planning",
    "Planned": "planning",
    "RunContext": "context",
    "RunRecord": "publishing",
    "Services": "services",
    "TileRecord": "chunk",
    "Watch": "chunk",
    "call": "outcome",
    "call_once": "single",
    "check_pipeline": "planning",
    "close_callers": "callers",
    "count_tiles": "planning",
    "discover": "discovery",
    "find": "discovery",
    "forget_run": "context",
    "finished_result": "publishing",
    "load_context": "context",
    "load_pipeline": "planning",
    "manifests_of": "chunk",
    "materialise": "outcome",
    "merge": "merging",
    "mosaic": "outcome",
    "plan": "planning",
    "process": "chunk",
    "publish": "publishing",
    "read_inputs": "planning",
    "reduce": "outcome",
    "resolve_services": "services",
    "save_plan": "context",
    "tile_records": "chunk",
}

__all__ = [
    "Found",
    "Inputs",
    "PhaseEstimate",
    "Planned",
    "RunContext",
    "RunRecord",
    "Services",
    "TileRecord",
    "Watch",
    "call",
    "call_once",
    "check_pipeline",
    "close_callers",
    "count_tiles",
    "discover",
    "find",
    "finished_result",
    "forget_run",
    "load_context",
    "load_pipeline",
    "manifests_of",
    "materialise",
    "merge",
    "mosaic",
    "plan",
    "process",
    "publish",
    "read_inputs",
    "reduce",
    "resolve_services",
    "save_plan",
    "tile_records",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
