"""The door to services: describe, health and process over HTTP, blocking or not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.client.asynchronous import AsyncClient
    from pesto_runtime.client.blocking import Client
    from pesto_runtime.client.describing import Described

_HOMES = {"AsyncClient": "asynchronous", "Client": "blocking", "Described": "describing"}

__all__ = ["AsyncClient", "Client", "Described"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
