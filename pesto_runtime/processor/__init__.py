"""Declare, load and run processes: decorated functions and PESTO projects."""

from __future__ import annotations

from pesto_runtime.contract import TileInfo
from pesto_runtime.processor.annotations import Named, Raster, Vector
from pesto_runtime.processor.authoring import FunctionContract, contract_of, process
from pesto_runtime.processor.blending import Blend
from pesto_runtime.processor.function import FunctionProcessor
from pesto_runtime.processor.loading import load_processor, target_of
from pesto_runtime.processor.output_checks import check_outputs
from pesto_runtime.processor.project import ProjectProcessor
from pesto_runtime.processor.protocol import OwnedInputs, Processor
from pesto_runtime.processor.values import decode_partial, encode_partial, encode_value, fold

__all__ = [
    "Blend",
    "FunctionContract",
    "FunctionProcessor",
    "Named",
    "OwnedInputs",
    "Processor",
    "ProjectProcessor",
    "Raster",
    "TileInfo",
    "Vector",
    "check_outputs",
    "contract_of",
    "decode_partial",
    "encode_partial",
    "encode_value",
    "fold",
    "load_processor",
    "process",
    "target_of",
]
