"""Define the contract: frozen values with a JSON form for a process, a pipeline and a run."""

from __future__ import annotations

from pesto_runtime.contract.base import NUMERIC_DTYPES, BandValues, Fill, nodata_to_json
from pesto_runtime.contract.call import (
    CallOptions,
    ImageCapabilities,
    InputCapabilities,
    Job,
    TileInfo,
    WireImage,
    bad_fields,
)
from pesto_runtime.contract.canonical import digest, merge_patch
from pesto_runtime.contract.classification import RasterClass
from pesto_runtime.contract.compression import Compression
from pesto_runtime.contract.description import (
    Description,
    DescriptionDocument,
    Tileable,
)
from pesto_runtime.contract.geometry import Margin, Scale, Window, parse_window
from pesto_runtime.contract.pipeline import (
    Change,
    Pipeline,
    Reference,
    Stage,
    drift,
    is_breaking,
    literal,
    parse_binding,
)
from pesto_runtime.contract.process_ports import IMAGE_KINDS, Fold, Port, PortKind
from pesto_runtime.contract.raster import Memory, RasterContract, TileLimits, Tolerance
from pesto_runtime.contract.run import (
    BLOCK,
    PRODUCT_FORMAT,
    CachePlace,
    Chunk,
    ChunkResult,
    Grid,
    Hole,
    Phase,
    Plan,
    ProductForm,
    ReportForm,
    Scene,
    Service,
    StageCost,
    package_version,
)
from pesto_runtime.contract.selection import ImageReference, Selection
from pesto_runtime.contract.vector import GEOMETRIES, VectorContract

__all__ = [
    "BLOCK",
    "GEOMETRIES",
    "IMAGE_KINDS",
    "NUMERIC_DTYPES",
    "PRODUCT_FORMAT",
    "BandValues",
    "CachePlace",
    "CallOptions",
    "Change",
    "Chunk",
    "ChunkResult",
    "Compression",
    "Description",
    "DescriptionDocument",
    "Fill",
    "Fold",
    "Grid",
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
    "ProductForm",
    "RasterClass",
    "RasterContract",
    "Reference",
    "ReportForm",
    "Scale",
    "Scene",
    "Selection",
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
    "package_version",
    "parse_binding",
    "parse_window",
]
