"""Compare and merge JSON documents: canonical digest, merge patch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import rfc8785

from pesto_runtime.errors import InvalidContract

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue


def digest(document: Mapping[str, JsonValue]) -> str:
    """Return `sha256:…` of the canonical JSON (RFC 8785) of a description without `_links`.

    Raises:
        InvalidContract: a number is outside the range of canonical JSON.
    """
    # The service appends `_links` to the description; they are not part of the contract.
    hashed = {key: value for key, value in document.items() if key != "_links"}
    try:
        return "sha256:" + hashlib.sha256(rfc8785.dumps(hashed)).hexdigest()
    except rfc8785.CanonicalizationError as error:
        raise InvalidContract(f"the description has no canonical form: {error}") from error


def merge_patch(target: JsonValue, patch: JsonValue) -> JsonValue:
    """Apply a JSON merge patch (RFC 7396): objects merge, null removes, other values replace.

    >>> merge_patch({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}})
    {'b': {'c': 2, 'd': 3}}
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
