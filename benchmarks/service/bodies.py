"""Requests that the contestants answer: a number, and 3 MiB of pixels in every transport."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from rasterio.io import MemoryFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

JSON, NPY, TIFF = "application/json", "application/x-npy", "image/tiff"
_SHAPE = (4, 627, 627)
"""band, row, col of uint16: 3.0 MiB; four bands, which PESTO 1.7.2 answers as GeoTIFF."""


@dataclass(frozen=True)
class Body:
    """One request."""

    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = "/process"
    method: str = "POST"


def pixels(shape: tuple[int, int, int] = _SHAPE) -> np.ndarray:
    """An image (band, row, col) of uint16 that compresses about as a scene does."""
    rows, cols = np.mgrid[: shape[1], : shape[2]]
    noise = np.random.default_rng(4).integers(0, 64, shape)
    image: np.ndarray = (rows * 3 + cols * 2 + noise).astype(np.uint16)
    return image


def tiny() -> Body:
    """A number."""
    return Body(b'{"number": 1.5}', {"Content-Type": JSON})


def describe() -> Body:
    """The question for the description."""
    return Body(b"", method="GET", path="/describe")


def raw(image: np.ndarray) -> Body:
    """Bare pixels in and out."""
    return Body(npy(image), {"Content-Type": NPY, "Accept": NPY})


def form(image: np.ndarray, path: str = "/process") -> Body:
    """A form with one part of bare pixels; bare pixels out."""
    head = 'Content-Disposition: form-data; name="image"; filename="a.npy"'
    content = b"\r\n".join(
        (b"--frontier", head.encode(), f"Content-Type: {NPY}".encode(), b"", npy(image),
         b"--frontier--", b"")
    )  # fmt: skip
    headers = {"Content-Type": "multipart/form-data; boundary=frontier", "Accept": NPY}
    return Body(content, headers, path)


def in_base64(image: np.ndarray) -> Body:
    """A GeoTIFF in JSON, in and out: all that PESTO 1.7.2 knows."""
    text = base64.b64encode(tiff(image)).decode()
    return Body(json.dumps({"image": text}).encode(), {"Content-Type": JSON})


def by_reference(image: np.ndarray, folder: Path) -> Body:
    """The href of a file; a GeoTIFF in JSON out."""
    path = folder / "scene.tif"
    path.write_bytes(tiff(image))
    return Body(json.dumps({"image": path.as_uri()}).encode(), {"Content-Type": JSON})


def npy(image: np.ndarray) -> bytes:
    """An array as a .npy file."""
    file = io.BytesIO()
    np.save(file, image)
    return file.getvalue()


def tiff(image: np.ndarray) -> bytes:
    """An array as a GeoTIFF without compression."""
    count, height, width = image.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=width, height=height, count=count, dtype=image.dtype.name
        ) as dataset:
            dataset.write(image)
        return bytes(memory.getbuffer())


def answered(content: bytes, media_type: str) -> np.ndarray:
    """The image of an answer; the control that every contestant did the work."""
    if media_type == NPY:
        image: np.ndarray = np.load(io.BytesIO(content))
        return image
    data = base64.b64decode(json.loads(content)["image"])
    with rasterio.open(io.BytesIO(data)) as dataset:
        found: np.ndarray = dataset.read()
        return found
