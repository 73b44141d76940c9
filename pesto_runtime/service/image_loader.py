"""Read the images of a request: from base64, bodies, references and URIs, within the limits.

PESTO's option `roi` is here too: it selects the window that is read. Other inputs are validated in
`input_reader`; formats are decoded in the package `raster`.
"""

from __future__ import annotations

import binascii
import io
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from pesto_runtime.contract import Description, ImageReference, Window, bad_fields
from pesto_runtime.contract.base import Value
from pesto_runtime.errors import (
    HrefRefused,
    InvalidInput,
    PestoError,
    RasterUnreadable,
    SceneChanged,
    shortened,
)
from pesto_runtime.hrefs import file_href, looks_like_href, path_of
from pesto_runtime.raster.codec import decode_image
from pesto_runtime.raster.identity import local_path, unchanged
from pesto_runtime.raster.image import Bounds, Image
from pesto_runtime.raster.opening import Access
from pesto_runtime.raster.picking import taken_for
from pesto_runtime.raster.read import read_for
from pesto_runtime.raster.side_files import side_files
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.long_texts import LongText
from pesto_runtime.service.request import RawImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from mmap import mmap
    from pathlib import Path

    import numpy as np
    from pydantic import JsonValue

    from pesto_runtime.contract import RasterContract
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.service.request import InputValue

    PickWindow = Callable[[int, int], Window]


_SLICE_CHARS = 1 << 20  # a multiple of 4, so that each slice is valid base64
_FORMS = "an image is base64, a URI, or an object {href, window, bands, identity}"


@dataclass(frozen=True)
class ImageLoader:
    """Reads images for one service.

    Attributes:
        gate: Access rules that an href must pass.
        bounds: Limits of one image.
        fetched_bytes: Largest file of a web server that sends no parts of it.
    """

    gate: Gate
    bounds: Bounds
    fetched_bytes: int = Limits.body_bytes

    def load(
        self,
        value: InputValue,
        contract: RasterContract | None,
        *,
        pick_window: PickWindow | None = None,
    ) -> Image:
        """Read an image, and select the bands that the port names.

        Args:
            value: base64, a URI, a reference object, or a raw body.
            contract: Of the port; None accepts any image.
            pick_window: Called with width and height; returns the window to read. None reads all.

        Raises:
            HrefRefused: the gate does not admit the href.
            RasterUnreadable: not an image, or a broken one.
            TooLarge: over the bounds.
            InvalidInput: not a form of image, or an image that the port does not accept.
            SceneChanged: the raster does not have the identity of the reference.
        """
        reference = reference_of(value)
        if reference is not None:
            image = self._referred(reference, contract, pick_window)
            pick_window = None
        else:
            media_type = value.media_type if isinstance(value, RawImage) else None
            image = self._decoded(sent_bytes(value), contract, media_type=media_type)
        if pick_window is not None:
            image = image.cropped(pick_window(image.pixels.shape[2], image.pixels.shape[1]))
        _require_fit(image, contract)
        return image

    def _decoded(
        self, data: bytes | mmap, contract: RasterContract | None, *, media_type: str | None = None
    ) -> Image:
        image = decode_image(data, media_type=media_type, bounds=self.bounds)
        return taken_for(image, contract)

    def _referred(
        self,
        reference: ImageReference,
        contract: RasterContract | None,
        pick_window: PickWindow | None,
    ) -> Image:
        href = self.gate.admit_read(reference.href)
        admitted, beside = reference.model_copy(update={"href": href}), self._beside(reference.href)
        read = partial(read_for, admitted, contract, pick_window=pick_window, bounds=self.bounds)
        if urlsplit(href).scheme in ("http", "https"):
            return self._fetched(href, reference.identity, read)
        with unchanged(href, reference.identity, beside):
            return read(access=Access(beside))

    def _fetched(self, href: str, identity: str | None, read: Callable[..., Image]) -> Image:
        """Read an image of a web server: all parts of it have the version of the first one."""
        from pesto_runtime.service.fetching import WebFile  # loads httpx, which most calls need not

        file = WebFile(href, self.gate, most_bytes=self.fetched_bytes)
        if identity and file.identity != identity:
            raise SceneChanged(
                f"{shortened(href)} is not the scene that was planned: its identity was "
                f"{identity}, it is now {file.identity or 'without identity'}"
            )
        try:
            return read(access=Access({}, file.open))
        except PestoError as error:
            raise file.failure or error from None

    def _beside(self, href: str) -> dict[str, Path]:
        """Return the files beside a raster that state facts of it, and may be read here."""
        path, admitted = local_path(href), {}
        for name, each in side_files(path).items() if path else ():
            with suppress(HrefRefused):
                admitted[name] = path_of(self.gate.admit_read(file_href(each)))
        return admitted


class Allowance:
    """Bounds of the next image of a request: its own, and the rest of those of the request."""

    def __init__(self, image: Bounds, request: Bounds | None = None) -> None:
        """Start with a request without images."""
        self._image, self._request = image, request or Bounds()
        self._bytes = self._pixels = 0

    @property
    def bounds(self) -> Bounds:
        """Bounds of the next image."""
        return Bounds(
            _least(self._image.byte_count, self._request.byte_count, self._bytes),
            _least(self._image.pixel_count, self._request.pixel_count, self._pixels),
            self._image.band_count,
        )

    @property
    def used(self) -> str:
        """Sizes of the images so far, to add to an error message; empty without images."""
        used = f"{self._pixels} pixels, {self._bytes} bytes decoded"
        return f"; images before it in this request have {used}" if self._bytes else ""

    def add(self, image: Image) -> None:
        """Count an image that was read."""
        _, height, width = image.pixels.shape
        self._bytes += image.pixels.nbytes
        self._pixels += width * height


class Band(Value):
    """Lines or columns of a region: `number` of them from `first`, and `margin` on both sides."""

    first: int = Field(ge=0)
    number: int = Field(ge=1)
    margin: int = Field(default=0, ge=0)

    def clipped(self, size: int) -> tuple[int, int]:
        """Return the first and the past-last index, margin included, inside an image."""
        return max(0, self.first - self.margin), min(size, self.first + self.number + self.margin)


class RegionOfInterest(Value):
    """PESTO's option `roi`: images that are read by a window, and outputs that lose its margin."""

    target_in: tuple[str, ...] = ()
    target_out: tuple[str, ...] = ()
    lines: Band
    columns: Band

    def window(self, width: int, height: int) -> Window:
        """Return the window to read of an image of this size, margin included.

        Raises:
            InvalidInput: the region is not inside the image.
        """
        lines, columns = self.lines, self.columns
        if lines.first + lines.number > height or columns.first + columns.number > width:
            raise InvalidInput(
                f"roi lines {lines.first}..{lines.first + lines.number} and columns "
                f"{columns.first}..{columns.first + columns.number} are not inside the image, "
                f"which has {height} lines and {width} columns"
            )
        (top, bottom), (left, right) = lines.clipped(height), columns.clipped(width)
        return Window.spanning(left, top, right, bottom)

    def trimmed(self, pixels: np.ndarray) -> np.ndarray:
        """Return an output (band, row, col) without the margin."""
        top, left = (
            min(self.lines.first, self.lines.margin),
            min(self.columns.first, self.columns.margin),
        )
        return pixels[:, top : top + self.lines.number, left : left + self.columns.number]


def parse_roi(
    document: Mapping[str, JsonValue] | None, ports: Description
) -> RegionOfInterest | None:
    """Parse the option `roi`; return None for None.

    Raises:
        InvalidInput: a field is wrong, or a target is not an image of the process.
    """
    if document is None:
        return None
    try:
        roi = RegionOfInterest.model_validate(document)
    except ValidationError as error:
        raise InvalidInput.of(
            "roi", bad_fields(error, prefix="/pesto/roi", value=document)
        ) from error
    images = [p.name for p in (*ports.inputs, *ports.outputs) if p.kind == "image"]
    unknown = sorted({*roi.target_in, *roi.target_out} - set(images))
    if unknown:
        raise InvalidInput(
            f"roi names {', '.join(unknown)}; images of this process are {', '.join(images)}"
        )
    return roi


def reference_of(value: InputValue) -> ImageReference | None:
    """Return the reference that an image of a request is; None if the request has its pixels.

    Raises:
        InvalidInput: it is none that can be read.
    """
    if isinstance(value, dict):
        return _reference(value)
    if not isinstance(value, str) or value[:5].lower() == "data:" or not looks_like_href(value):
        return None
    return ImageReference.parse(value)


def sent_bytes(value: InputValue) -> bytes | mmap:
    """Return the bytes of an image file that is in a request.

    Raises:
        InvalidInput: the value is no image.
        RasterUnreadable: its base64 is wrong.
    """
    if isinstance(value, RawImage):
        return value.data
    if isinstance(value, LongText):
        return _from_base64(value.consumed(), value.begins)
    if not isinstance(value, str):
        raise InvalidInput(f"must be an image; {_FORMS}")
    data = _data_of(value) if value[:5].lower() == "data:" else value
    return _from_base64(_sliced(data), data)


def _reference(value: dict[str, JsonValue]) -> ImageReference:
    try:
        return ImageReference.parse(value)
    except ValidationError as error:
        raise InvalidInput(_FORMS, fields=bad_fields(error, value=value)) from error


def _data_of(uri: str) -> str:
    """Return the base64 of a `data:` URI (RFC 2397), as FileReader of a browser writes it.

    Raises:
        InvalidInput: its data are not in base64.
    """
    head, comma, data = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise InvalidInput(f"{shortened(uri)} has no base64: write data:image/tiff;base64,…")
    return data


def _sliced(text: str) -> Iterator[bytes]:
    """Yield base64 in slices, without the line ends that may be in it."""
    packed = text.translate({10: None, 13: None}) if "\n" in text or "\r" in text else text
    for at in range(0, len(packed), _SLICE_CHARS):
        yield packed[at : at + _SLICE_CHARS].encode()


def _from_base64(slices: Iterable[bytes], text: str) -> bytes:
    # binascii holds the interpreter's lock: other threads, which log or report progress, run only
    # between two slices.
    decoded, is_padded = io.BytesIO(), False  # its getvalue() does not copy the bytes again
    try:
        for each in slices:
            if is_padded:
                raise RasterUnreadable(
                    f"{shortened(text)} is neither base64 (it is padded inside) nor a URI"
                )
            decoded.write(binascii.a2b_base64(each, strict_mode=True))
            is_padded = each.endswith(b"=")
    except ValueError as error:
        raise RasterUnreadable(
            f"{shortened(text)} is neither base64 ({error}) nor a URI such as file:///data/a.tif"
        ) from error
    return decoded.getvalue()


def _require_fit(image: Image, contract: RasterContract | None) -> None:
    if contract is None:
        return
    found, dtype = len(image.pixels), image.pixels.dtype.name
    if contract.band_count not in (None, found):
        wanted = ", ".join(contract.band_names or ()) or "unnamed"
        raise InvalidInput(
            f"has {found} bands; {contract.band_count} are required: {wanted}; send only these, in "
            "this order, or name the bands in the file"
        )
    dtypes = contract.received_dtype
    if dtypes and dtype not in dtypes:
        raise InvalidInput(f"has dtype {dtype}; {' or '.join(dtypes)} is required")


def _least(of_image: int | None, of_request: int | None, used: int) -> int | None:
    rest = None if of_request is None else max(0, of_request - used)
    return min((each for each in (of_image, rest) if each is not None), default=None)
