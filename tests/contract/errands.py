"""Processes that leave a trace of each run, for services that are killed."""

import os
import time
from pathlib import Path
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, log, process, progress
from pesto_runtime.processor import Named


def append(path: str, line: str) -> None:
    """Add a line, whole even where several do so at once."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


@process(version="1")
def errand(
    path: str, name: str, seconds: float = 0.0, gate: str = ""
) -> Annotated[str, Named("name")]:
    """Tell a file when it begins and ends; in between, wait for a time or for a file."""
    append(path, f"begin {name}")
    time.sleep(seconds)
    while gate and not Path(gate).exists():
        time.sleep(0.01)
    append(path, f"end {name}")
    return name


@process(version="1")
def steps(path: str) -> Annotated[int, Named("count")]:
    """Go on a step each time that a file appears."""
    for number in range(1, 5):
        while not Path(f"{path}{number}").exists():
            time.sleep(0.01)
        log(f"step {number}")
        progress(number, 5)
    return 4


@process(version="1")
def fails(why: str) -> Annotated[str, Named("never")]:
    """Raise."""
    raise RuntimeError(why)


@process(version="1")
def same(
    image: Annotated[np.ndarray, Raster(bands=["red", "nir"])],
) -> Annotated[np.ndarray, Raster(name="image", bands=["red", "nir"], nodata=7)]:
    """Give the image back."""
    return image
