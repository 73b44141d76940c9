"""Two processes of one pipeline: one for a core, and a network that needs a GPU.

VESSELS_MODEL names the ONNX file of the network.
"""

import os
from functools import cache
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process

Scene = Annotated[np.ndarray, Raster(bands=["vv"], dtype="uint16")]
Sea = Annotated[np.ndarray, Raster(name="sea", bands=["vv"], dtype="float32", nodata=0)]
Score = Annotated[np.ndarray, Raster(name="score", bands=["vessel"], dtype="float32")]


@process(version="2.1.0", resources={"cpu": 1, "ram": 4})
def calibrate(scene: Scene, gain: float = 1e-4) -> Sea:
    """Convert digital numbers to backscatter."""
    return (scene * gain).astype("float32") ** 2


@cache
def network() -> object:
    """Load the network once, on the GPU if there is one."""
    import onnxruntime

    return onnxruntime.InferenceSession(os.environ["VESSELS_MODEL"])


@process(version="1.4.0", margin=32, setup=network, resources={"cpu": 4, "ram": 16, "gpu": 1})
def detect(sea: Annotated[np.ndarray, Raster(bands=["vv"], dtype="float32")]) -> Score:
    """Score each pixel as a vessel."""
    return np.asarray(network().run(["score"], {"pixels": sea[np.newaxis]})[0][0])  # type: ignore[attr-defined]  # a session
