"""Find the valid pixels of an image: by its mask, its nodata, and NaN.

The rules are those of GDAL and of rasterio's `dataset_mask`: a mask or an alpha band of the dataset
decides alone; otherwise a pixel is valid if a band has another value than nodata. In addition, a
pixel that is NaN in all bands is not valid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from pesto_runtime.contract.image_lists import gathered, item_of, spread_call

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rasterio.io import DatasetReader

    from pesto_runtime.contract import Description, Window
    from pesto_runtime.raster.image import Image

VALID = 255
"""Value of a valid pixel in a mask, as GDAL writes it; any value but 0 is read as valid."""


def stated_validity(
    dataset: DatasetReader, facts: DatasetReader | None = None
) -> Literal["all", "nodata", "mask", "alpha"]:
    """Return what states the valid pixels of an open raster.

    Args:
        dataset: The raster.
        facts: A dataset with its other facts, nodata too; None for those of the raster itself.
    """
    from rasterio.enums import MaskFlags  # a worker that only calls functions needs no rasterio

    flags = dataset.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags:
        return "alpha" if MaskFlags.alpha in flags else "mask"
    return "nodata" if (facts or dataset).nodata is not None else "all"


def dataset_mask(dataset: DatasetReader, window: Window | None = None) -> np.ndarray | None:
    """Read the mask or the alpha band of an open raster, bool (row, col); None without either."""
    if stated_validity(dataset) not in ("mask", "alpha"):
        return None
    from rasterio.windows import Window as RasterioWindow

    place = RasterioWindow(*window) if window else None
    mask: np.ndarray = dataset.read_masks(1, window=place) != 0
    return mask


def valid_pixels(
    pixels: np.ndarray,
    *,
    nodata: float | None = None,
    mask: np.ndarray | None = None,
    per_band: bool = False,
) -> np.ndarray:
    """Return the mask of an image, uint8 (1, row, col): 255 for a valid pixel, else 0.

    With `per_band` it is (band, row, col): a band is not valid where it is nodata or NaN itself.

    Args:
        pixels: Array (band, row, col).
        nodata: Value of a pixel without data; None without one.
        mask: The mask of the dataset, bool (row, col), which replaces nodata; None without one.
        per_band: Whether each band has its own.
    """
    valid = np.ones(pixels.shape, bool) if mask is None else np.broadcast_to(mask, pixels.shape)
    if mask is None and nodata is not None and _is_value(nodata, pixels.dtype):
        valid = np.asarray(pixels != np.asarray(nodata).astype(pixels.dtype))
    has_number = ~np.isnan(pixels) if pixels.dtype.kind in "fc" else None
    if not per_band:
        valid = np.asarray(valid.any(axis=0, keepdims=True))
        has_number = (
            None if has_number is None else np.asarray(has_number.any(axis=0, keepdims=True))
        )
    if has_number is not None:
        valid = valid & has_number
    return valid * np.uint8(VALID)


def add_masks(
    inputs: Mapping[str, object], description: Description, images: Mapping[str, Image]
) -> dict[str, object]:
    """Return inputs with the masks that they do not have, made from the images of a call.

    Args:
        inputs: Input name -> array (band, row, col), list of arrays, or any other value.
        description: The contract of the process.
        images: Image input -> the image with its mask and nodata, those of a list as `dates.0`,
            `dates.1`, …; an input without one counts as an array with the nodata of its contract.
    """
    if not description.masks:
        return dict(inputs)
    whole = description
    description, inputs = spread_call(description, inputs)
    found = dict(inputs)
    for name, source in description.masks.items():
        pixels = inputs.get(source)
        if name in inputs or not isinstance(pixels, np.ndarray):
            continue
        image, port = images.get(source), description.input(source)
        nodata = image.nodata if image is not None else None
        if nodata is None and port is not None and port.raster is not None:
            nodata = port.raster.nodata
        mask = image.mask if image is not None else None
        per_band = name in description.band_masks
        found[name] = valid_pixels(pixels, nodata=nodata, mask=mask, per_band=per_band)
    return dict(gathered(whole, found))


def named_images(description: Description, images: Mapping[str, list[Image]]) -> dict[str, Image]:
    """Return each image of a call by its name, those of a list as `dates.0`, `dates.1`, …."""
    lists = {port.name for port in description.lists}
    return {
        item_of(name, index) if name in lists else name: image
        for name, several in images.items()
        for index, image in enumerate(several)
    }


def _is_value(nodata: float, dtype: np.dtype) -> bool:
    """Whether pixels of a dtype can have this nodata."""
    if dtype.kind in "fc":
        return True
    info = np.iinfo(dtype)
    return float(nodata).is_integer() and info.min <= nodata <= info.max
