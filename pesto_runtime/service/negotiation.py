"""What an `Accept` header asks for, among the media types that there are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pesto_runtime.client.multipart import FORM_TYPE
from pesto_runtime.service.payload import JSON_TYPE, NPY_TYPE, TIFF_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

PNG_TYPE = "image/png"
IMAGE_TYPES = {each: each for each in (TIFF_TYPE, NPY_TYPE, PNG_TYPE)}
_ANSWERS = {
    **IMAGE_TYPES, JSON_TYPE: JSON_TYPE, FORM_TYPE: FORM_TYPE,
    "image/*": TIFF_TYPE, "application/*": JSON_TYPE, "*/*": JSON_TYPE,
}  # fmt: skip


@lru_cache(maxsize=64)
def answer_type(accept: str) -> str:
    """The media type of an answer to this `Accept`; JSON where it names none that there is."""
    return preferred(accept) or JSON_TYPE


def preferred(accept: str, among: Mapping[str, str] = _ANSWERS) -> str | None:
    """The first of the media types with the highest weight that can be answered."""
    weighted = []
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        weighted.append((name, _number(weight)))
    possible = [(weight, among[name]) for name, weight in weighted if name in among and weight]
    return max(possible, key=lambda each: each[0])[1] if possible else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
