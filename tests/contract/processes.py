"""Processes that show on the wire what a service did with a call."""

import time
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, TileInfo, process
from pesto_runtime.processor import Named

Two = Raster(bands=["red", "nir"])


@process(version="1")
def same(
    image: Annotated[np.ndarray, Two],
) -> Annotated[np.ndarray, Raster(name="image", bands=["red", "nir"], nodata=7)]:
    """Give the image back."""
    return image


@process(version="1")
def facts(
    image: Annotated[np.ndarray, Two],
    tile: TileInfo,
    note: str = "none",
    factors: list[float] | None = None,
) -> Annotated[dict[str, object], Named("facts")]:
    """Tell what arrived."""
    return {
        "dtype": image.dtype.name,
        "shape": list(image.shape),
        "pixels": image.real.astype(float).ravel().tolist(),
        "writeable": bool(image.flags.writeable),
        "crs": tile.crs,
        "transform": list(tile.transform or ()),
        "nodata": tile.nodata,
        "tag": tile.tags.get("SENSOR"),
        "note": note,
        "factors": factors,
    }


@process(version="1")
def nap(seconds: float) -> Annotated[float, Named("slept")]:
    """Hold a thread."""
    time.sleep(seconds)
    return seconds


@process(version="1")
def wrong(how: str) -> Annotated[float, Named("number")]:
    """Fail in the way that is asked for."""
    if how == "raise":
        raise KeyError("no such thing")
    return float(how)


def break_down() -> None:
    """Fail before the first call."""
    raise FileNotFoundError("model.onnx")


@process(version="1", setup=break_down)
def broken(number: float) -> Annotated[float, Named("number")]:
    """Never get this far."""
    return number
