"""A processor behind HTTP: the PESTO protocol, problems instead of tracebacks, a bounded queue."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.service.app import create_app
    from pesto_runtime.service.jobs import JobOptions
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.server import serve
    from pesto_runtime.service.threads import ThreadRunner
    from pesto_runtime.service.workers import Workers

_HOMES = {
    "ThreadRunner": "threads",
    "JobOptions": "jobs.options",
    "Limits": "limits",
    "Workers": "workers",
    "create_app": "app",
    "serve": "server",
}

__all__ = ["JobOptions", "Limits", "ThreadRunner", "Workers", "create_app", "serve"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
