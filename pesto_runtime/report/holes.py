"""The holes of a run, as its `holes.geojson` tells them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class HoleFacts:
    """A tile that could not be computed.

    Attributes:
        place: Its window: column, row, width, height.
        stage: That failed.
        error: What it said.
    """

    place: str
    stage: str
    error: str


def read_holes(folder: Path) -> list[HoleFacts]:
    """Read a run's holes; none where there is no such file, or not one of ours."""
    try:
        features = json.loads((folder / "holes.geojson").read_text())["features"]
        told = [feature["properties"] for feature in features]
        return [
            HoleFacts(
                ", ".join(str(number) for number in each.get("window") or ()),
                str(each.get("stage") or ""),
                str(each.get("error") or each.get("type") or ""),
            )
            for each in told
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
