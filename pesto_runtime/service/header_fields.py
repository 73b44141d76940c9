"""Read the header fields that are lists: items, parameters, quoted texts and weights.

RFC 9110 sections 5.3 (fields on several lines), 5.6 (lists, quoted strings) and 12.5.1 (`Accept`);
RFC 7240 (`Prefer`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LISTS = frozenset(
    {"accept", "accept-encoding", "content-encoding", "forwarded", "if-none-match", "prefer", "via",
     "x-forwarded-for"}
)  # fmt: skip
"""Fields that are here read as lists: their lines are one text, joined by commas."""
PREFIX_KEY = "pesto.prefix"
"""Where the scope of a request has the path that a trusted proxy has taken off."""

_ITEM = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
_PIECE = re.compile(r'(?:[^";]|"(?:[^"\\]|\\.)*"?)+')
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True)
class Item:
    """One item of a list.

    Attributes:
        name: Lower case: a media range, a preference, an encoding.
        value: Of a preference, as `5` of `wait=5`; empty without one.
        parameters: Lower-case name -> value.
    """

    name: str
    value: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """The parameter `q`, 0 to 1: 1 without one, 0 for one that is no weight."""
        text = self.parameters.get("q", "1")
        return float(text) if _WEIGHT.fullmatch(text) else 0.0


@lru_cache(maxsize=256)
def items(text: str) -> tuple[Item, ...]:
    """Parse a list.

    >>> [(each.name, each.value) for each in items('respond-async;x="a,b", wait=5')]
    [('respond-async', ''), ('wait', '5')]
    """
    found = []
    for each in _ITEM.findall(text):
        pairs = [_pair(piece) for piece in _PIECE.findall(each)]
        if pairs and pairs[0][0]:
            found.append(Item(*pairs[0], dict(pairs[1:])))
    return tuple(found)


def preferred(accept: str, offered: Iterable[str]) -> str | None:
    """Return the offered media type that a caller prefers; None if it accepts none of them.

    The most specific range states the weight of a type. Among equal weights, a type that is named
    comes before one that only a range includes; then the order of the ranges, and of the offer,
    decides.

    Args:
        accept: The field `Accept`.
        offered: Media types, lower case.
    """
    ranges = items(accept)
    ranked: list[tuple[float, bool, int, int, str]] = []
    for at, offer in enumerate(offered):
        whole = f"{offer.partition('/')[0]}/*"
        matches = [
            (specificity, place, each.weight)
            for place, each in enumerate(ranges)
            for specificity, name in enumerate(("*/*", whole, offer))
            if each.name == name
        ]
        if not matches:
            continue
        specificity = max(matches)[0]
        place, weight = next((p, w) for s, p, w in matches if s == specificity)
        if weight:
            ranked.append((-weight, specificity < 2, place, at, offer))
    return min(ranked)[-1] if ranked else None


def _pair(piece: str) -> tuple[str, str]:
    name, _, value = piece.partition("=")
    value = value.strip()
    if value.startswith('"'):
        value = re.sub(r"\\(.)", r"\1", value.removeprefix('"').removesuffix('"'))
    return name.strip().lower(), value
