"""Calls in worker processes: one that dies, or never returns, costs only itself."""

from __future__ import annotations

from pesto_runtime.service.workers.pool import WorkerPool

__all__ = ["WorkerPool"]
