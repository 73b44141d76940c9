"""Two processes whose inputs have limits, and that count their calls in a file."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pesto_runtime import Raster, process

Grey = Raster(bands=["grey"], dtype="uint8", nodata=255)
Same = Raster(name="image", bands=["grey"], dtype="uint8", nodata=255)


@process(version="1", margin=0)
def limited(  # noqa: PLR0913, PLR0917  # an input of each kind
    image: Annotated[np.ndarray, Grey],
    log: str,
    threshold: Annotated[float, Field(ge=0, le=1)],
    radius: Literal[1, 2, 3, 4],
    mode: Annotated[str, Field(pattern="^[0-9]+$")],
    weights: list[Annotated[float, Field(ge=0)]] | None = None,
    options: dict[str, float] | None = None,
    repeat: Annotated[int, Field(ge=1)] = 1,
    label: str | None = None,
) -> Annotated[np.ndarray, Same]:
    """Give the image back, and write down the values."""
    with Path(log).open("a") as file:
        file.write(f"{threshold} {radius} {mode} {weights} {options} {repeat}\n")
    return image.copy()


@process(version="1", margin=0)
def narrower(
    image: Annotated[np.ndarray, Grey], log: str, threshold: Annotated[float, Field(ge=0.5, le=2)]
) -> Annotated[np.ndarray, Same]:
    """Give the image back."""
    with Path(log).open("a") as file:
        file.write(f"{threshold}\n")
    return image.copy()
