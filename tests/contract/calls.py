"""Images and requests that the tests of a service are made of."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image

if TYPE_CHECKING:
    import httpx

    from tests.contract.web import Web

TIFF, NPY, PROBLEM = "image/tiff", "application/x-npy", "application/problem+json"
FORM = "multipart/form-data"
PROCESSES = "tests/contract/processes.py:"
COVER = "examples/cloud_cover.py:cloud_cover"
PROJECT = "tests/data/pesto_project"
UTM = (30.0, 0.0, 500.0, 0.0, -30.0, 900.0)


def image_of(dtype: str = "uint16", *, size: tuple[int, int] = (5, 6)) -> Image:
    """A georeferenced image whose bands are in another order than the processes want."""
    count = 3 * size[0] * size[1]
    pixels = (np.arange(count) % 100).reshape(3, *size).astype(dtype)
    return Image(
        pixels, crs="EPSG:32616", transform=UTM, nodata=7, bands=("nir", "green", "red"),
        tags={"SENSOR": "OLI"},
    )  # fmt: skip


def picked(image: Image) -> np.ndarray:
    """The bands that the processes want, in their order."""
    return np.ascontiguousarray(image.pixels[[2, 0]])


def npy(pixels: np.ndarray) -> bytes:
    """An array as .npy."""
    return encode_image(Image(pixels), NPY)


def text(image: Image) -> str:
    """An image as base64."""
    return base64.b64encode(encode_image(image, TIFF)).decode()


def post(web: Web, document: object, **headers: str) -> httpx.Response:
    """Call the process with a JSON body."""
    return web("POST", "/process", json=document, headers=headers)


def post_raw(
    web: Web, body: bytes, media_type: str, accept: str = "*/*", **query: str
) -> httpx.Response:
    """Call the process with an image as the body."""
    headers = {"Content-Type": media_type, "Accept": accept}
    return web("POST", "/process", content=body, headers=headers, params=query)


def pointers(answer: httpx.Response) -> list[str]:
    """Pointers of a problem's fields."""
    return sorted(each["pointer"] for each in answer.json()["errors"])


def tile_of(image: Image) -> str:
    """The option that says where bare pixels lie."""
    _, height, width = image.pixels.shape
    whole = [0, 0, width, height]
    tile: dict[str, object] = {"read": whole, "write": whole, "scene_size": [width, height]}
    tile |= {
        "crs": image.crs,
        "transform": image.transform,
        "nodata": image.nodata,
        "tags": dict(image.tags),
    }
    return json.dumps({"tile": tile})
