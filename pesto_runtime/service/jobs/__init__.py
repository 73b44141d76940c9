"""Jobs: calls that are accepted, kept, and answered for, whatever happens to who asked."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.service.jobs.api import JobEndpoints
    from pesto_runtime.service.jobs.desk import JobManager
    from pesto_runtime.service.jobs.options import JobOptions

_HOMES = {"JobManager": "desk", "JobEndpoints": "api", "JobOptions": "options"}

__all__ = ["JobEndpoints", "JobManager", "JobOptions"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
