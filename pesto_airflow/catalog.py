"""Saved descriptions: what a DAG file reads instead of asking, and holds a service to later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Description, drift
from pesto_runtime.errors import BadField, InvalidContract, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue


@dataclass(frozen=True)
class Saved:
    """A `NAME@VERSION.json` that `pesto discover` or `PestoDiscoverOperator` wrote.

    Attributes:
        path: The file.
        url: Where the service was.
        said: The description as the service itself had it.
        description: With the file's overlay merged in.
        is_plain_pesto: Whether it took base64 alone, as a PESTO service does.
    """

    path: Path
    url: str
    said: Description
    description: Description
    is_plain_pesto: bool = False


def read_saved(path: str | Path) -> Saved:
    """Read a saved description; cheap enough for a DAG file, and asks nobody.

    Raises:
        InvalidInput: the file is missing, or is none.
        InvalidContract: the description in it contradicts itself.
    """
    file = Path(path)
    document = _document(file)
    url, overlay = document.get("url"), document.get("overlay")
    first = url[0] if isinstance(url, list) and url else url
    if not isinstance(first, str) or "description" not in document:
        raise InvalidInput(f"{file} is not a saved description: it needs `url` and `description`")
    said = Description.parse(document["description"])
    description = said.overlaid(overlay) if isinstance(overlay, dict) else said
    is_plain = first.startswith("http") and not document.get("transports")
    return Saved(file, first, said, description, is_plain)


def require_no_drift(saved: Saved, live: Description, *, where: str) -> tuple[str, ...]:
    """Hold a service to what was saved of it.

    Returns:
        Compatible changes, in words.

    Raises:
        InvalidContract: with every change that breaks what was built on the saved description.
    """
    if saved.said.digest == live.digest:
        return ()
    changes = drift(saved.said, live)
    breaking = [BadField(each.pointer, each.detail) for each in changes if each.breaking]
    if breaking:
        told = f"{where} is no longer what {saved.path.name} says (discover it again)"
        raise InvalidContract.of(told, breaking)
    return tuple(f"{each.pointer}: {each.detail}" for each in changes)


def _document(file: Path) -> Mapping[str, JsonValue]:
    try:
        document: JsonValue = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise InvalidInput(f"{file} does not exist; `pesto discover URL --save DIR`") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{file} is not a JSON object")
    return document
