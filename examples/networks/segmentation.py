"""A network in an ONNX file as a process: any scene, tiles, services, engines.

SEGMENTATION_MODEL names the file; `make_segmentation_model.py` writes one.
"""

import os
from functools import cache
from typing import Annotated

import numpy as np
import onnxruntime

from pesto_runtime import Blend, Raster, process

Scene = Annotated[np.ndarray, Raster(bands=["red", "nir"], dtype="uint16")]
Score = Annotated[np.ndarray, Raster(name="score", bands=["score"], dtype="float32")]


@cache
def network() -> onnxruntime.InferenceSession:
    """Load the network once; one thread per call, because a run has its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(os.environ["SEGMENTATION_MODEL"], options)


def scored(scene: np.ndarray) -> np.ndarray:
    """Run the network on reflectances (band, row, col)."""
    pixels = scene[np.newaxis].astype("float32") / 10_000
    return np.asarray(network().run(["score"], {"pixels": pixels})[0][0])


@process(version="1.0.0", margin=24, align=8, fill="reflect", batched=True, setup=network)
def segmentation(scene: Scene) -> Score:
    """Score pixels by a network that takes any multiple of 8."""
    return scored(scene)


Window = Annotated[
    np.ndarray, Raster(bands=["red", "nir"], dtype="uint16", tile={"fixed": 256})
]  # fmt: skip


@process(version="1.0.0", margin=24, align=8, fill="reflect", batched=True, setup=network)
def segmentation_256(scene: Window) -> Score:
    """Score pixels by a network that was exported for 256 x 256 pixels."""
    return scored(scene)


@process(version="1.0.0", blend=Blend(size=256, overlap=64), setup=network)
def segmentation_blended(scene: Scene) -> Score:
    """Score pixels by windows of 256 x 256 pixels, blended where they overlap."""
    return scored(scene)
