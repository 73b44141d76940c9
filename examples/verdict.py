"""Verdict on a scene: a process without an image, fed by another's number."""

from typing import Annotated, Literal

from pydantic import Field

from pesto_runtime import Named, process

Fraction = Annotated[float, Field(ge=0, le=1)]


@process(version="1.0.0")
def verdict(
    fraction: Annotated[Fraction, "cloudy part of the valid pixels, 0 to 1"],
    limit: Annotated[Fraction, "cloud cover above which a scene is not worth processing"] = 0.3,
) -> Annotated[Literal["usable", "cloudy"], Named("verdict")]:
    """Say whether a scene is usable or too cloudy."""
    return "cloudy" if fraction > limit else "usable"
