"""What a run needs of its services, written down: a catalog of descriptions, one file each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.activities import Discovered


def write_catalog(found: Iterable[Discovered], folder: Path) -> None:
    """Save what runs each process, as `pesto discover` would; targets mean the same anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in found:
        said, described = each.said.to_json(), each.description.to_json()
        document: dict[str, JsonValue] = {
            "url": list(each.service.targets),
            "digest": each.said.digest,
            "transports": list(each.service.transports),
            "description": said,
        }
        if said != described:
            document["overlay"] = overlay_between(said, described)
        path = folder / f"{each.said.name}@{each.said.version}.json"
        path.write_text(json.dumps(document, indent=2) + "\n")


def overlay_between(said: JsonValue, described: JsonValue) -> JsonValue:
    """The JSON merge patch (RFC 7396) that makes one document the other.

    >>> overlay_between({"a": 1, "b": 2, "c": {"d": 3}}, {"a": 1, "c": {"d": 4}})
    {'b': None, 'c': {'d': 4}}
    """
    if not isinstance(said, dict) or not isinstance(described, dict):
        return described
    changed = {
        name: overlay_between(said.get(name), value)
        for name, value in described.items()
        if name not in said or said[name] != value
    }
    return {**{name: None for name in said if name not in described}, **changed}
