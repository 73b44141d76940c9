"""One image value of a request, in any of its forms, read into pixels that fit their port."""

from __future__ import annotations

import binascii
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pesto_runtime import raster
from pesto_runtime.contract import ImageReference, Window, bad_fields
from pesto_runtime.errors import InvalidInput, RasterUnreadable, shortened
from pesto_runtime.hrefs import looks_like_href
from pesto_runtime.raster.picking import picked_for, read_for
from pesto_runtime.service.long_texts import LongText
from pesto_runtime.service.payload import RawImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from mmap import mmap

    from pydantic import JsonValue

    from pesto_runtime.contract import RasterContract
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.service.payload import InputValue

    PickWindow = Callable[[int, int], Window]

_SLICE_CHARS = 1 << 20  # a multiple of 4, so that every slice is base64 of its own
_FORMS = "an image is base64, a URI, or an object {href, window, bands}"


@dataclass(frozen=True)
class ImageLoader:
    """Reads images for one service.

    Attributes:
        gate: What hrefs pass.
        bounds: Of one image.
    """

    gate: Gate
    bounds: raster.Bounds

    def load(
        self,
        value: InputValue,
        contract: RasterContract | None,
        *,
        pick_window: PickWindow | None = None,
    ) -> raster.Image:
        """Read an image, its bands picked as the port names them.

        Args:
            value: base64, a URI, a reference object, or a raw body.
            contract: The port's; None for any image.
            pick_window: Called with width and height: which window is wanted; None for all.

        Raises:
            HrefRefused: the gate does not admit the href.
            RasterUnreadable: no image, or a broken one.
            TooLarge: over the bounds.
            InvalidInput: not a form of image, or not what the port takes.
        """
        if isinstance(value, RawImage):
            image = self._decoded(value.data, contract, media_type=value.media_type)
        elif isinstance(value, dict):
            image = self._referred(_reference(value), contract, pick_window)
            pick_window = None
        elif isinstance(value, str) and looks_like_href(value):
            image = self._referred(ImageReference(href=value), contract, pick_window)
            pick_window = None
        elif isinstance(value, str):
            image = self._decoded(_from_base64(_sliced(value), value), contract)
        elif isinstance(value, LongText):
            image = self._decoded(_from_base64(value.consumed(), value.begins), contract)
        else:
            raise InvalidInput(f"must be an image; {_FORMS}")
        if pick_window is not None:
            image = _cropped(image, pick_window(image.pixels.shape[2], image.pixels.shape[1]))
        _require_fit(image, contract)
        return image

    def _decoded(
        self, data: bytes | mmap, contract: RasterContract | None, *, media_type: str | None = None
    ) -> raster.Image:
        image = raster.decode_image(data, media_type=media_type, bounds=self.bounds)
        return picked_for(image, contract)

    def _referred(
        self,
        reference: ImageReference,
        contract: RasterContract | None,
        pick_window: PickWindow | None,
    ) -> raster.Image:
        return read_for(
            self.gate.admit_read(reference.href),
            contract,
            window=reference.window,
            bands=reference.bands,
            pick_window=pick_window,
            bounds=self.bounds,
        )


def _reference(value: dict[str, JsonValue]) -> ImageReference:
    try:
        return ImageReference.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(_FORMS, fields=bad_fields(error, value=value)) from error


def _sliced(text: str) -> Iterator[bytes]:
    """Base64 in slices, without the line ends that may be in it."""
    packed = text.translate({10: None, 13: None}) if "\n" in text or "\r" in text else text
    for at in range(0, len(packed), _SLICE_CHARS):
        yield packed[at : at + _SLICE_CHARS].encode()


def _from_base64(slices: Iterable[bytes], text: str) -> bytes:
    """Decode slice by slice: between two of them other threads get a word in."""
    decoded, is_padded = io.BytesIO(), False  # gives its bytes away without copying them
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


def _cropped(image: raster.Image, window: Window) -> raster.Image:
    rows, cols = window.slices
    moved = image.transform and raster.shifted(image.transform, window.col_off, window.row_off)
    return replace(image, pixels=image.pixels[:, rows, cols], transform=moved)


def _require_fit(image: raster.Image, contract: RasterContract | None) -> None:
    if contract is None:
        return
    found, dtype = len(image.pixels), image.pixels.dtype.name
    if contract.band_count not in (None, found):
        wanted = ", ".join(contract.band_names or ()) or "unnamed"
        raise InvalidInput(f"has {found} bands; {contract.band_count} are taken: {wanted}")
    if contract.dtype and dtype not in contract.dtype:
        raise InvalidInput(f"has dtype {dtype}; {' or '.join(contract.dtype)} is taken")
