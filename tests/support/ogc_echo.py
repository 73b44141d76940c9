"""A process that returns its inputs: text, list, image, mixed, box; and one that pauses."""

from __future__ import annotations

import time
from typing import Annotated, Any, NotRequired, TypedDict

import numpy as np

import pesto_runtime
from pesto_runtime import Raster

Mixed = str | dict[str, Any] | None


class Box(TypedDict):
    """A box, and the system of its coordinates."""

    bbox: list[float]
    crs: NotRequired[str]


class Echoed(TypedDict):
    """The outputs."""

    stringInput: str
    arrayInput: list[int]
    imageInput: Annotated[np.ndarray, Raster()]
    mixedInput: Mixed
    bboxInput: Box | None


@pesto_runtime.process(version="1.0.0")
def echo(
    stringInput: str,  # noqa: N803  # names that the tests of OGC look for
    arrayInput: list[int] = [],  # noqa: B006, N803  # never changed
    imageInput: np.ndarray | None = None,  # noqa: N803
    mixedInput: Mixed = None,  # noqa: N803
    bboxInput: Box | None = None,  # noqa: N803
    pause: float = 0.0,
) -> Echoed:
    """Return the inputs, after a pause in seconds."""
    time.sleep(pause)
    return {
        "stringInput": stringInput, "arrayInput": arrayInput,
        "imageInput": np.zeros((1, 1, 1), "uint8") if imageInput is None else imageInput,
        "mixedInput": mixedInput, "bboxInput": bboxInput,
    }  # fmt: skip


@pesto_runtime.process(version="1.0.0")
def broken(text: str = "") -> str:
    """Fail."""
    raise ValueError(text or "as asked")
