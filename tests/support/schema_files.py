"""The schema files of the project, as JSON."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

SCHEMAS = Path(__file__).parents[2] / "schemas"


@cache
def schema_document(name: str) -> Mapping[str, JsonValue]:
    """Read one of the files: `pipeline`, `plan`, …."""
    document: dict[str, JsonValue] = json.loads((SCHEMAS / f"{name}.json").read_text())
    return document
