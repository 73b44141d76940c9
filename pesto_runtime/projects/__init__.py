"""PESTO projects: serve and test them, make them anew, build their images."""

from __future__ import annotations
