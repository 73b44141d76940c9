"""The verbs of a run, the same for every engine: discover, check, plan, process, mosaic, reduce.

Each takes and gives small values, never pixels, and may be called twice: the second time writes
the same bytes at the same place, or nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.activities.callers import close_callers
    from pesto_runtime.activities.checking import (
        PhaseShape,
        PipelineInputs,
        check_pipeline,
        load_pipeline,
        shape,
    )
    from pesto_runtime.activities.chunk import process
    from pesto_runtime.activities.context import (
        RunContext,
        begin_run,
        chunks_of,
        forget_run,
        load_context,
        save_plan,
    )
    from pesto_runtime.activities.discovery import Discovered, discover, find
    from pesto_runtime.activities.documents import read_document
    from pesto_runtime.activities.lanes import tiles_at_once
    from pesto_runtime.activities.merging import merge
    from pesto_runtime.activities.outcome import call, close_phase, materialise, mosaic, reduce
    from pesto_runtime.activities.planning import (
        PhaseEstimate,
        Planned,
        count_tiles,
        plan,
        read_inputs,
    )
    from pesto_runtime.activities.publishing import RunRecord, finished_result, publish
    from pesto_runtime.activities.records import (
        TileObserver,
        TileRecord,
        manifests_of,
        tile_records,
    )
    from pesto_runtime.activities.services import Services, resolve_services
    from pesto_runtime.activities.single import call_once
    from pesto_runtime.activities.standing import is_blocked
    from pesto_runtime.activities.workspace import Workspace, locked_workspace, run_store

_HOMES = {
    "Discovered": "discovery",
    "PipelineInputs": "checking",
    "PhaseEstimate": "planning",
    "PhaseShape": "checking",
    "Planned": "planning",
    "RunContext": "context",
    "RunRecord": "publishing",
    "Services": "services",
    "TileRecord": "records",
    "TileObserver": "records",
    "Workspace": "workspace",
    "begin_run": "context",
    "call": "outcome",
    "call_once": "single",
    "check_pipeline": "checking",
    "chunks_of": "context",
    "close_callers": "callers",
    "close_phase": "outcome",
    "count_tiles": "planning",
    "discover": "discovery",
    "find": "discovery",
    "finished_result": "publishing",
    "forget_run": "context",
    "is_blocked": "standing",
    "load_context": "context",
    "load_pipeline": "checking",
    "locked_workspace": "workspace",
    "manifests_of": "records",
    "materialise": "outcome",
    "merge": "merging",
    "mosaic": "outcome",
    "plan": "planning",
    "process": "chunk",
    "publish": "publishing",
    "read_document": "documents",
    "read_inputs": "planning",
    "reduce": "outcome",
    "resolve_services": "services",
    "run_store": "workspace",
    "save_plan": "context",
    "shape": "checking",
    "tile_records": "records",
    "tiles_at_once": "lanes",
}

__all__ = [
    "Discovered",
    "PhaseEstimate",
    "PhaseShape",
    "PipelineInputs",
    "Planned",
    "RunContext",
    "RunRecord",
    "Services",
    "TileObserver",
    "TileRecord",
    "Workspace",
    "begin_run",
    "call",
    "call_once",
    "check_pipeline",
    "chunks_of",
    "close_callers",
    "close_phase",
    "count_tiles",
    "discover",
    "find",
    "finished_result",
    "forget_run",
    "is_blocked",
    "load_context",
    "load_pipeline",
    "locked_workspace",
    "manifests_of",
    "materialise",
    "merge",
    "mosaic",
    "plan",
    "process",
    "publish",
    "read_document",
    "read_inputs",
    "reduce",
    "resolve_services",
    "run_store",
    "save_plan",
    "shape",
    "tile_records",
    "tiles_at_once",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
