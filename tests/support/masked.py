"""Processes that receive the valid pixels of their images."""

from typing import Annotated

import numpy as np

from pesto_runtime import Named, Raster, process

Valid = Annotated[np.ndarray, Raster(mask=True)]
Any = Annotated[np.ndarray, Raster(margin=0)]


def require_mask(valid: np.ndarray, image: np.ndarray) -> None:
    """A mask is bool (row, col), as large as its image."""
    if valid.dtype != bool or valid.shape != image.shape[1:]:
        raise ValueError(f"mask {valid.dtype} {valid.shape} of an image {image.shape}")


@process(version="1")
def shown(valid: Valid, image: Any) -> Annotated[
    np.ndarray, Raster(name="image", bands=["valid"], dtype="uint8")
]:  # fmt: skip
    """The mask as a picture; it is the first parameter on purpose."""
    require_mask(valid, image)
    return valid.astype(np.uint8)


@process(version="1", margin=0)
def shown_per_band(
    image: Any, valid: Annotated[np.ndarray, Raster(mask=True, per_band=True)]
) -> Annotated[np.ndarray, Raster(name="image", dtype="uint8", nodata=None)]:
    """The masks of all bands as a picture."""
    if valid.dtype != bool or valid.shape != image.shape:
        raise ValueError(f"mask {valid.dtype} {valid.shape} of an image {image.shape}")
    return valid.astype(np.uint8)


@process(version="1", margin=2)
def eroded(
    image: Annotated[np.ndarray, Raster()], valid: Valid
) -> Annotated[np.ndarray, Raster(name="image", bands=["valid"], dtype="uint8")]:
    """1 where all pixels of the 5 x 5 around a pixel are valid; those beyond the scene are."""
    require_mask(valid, image)
    rows, cols = valid.shape
    padded = np.pad(valid, 2, constant_values=True)
    around = [padded[y : y + rows, x : x + cols] for y in range(5) for x in range(5)]
    return np.asarray(np.logical_and.reduce(around), np.uint8)


@process(version="1", align=16, fill=0)
def cells(
    image: Annotated[np.ndarray, Raster(margin=0)], valid: Valid
) -> Annotated[np.ndarray, Raster(name="image", bands=["valid"], dtype="uint8")]:
    """Number of valid pixels in each 16 x 16 cell."""
    require_mask(valid, image)
    rows, cols = valid.shape
    counts = valid.reshape(rows // 16, 16, cols // 16, 16).sum(axis=(1, 3))
    return np.asarray(np.minimum(counts, 255).repeat(16, 0).repeat(16, 1), np.uint8)


@process(version="1")
def other(
    first: Any, second: Any, valid: Annotated[np.ndarray, Raster(mask="second")]
) -> Annotated[np.ndarray, Raster(name="image", bands=["valid"], dtype="uint8")]:
    """The mask of the second image."""
    require_mask(valid, second)
    return valid.astype(np.uint8)


@process(version="1", margin=0)
def marked(
    image: Annotated[np.ndarray, Raster()],
) -> Annotated[np.ndarray, Raster(name="image", bands=["marked"], dtype="int16", nodata=-5)]:
    """The first band as int16; nodata where it is below 30."""
    stored = np.nan_to_num(image[0]).astype(np.int16)
    return np.where(stored < 30, np.int16(-5), stored)


@process(version="1", margin=0)
def same(image: Annotated[np.ndarray, Raster()]) -> Annotated[np.ndarray, Raster(name="image")]:
    """The image as it is."""
    return image.copy()


@process(version="1", margin=0)
def fails(image: Annotated[np.ndarray, Raster()]) -> Annotated[np.ndarray, Raster(name="image")]:
    """The image as it is, but an error where a pixel is 200."""
    if (image == 200).any():
        raise ValueError("200")
    return image.copy()


def divided(partial: dict[str, float]) -> Annotated[float, Named("mean")]:
    """Mean of the pixels that were counted."""
    return partial["sum"] / partial["count"]


@process(version="1", reduce={"sum": "sum", "count": "sum"}, finish=divided)
def valid_mean(image: Annotated[np.ndarray, Raster()], valid: Valid) -> dict[str, float]:
    """Mean of the first band over valid pixels."""
    require_mask(valid, image)
    found = image[0][valid].astype(np.float64)
    return {"sum": float(found.sum()), "count": int(valid.sum())}
