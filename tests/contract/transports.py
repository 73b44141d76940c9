"""Every way of sending an image to a service and of getting one back."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.client.multipart import media_type_of, read_parts
from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.codec import decode_image, encode_image
from pesto_runtime.raster.image import Image
from tests.contract.calls import FORM, NPY, TIFF, npy, post, post_raw, text, tile_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from tests.contract.web import Web

UTM = (30.0, 0.0, 500.0, 0.0, -30.0, 900.0)
PORT_NODATA = 7.0


def full_range(dtype: str, count: int) -> Image:
    """An image (band, row, col) with the extremes of its dtype, and what is not a number."""
    generator = np.random.default_rng(count)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        pixels = generator.normal(0, 1e6, (count, 11, 9)).astype(kind)
        pixels[0, 0, :4] = [np.nan, np.inf, -np.inf, np.finfo(kind).tiny]
    else:
        limits = np.iinfo(kind)
        pixels = generator.integers(limits.min, limits.max, (count, 11, 9), kind, endpoint=True)
        pixels[0, 0, :2] = [limits.min, limits.max]
    names = tuple(f"b{number}" for number in range(1, count + 1))
    return Image(pixels, "EPSG:32616", UTM, PORT_NODATA, names, tags={"SENSOR": "OLI"})


def require_same(found: Image, wanted: Image) -> None:
    """Fail unless two images agree in all that the wire carries."""
    assert found.pixels.dtype == wanted.pixels.dtype
    assert found.pixels.shape == wanted.pixels.shape
    assert found.pixels.tobytes() == wanted.pixels.tobytes()
    assert (found.crs, found.transform) == (wanted.crs, wanted.transform)
    assert (found.nodata, found.bands) == (wanted.nodata, wanted.bands)
    assert found.tags["SENSOR"] == wanted.tags["SENSOR"]


def post_form(web: Web, parts: list[tuple[str, object]], accept: str = "*/*") -> httpx.Response:
    """Call the process with a form; a part is (file name, content, media type)."""
    return web("POST", "/process", files=parts, headers={"Accept": accept})


def parts_of(answer: httpx.Response) -> dict[str, tuple[str, bytes]]:
    """The parts of an answer: name -> media type and content."""
    assert answer.status_code == 200, answer.text
    media_type = media_type_of(answer.headers["content-type"])
    return {
        each.name: (each.media_type, each.data) for each in read_parts(answer.content, media_type)
    }


def _by_href(web: Web, image: Image, folder: Path) -> httpx.Response:
    return post(web, {"image": file_href(_written(image, folder))}, Accept=TIFF)


def _by_window(web: Web, image: Image, folder: Path) -> httpx.Response:
    _, height, width = image.pixels.shape
    reference = {
        "href": file_href(_written(image, folder)), "window": [0, 0, width, height],
        "bands": list(range(1, len(image.pixels) + 1)),
    }  # fmt: skip
    return post(web, {"image": reference}, Accept=TIFF)


def _in_base64(web: Web, image: Image, _folder: Path) -> httpx.Response:
    return post(web, {"image": text(image)}, Accept=TIFF)


def _as_tiff(web: Web, image: Image, _folder: Path) -> httpx.Response:
    return post_raw(web, encode_image(image, TIFF), TIFF, TIFF)


def _as_npy(web: Web, image: Image, _folder: Path) -> httpx.Response:
    return post_raw(web, npy(image.pixels), NPY, TIFF, pesto=tile_of(image))


def _in_a_form(web: Web, image: Image, _folder: Path) -> httpx.Response:
    return post_form(web, [("image", ("a.tif", encode_image(image, TIFF), TIFF))], TIFF)


def _npy_in_a_form(web: Web, image: Image, _folder: Path) -> httpx.Response:
    tile = ("pesto", (None, tile_of(image), "application/json"))
    return post_form(web, [("image", ("a.npy", npy(image.pixels), NPY)), tile], TIFF)


def _reference_in_a_form(web: Web, image: Image, folder: Path) -> httpx.Response:
    return post_form(web, [("image", (None, file_href(_written(image, folder))))], TIFF)


WAYS_IN: dict[str, Callable[[Web, Image, Path], httpx.Response]] = {
    "href": _by_href,
    "window": _by_window,
    "base64": _in_base64,
    "tiff": _as_tiff,
    "npy": _as_npy,
    "form": _in_a_form,
    "npy in a form": _npy_in_a_form,
    "href in a form": _reference_in_a_form,
}


def _out_base64(web: Web, body: bytes, _folder: Path) -> Image:
    return decode_image(base64.b64decode(post_raw(web, body, TIFF).json()["image"]))


def _out_tiff(web: Web, body: bytes, _folder: Path) -> Image:
    return decode_image(post_raw(web, body, TIFF, TIFF).content)


def _out_href(web: Web, body: bytes, folder: Path) -> Image:
    path = folder / "out.tif"
    option = json.dumps({"out": {"image": file_href(path)}})
    assert post_raw(web, body, TIFF, pesto=option).json() == {"image": file_href(path)}
    return decode_image(path.read_bytes())


def _out_form(web: Web, body: bytes, _folder: Path) -> Image:
    ((media_type, data),) = parts_of(post_raw(web, body, TIFF, FORM)).values()
    assert media_type == TIFF
    return decode_image(data)


WAYS_OUT: dict[str, Callable[[Web, bytes, Path], Image]] = {
    "base64": _out_base64,
    "tiff": _out_tiff,
    "href": _out_href,
    "form": _out_form,
}


def _written(image: Image, folder: Path) -> Path:
    path = folder / "in.tif"
    path.write_bytes(encode_image(image, TIFF))
    return path
