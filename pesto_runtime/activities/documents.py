"""JSON files that people write: pipelines, catalogs, definitions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue


def read_document(path: Path) -> JsonValue:
    """Read a JSON file.

    Raises:
        InvalidInput: it is not there, or not JSON; names it.
    """
    try:
        document: JsonValue = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from error
    return document
