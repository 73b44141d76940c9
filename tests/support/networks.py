"""Small networks of numpy as processes: required sizes, and what they see around a pixel."""

from typing import Annotated, TypedDict

import numpy as np

from pesto_runtime import Blend, Raster, TileInfo, Vector, process

POOLINGS = 5
STEP = 2**POOLINGS
REACH = 128
"""3 x 3 at full size down to 1/32 and back, and the cell of a pixel: 125, to a multiple of 32."""
SIDE, AROUND = 96, 16
KERNEL = np.array([[1, 2, 1], [2, -5, 3], [0, 2, 1]], np.float32) / 8

Grey = Raster(bands=["grey"], dtype="uint8")


def convolved(x: np.ndarray) -> np.ndarray:
    """3 x 3 of (row, col), zeros beyond the array, negative values to 0; sums in a fixed order."""
    rows, cols = x.shape
    padded = np.pad(x, 1)
    total = np.zeros_like(x)
    for y in range(3):
        for z in range(3):
            total += KERNEL[y, z] * padded[y : y + rows, z : z + cols]
    return np.asarray(np.maximum(total, 0))


def u_net(image: np.ndarray) -> np.ndarray:
    """A U-Net over (row, col): five poolings, and as many steps up with what was there before."""
    x, skipped = image.astype(np.float32), []
    if x.shape[0] % STEP or x.shape[1] % STEP:
        raise ValueError(f"input {x.shape[0]} x {x.shape[1]} is not divisible by {STEP}")
    for _ in range(POOLINGS):
        x = convolved(x)
        skipped.append(x)
        rows, cols = x.shape
        x = x.reshape(rows // 2, 2, cols // 2, 2).max(axis=(1, 3))
    x = convolved(x)
    for before in reversed(skipped):
        x = convolved(x.repeat(2, axis=0).repeat(2, axis=1) * np.float32(0.5) + before)
    return x


@process(version="1", margin=REACH, align=STEP, fill="reflect")
def unet(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["score"], dtype="float32")]:
    """The network over the image."""
    return u_net(image[0])


@process(version="1", margin=64, align=STEP, fill="reflect")
def unet_short(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["score"], dtype="float32")]:
    """The same by a contract that says a smaller margin: a wrong one."""
    return u_net(image[0])


@process(version="1", margin=REACH, align=STEP)
def unet_unfilled(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["score"], dtype="float32")]:
    """The same by a contract that does not fill."""
    return u_net(image[0])


def windowed(image: np.ndarray, around: int = AROUND) -> np.ndarray:
    """Sum of the pixels from `around` before to `around` after, along rows and along columns."""
    rows, cols = image.shape
    padded = np.pad(image.astype(np.int32), around)
    down, total = np.zeros_like(padded[:rows]), np.zeros((rows, cols), np.int32)
    for shift in range(2 * around + 1):
        down += padded[shift : shift + rows]
    for shift in range(2 * around + 1):
        total += down[:, shift : shift + cols]
    return total


Summed = Raster(name="image", bands=["sum"], dtype="int32", nodata=-1)


def of_one_size(image: np.ndarray) -> np.ndarray:
    """What a network with one size of input requires."""
    if image.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"input {image.shape[1:]} is not {SIDE} x {SIDE}")
    return np.asarray(image[0])


@process(version="1", fill=3, batched=True, max_batch_size=4)
def fixed(
    image: Annotated[
        np.ndarray, Raster(bands=["grey"], dtype="uint8", margin=AROUND, tile={"fixed": SIDE})
    ],
) -> Annotated[np.ndarray, Summed]:
    """A sum over windows of one size."""
    return windowed(of_one_size(image))


@process(version="1", fill=3)
def fixed_short(
    image: Annotated[
        np.ndarray, Raster(bands=["grey"], dtype="uint8", margin=AROUND - 1, tile={"fixed": SIDE})
    ],
) -> Annotated[np.ndarray, Summed]:
    """The same by a contract that says a margin of one pixel less: a wrong one."""
    return windowed(of_one_size(image))


class Found(TypedDict):
    """An image of twice the pixels, and points in its grid."""

    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8", scale=2)]
    points: Annotated[dict[str, object], Vector(geometry="Point")]


@process(version="1", margin=4, align=8, fill="edge")
def enlarged(
    image: Annotated[np.ndarray, Grey], other: Annotated[np.ndarray, Grey], tile: TileInfo
) -> Found:
    """The largest of two images in each 8 x 8 cell, and a point where an image is 255."""
    shape = (tile.read.height, tile.read.width)
    if image.shape[1:] != shape or other.shape[1:] != shape or shape[0] % 8 or shape[1] % 8:
        raise ValueError(f"input {image.shape[1:]} and {other.shape[1:]}, the tile {shape}")
    cells = np.maximum(image, other)[0].reshape(shape[0] // 8, 8, shape[1] // 8, 8).max((1, 3))
    features = [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [2 * x + 1, 2 * y + 1]},
         "properties": {}}
        for y, x in np.argwhere(image[0] == 255).tolist()
    ]  # fmt: skip
    return {
        "image": cells.repeat(16, axis=0).repeat(16, axis=1)[np.newaxis],
        "points": {"type": "FeatureCollection", "features": features},
    }


@process(version="1")
def at_least(
    image: Annotated[
        np.ndarray,
        Raster(bands=["grey"], dtype="uint8", margin=2, align=3, fill="edge", tile={"min": 40}),
    ],
) -> Annotated[np.ndarray, Summed]:
    """A sum over windows of 40 pixels or more, at multiples of 3."""
    if min(image.shape[1:]) < 40 or image.shape[1] % 3 or image.shape[2] % 3:
        raise ValueError(f"input {image.shape[1:]} is too small, or no multiple of 3")
    return windowed(image[0], 2)


def window_dependent(image: np.ndarray) -> np.ndarray:
    """Return (row, col) minus its mean, float32: other values in each window of a pixel."""
    pixels = image.astype(np.float64)
    return np.asarray((pixels - pixels.mean()).astype(np.float32))


BLEND = Blend(size=48, overlap=20)


@process(version="1", blend=BLEND)
def blended(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["score"], dtype="float32")]:
    """Receive 48 x 48 pixels, whatever the tiles are."""
    if image.shape != (1, 48, 48):
        raise ValueError(f"received {image.shape}")
    return window_dependent(image[0])


@process(version="1", blend=Blend(size=40, overlap=30, profile="triangle"))
def blended_larger(
    image: Annotated[np.ndarray, Grey], tile: TileInfo
) -> Annotated[np.ndarray, Raster(name="image", bands=["x", "y"], dtype="float32", scale=2)]:
    """Give four pixels for each, and in its second band the column where the window starts."""
    first = window_dependent(image[0]).repeat(2, axis=0).repeat(2, axis=1)
    return np.stack([first, np.full_like(first, tile.read.col_off)])


@process(version="1", margin=20, align=28, fill="reflect")
def not_blended(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["score"], dtype="float32")]:
    """The same without blending: tiles are seen."""
    return window_dependent(image[0])


@process(version="1", blend=Blend(size=32, overlap=16))
def blended_valid(
    image: Annotated[np.ndarray, Grey],
    valid: Annotated[np.ndarray, Raster(mask=True)],
) -> Annotated[np.ndarray, Raster(name="image", bands=["score"], dtype="float32", nodata=-1)]:
    """Give 1 where a pixel of a window is valid and bright, NaN or nodata where it is not."""
    score = np.where(image[0] > 100, np.float32(1), np.float32(-1))
    score[image[0] < 20] = np.nan
    return np.where(valid, score, np.float32(-1))
