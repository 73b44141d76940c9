"""What a worker is told before its first call."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.hrefs import Gate
from pesto_runtime.service.admission import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue


@dataclass(frozen=True)
class Setting:
    """All that a worker needs to serve calls.

    Attributes:
        target: What it loads.
        profiles: Of a PESTO project.
        gate: What hrefs pass.
        limits: Sizes and memory.
        path: Where Python looks for modules.
    """

    target: str
    profiles: tuple[str, ...]
    gate: Gate
    limits: Limits
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))

    def to_json(self) -> dict[str, JsonValue]:
        """Write it."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, object]) -> Setting:
        """Read what `to_json` wrote."""
        gate, limits = document["gate"], document["limits"]
        profiles, path = document["profiles"], document["path"]
        if not (isinstance(gate, dict) and isinstance(limits, dict)):
            raise TypeError("a setting has a gate and limits")
        if not (isinstance(profiles, list) and isinstance(path, list)):
            raise TypeError("a setting has profiles and a path")
        return cls(
            str(document["target"]),
            tuple(profiles),
            Gate(gate["loopback"], tuple(gate["allow"])),
            Limits(**limits),
            tuple(path),
        )
