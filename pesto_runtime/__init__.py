"""PESTO services, their contract, and pipelines over whole scenes.

Public names load on first use (PEP 562), so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.client import AsyncClient, Client
    from pesto_runtime.contract import Description, Margin, Pipeline, Window
    from pesto_runtime.errors import PestoError
    from pesto_runtime.flows import flow
    from pesto_runtime.processor import Named, Raster, TileInfo, Vector, process
    from pesto_runtime.processor.progress import log, progress


_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "Description": "contract",
    "Margin": "contract",
    "Named": "processor",
    "PestoError": "errors",
    "Pipeline": "contract",
    "Raster": "processor",
    "TileInfo": "processor",
    "Vector": "processor",
    "Window": "contract",
    "flow": "flows",
    "log": "processor.progress",
    "process": "processor",
    "progress": "processor.progress",
}

__all__ = [
    "AsyncClient",
    "Client",
    "Description",
    "Margin",
    "Named",
    "PestoError",
    "Pipeline",
    "Raster",
    "TileInfo",
    "Vector",
    "Window",
    "flow",
    "log",
    "process",
    "progress",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
