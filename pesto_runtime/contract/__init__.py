"""The contract: values that describe a process, a pipeline and a run, as JSON and frozen."""

from __future__ import annotations

from pesto_runtime.contract.call import (
    CallOptions,
    ImageCapabilities,
    ImageReference,
    InputCapabilities,
    Job,
    TileInfo,
    WireImage,
)
from pesto_runtime.contract.description import (
    Description,
    DescriptionDocument,
    Fold,
    Port,
    PortKind,
    Tileable,
    digest,
    merge_patch,
)
from pesto_runtime.contract.drift import Change, drift, is_breaking
from pesto_runtime.contract.faults import bad_fields
from pesto_runtime.contract.geometry import Margin, Scale, Window, parse_window
from pesto_runtime.contract.pipeline import Pipeline, Reference, Stage, literal, parse_binding
from pesto_runtime.contract.raster import (
    NUMERIC_DTYPES,
    Memory,
    RasterContract,
    TileLimits,
    Tolerance,
    nodata_to_json,
)
from pesto_runtime.contract.run import (
    BLOCK,
    PRODUCT_FORMAT,
    Chunk,
    ChunkResult,
    Hole,
    Phase,
    Plan,
    Scene,
    Service,
    StageCost,
)
from pesto_runtime.contract.vector import GEOMETRIES, VectorContract

__all__ = [
    "BLOCK",
    "GEOMETRIES",
    "NUMERIC_DTYPES",
    "PRODUCT_FORMAT",
    "CallOptions",
    "Change",
    "Chunk",
    "ChunkResult",
    "Description",
    "DescriptionDocument",
    "Fold",
    "Hole",
    "ImageCapabilities",
    "ImageReference",
    "InputCapabilities",
    "Job",
    "Margin",
    "Memory",
    "Phase",
    "Pipeline",
    "Plan",
    "Port",
    "PortKind",
    "RasterContract",
    "Reference",
    "Scale",
    "Scene",
    "Service",
    "Stage",
    "StageCost",
    "TileInfo",
    "TileLimits",
    "Tileable",
    "Tolerance",
    "VectorContract",
    "Window",
    "WireImage",
    "bad_fields",
    "digest",
    "drift",
    "is_breaking",
    "literal",
    "merge_patch",
    "nodata_to_json",
    "parse_binding",
    "parse_window",
]
