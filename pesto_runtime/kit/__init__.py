"""Check any PESTO service against its own description and the wire contract."""

from __future__ import annotations
