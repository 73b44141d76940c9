"""The embedded engine."""

from __future__ import annotations

from pesto_runtime.local.engine import Observer, Options, run

__all__ = ["Observer", "Options", "run"]
