"""Choose the bands of a raster or an image: by name, by number, or those of a port.

Pixels are read in `read`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput
from pesto_runtime.raster.scaling import scaled_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.contract import RasterContract, Scene
    from pesto_runtime.raster.image import Image


def picked_numbers(scene: Scene, contract: RasterContract | None) -> tuple[int, ...] | None:
    """Return the 1-based numbers of the bands of a scene that a port takes; None for all.

    Raises:
        InvalidInput: the port names its bands, and those of the scene have other names or none.
    """
    if contract is None or contract.band_names is None:
        return None
    in_order = scene.selection is not None and scene.selection.states_order
    try:
        return contract.pick(scene.bands, in_order=in_order, of=str(scene.reference))
    except InvalidInput as error:
        raise InvalidInput(
            f"{error.detail}; state which bands to take, as in {scene.href}{contract.bands_example}"
        ) from error


def taken_for(image: Image, contract: RasterContract | None) -> Image:
    """Return an image in memory as a port receives it: its bands, physical values if `scaled`.

    An image without names keeps all of its bands: an array has no place for names, and its order
    counts.

    Raises:
        InvalidInput: the image names its bands, and one of the port's is missing or there twice;
            or it is complex, and the port is `scaled`.
    """
    if contract is None:
        return image
    if contract.band_names is not None and any(image.bands):
        image = _picked(image, contract)
    return scaled_image(image) if contract.scaled else image


def _picked(image: Image, contract: RasterContract) -> Image:
    try:
        numbers = contract.pick(image.bands, of="the image")
    except InvalidInput as error:
        way_out = "name them, or send only the bands that are taken, in their order"
        raise InvalidInput(f"{error.detail}; {way_out}") from error
    places = [number - 1 for number in numbers or ()]
    return image if places == list(range(len(image.bands))) else image.picked(places)


def band_numbers(
    descriptions: Sequence[str | None], bands: Sequence[int | str] | None, *, href: str = "image"
) -> tuple[int, ...]:
    """Convert band names or 1-based numbers to 1-based numbers; None means all.

    >>> band_numbers(("red", "nir"), ["nir", 1])
    (2, 1)

    Raises:
        InvalidInput: a band does not exist, or its name is that of two bands.
    """
    if bands is None:
        return tuple(range(1, len(descriptions) + 1))
    for band in bands:
        same = [n for n, name in enumerate(descriptions, start=1) if band and name == band]
        if len(same) > 1:
            raise InvalidInput(
                f"bands {' and '.join(map(str, same))} of {href} are both named {band!r}: give the "
                "number of the one to take"
            )
    names = {name: number for number, name in enumerate(descriptions, start=1) if name}
    numbers = [names.get(band, 0) if isinstance(band, str) else band for band in bands]
    missing = [
        band
        for band, number in zip(bands, numbers, strict=True)
        if not 1 <= number <= len(descriptions)
    ]
    if missing:
        raise InvalidInput(
            f"{href} has no band {', '.join(repr(band) for band in missing)}; "
            f"it has {len(descriptions)}: {', '.join(name or '(unnamed)' for name in descriptions)}"
        )
    return tuple(numbers)
