"""The embedded engine."""

from __future__ import annotations

from pesto_runtime.local.engine import LocalEngine, sizing_of

engine = LocalEngine()

__all__ = ["LocalEngine", "engine", "sizing_of"]
