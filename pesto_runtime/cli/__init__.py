"""The command line: `pesto`. Every command lives in a file of its own and imports when it runs."""

from __future__ import annotations

from pesto_runtime.cli.main import main

__all__ = ["main"]
