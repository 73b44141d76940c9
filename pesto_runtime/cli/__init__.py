"""The command line `pesto`; a command imports heavy modules only when it runs."""

from __future__ import annotations

from pesto_runtime.cli.main import main

__all__ = ["main"]
