"""Bands picked as a port names them; an image that names none is taken as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pesto_runtime.raster.bounds import UNBOUNDED
from pesto_runtime.raster.read import RasterReader, band_numbers, raster_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pesto_runtime.contract import RasterContract, Window
    from pesto_runtime.raster.bounds import Bounds
    from pesto_runtime.raster.image import Image


def names_to_pick(
    bands: Sequence[str | None], contract: RasterContract | None
) -> tuple[str, ...] | None:
    """The names of the port's bands; None where the port or the image names none."""
    if contract is None or contract.band_names is None or not any(bands):
        return None
    return contract.band_names


def picked_for(image: Image, contract: RasterContract | None) -> Image:
    """The image with the bands that a port takes, in its order.

    Raises:
        InvalidInput: the image names its bands, and lacks one of the port's.
    """
    names = names_to_pick(image.bands, contract)
    if names is None or names == image.bands:
        return image
    places = [number - 1 for number in band_numbers(image.bands, names)]
    return replace(
        image,
        pixels=image.pixels[places],
        bands=tuple(image.bands[i] for i in places),
        scales=tuple(image.scales[i] for i in places) if image.scales else (),
        offsets=tuple(image.offsets[i] for i in places) if image.offsets else (),
    )


def read_for(
    href: str,
    contract: RasterContract | None,
    *,
    window: Window | None = None,
    bands: Sequence[int | str] | None = None,
    pick_window: Callable[[int, int], Window] | None = None,
    bounds: Bounds = UNBOUNDED,
) -> Image:
    """Read a window of a raster, and of its bands only those that a port takes.

    Args:
        href: Of the raster.
        contract: The port's.
        window: None for all of it.
        bands: Names or 1-based numbers that overrule the port's names.
        pick_window: Called with width and height where `window` is None.
        bounds: Most that the window may have.

    Raises:
        InvalidInput: the window is not inside the raster, or a band is not there.
        RasterUnreadable: the raster cannot be read.
        TooLarge: over the bounds.
    """
    with raster_settings(), RasterReader(href) as reader:
        scene = reader.scene
        if window is None and pick_window is not None:
            window = pick_window(scene.width, scene.height)
        wanted = names_to_pick(scene.bands, contract) if bands is None else bands
        width, height = (scene.width, scene.height) if window is None else window[2:]
        count = len(scene.bands if wanted is None else wanted)
        bounds.require((count, height, width), scene.dtype)
        return reader.image(window, bands=wanted)
