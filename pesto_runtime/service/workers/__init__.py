"""Calls in processes of their own: one that dies, or never returns, costs nothing but itself."""

from __future__ import annotations

from pesto_runtime.service.workers.pool import Workers

__all__ = ["Workers"]
