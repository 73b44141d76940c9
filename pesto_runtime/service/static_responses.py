"""What a service says of itself; its bytes are made once, only the links know the request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pesto_runtime

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.service.runs import ProcessFacts

PREFIX = "/api/v1"

# relation, media type and method of each link, word for word as PESTO's clients know them
_LINKS = {
    "self": ("describe", "Access to describe resource", "application/json", "GET"),
    "execution": (
        "process",
        "Processing resource",
        "Complex type, see output in describe content for more information",
        "POST",
    ),
    "config": ("config", "Processing configuration", "application/json", "GET"),
    "version": ("version", "Processing version", "application/json", "GET"),
    "health": ("health", "Processing health", "text/plain", "GET"),
}


@dataclass(frozen=True)
class StaticResponses:
    """The documents of one service.

    Attributes:
        description: JSON of the description without its links and its closing brace.
        etag: Of the description.
        version: JSON of the version document.
    """

    description: bytes
    etag: str
    version: bytes

    @classmethod
    def of(cls, facts: ProcessFacts) -> StaticResponses:
        """Write the documents of a facts."""
        document = facts.description.to_json()
        document.pop("_links", None)
        version: dict[str, JsonValue] = {
            "version": facts.description.version,
            "__packaging": f"packaged with pesto-workflows {pesto_runtime.__version__}",
            **facts.version_document,
        }
        return cls(
            description=json.dumps(document, ensure_ascii=False).encode()[:-1],
            etag=f'"{facts.description.digest}"',
            version=json.dumps(version).encode(),
        )

    @lru_cache(maxsize=16)  # noqa: B019  # there is one per service  # addresses of it, by its callers
    def describe(self, base_url: str) -> bytes:
        """The description with links below the address that the caller used."""
        links = {
            name: {"relation": relation, "href": f"{base_url.rstrip('/')}{PREFIX}/{path}",
                   "type": media_type, "method": method}
            for name, (path, relation, media_type, method) in _LINKS.items()
        }  # fmt: skip
        return self.description + b', "_links": ' + json.dumps(links).encode() + b"}"

    def is_known(self, if_none_match: str) -> bool:
        """Whether the caller already has the description."""
        tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        return "*" in tags or self.etag in tags
