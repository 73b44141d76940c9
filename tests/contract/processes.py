"""Processes that show on the wire what a service did with a call."""

import subprocess
import time
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, TileInfo, process
from pesto_runtime.client.transport import HEADER, with_trace
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


@process(version="1")
def kin() -> Annotated[dict[str, str], Named("kin")]:
    """Tell which trace this work is part of, for its own calls and for what it starts."""
    child = subprocess.run(["/usr/bin/env"], capture_output=True, text=True, check=True)
    variables = dict(line.split("=", 1) for line in child.stdout.splitlines() if "=" in line)
    return {"call": with_trace({}).get(HEADER, ""), "child": variables.get("TRACEPARENT", "")}


def break_down() -> None:
    """Fail before the first call."""
    raise FileNotFoundError("model.onnx")


@process(version="1", setup=break_down)
def broken(number: float) -> Annotated[float, Named("number")]:
    """Never get this far."""
    return number
