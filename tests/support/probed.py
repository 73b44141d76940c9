"""Processes whose margin, alignment and scale are known by hand or by theory, to measure them."""

from typing import Annotated

import numpy as np
from scipy import ndimage

from pesto_runtime import Margin, Named, Raster, process

Grey = Raster(bands=["grey"], dtype="uint8")
Real = Raster(bands=["grey"], dtype="float32")
Gappy = Raster(bands=["grey"], dtype="uint8", nodata=255)
Bytes = Raster(name="image", bands=["grey"], dtype="uint8")
Floats = Raster(name="image", bands=["grey"], dtype="float32")
CAP = 7.0
GENERATOR = np.random.default_rng(0)


def box(image: np.ndarray, *, radius: int) -> np.ndarray:
    """Exact sums of the (2 radius + 1) square around every pixel (row, col); 0 lies beyond."""
    rows, cols = image.shape
    padded = np.pad(image.astype(np.int64), radius)
    steps = range(2 * radius + 1)
    return np.asarray(sum(padded[y : y + rows, x : x + cols] for y in steps for x in steps))


def distance(image: np.ndarray) -> np.ndarray:
    """Distance of every pixel (row, col) from the nearest one above 0; infinite without one."""
    if not image.any():
        return np.full(image.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(image == 0))


@process(version="1", margin=3)
def gaussian(image: Annotated[np.ndarray, Real]) -> Annotated[np.ndarray, Floats]:
    """Sigma 1.5 cut at 2 sigma: int(2 * 1.5 + 0.5) = 3 pixels on each side."""
    return np.asarray(ndimage.gaussian_filter(image, (0, 1.5, 1.5), truncate=2))


@process(version="1", margin=1)
def median_odd(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """Median of the 3 x 3."""
    return np.asarray(ndimage.median_filter(image, (1, 3, 3)))


@process(version="1", margin=Margin(top=2, left=2, right=1, bottom=1))
def median_even(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """Median of 4 x 4: the window has two pixels before the centre and one after it."""
    return np.asarray(ndimage.median_filter(image, (1, 4, 4)))


@process(version="1", margin=2)
def erosion(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """Minimum of the 5 x 5."""
    return np.asarray(ndimage.grey_erosion(image, (1, 5, 5)))


@process(version="1", margin=1)
def sobel(image: Annotated[np.ndarray, Real]) -> Annotated[np.ndarray, Floats]:
    """A 3 x 3 kernel."""
    return np.asarray(ndimage.sobel(image, axis=1))


@process(version="1", margin=0, align=2)
def every_second(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8", scale="1/2")]:
    """Every second pixel of every second row; an incomplete pair is dropped."""
    _, rows, cols = image.shape
    return image[:, : rows // 2 * 2 : 2, : cols // 2 * 2 : 2]


@process(version="1", margin=0, align=3)
def every_third(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8", scale="1/3")]:
    """The middle pixel of each 3 x 3; an incomplete one is dropped."""
    return image[:, 1 : image.shape[1] // 3 * 3 : 3, 1 : image.shape[2] // 3 * 3 : 3]


@process(version="1", margin=0, align=2)
def cropped(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """The image without its last row and column, if their number is odd."""
    return image[:, : image.shape[1] // 2 * 2, : image.shape[2] // 2 * 2]


@process(version="1", margin=0, align=2)
def binning(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8", scale="1/2")]:
    """Maximum of each 2 x 2."""
    bands, rows, cols = image.shape
    rows, cols = rows // 2, cols // 2
    pairs = image[:, : rows * 2, : cols * 2].reshape(bands, rows, 2, cols, 2)
    return np.asarray(pairs.max(axis=(2, 4)))


@process(version="1", margin=0)
def enlarged(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8", scale=2)]:
    """Every pixel four times."""
    return image.repeat(2, axis=1).repeat(2, axis=2)


@process(version="1", margin=0)
def running_sum(image: Annotated[np.ndarray, Real]) -> Annotated[np.ndarray, Floats]:
    """The sum of all pixels to the left."""
    return np.asarray(image.cumsum(axis=2, dtype=np.float32))


@process(version="1", margin=0)
def fourier(image: Annotated[np.ndarray, Real]) -> Annotated[np.ndarray, Floats]:
    """The amplitudes of the Fourier transform: each depends on every pixel."""
    return np.asarray(np.abs(np.fft.fft2(image)), np.float32)


@process(version="1", margin=0)
def normalised(image: Annotated[np.ndarray, Real]) -> Annotated[np.ndarray, Floats]:
    """From 0 at the darkest pixel of the image to 1 at the brightest."""
    low, high = image.min(), image.max()
    return np.asarray((image - low) / (high - low or 1), np.float32)


@process(version="1", margin=0)
def labels(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="int32")]:
    """Numbers of connected components, counted from the top left."""
    return np.asarray(ndimage.label(image[0])[0], np.int32)


@process(version="1", margin=6)
def distance_capped(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Floats]:
    """Distance below 7: a pixel at 6 counts, one at 7 makes no difference."""
    return np.asarray(np.minimum(distance(image[0]), CAP), np.float32)


@process(version="1", margin=6)
def distance_free(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Floats]:
    """Distance without a limit."""
    return distance(image[0]).astype(np.float32)


@process(version="1", margin=0)
def noisy(image: Annotated[np.ndarray, Real]) -> Annotated[np.ndarray, Floats]:
    """Other noise in every call."""
    return image + GENERATOR.random(image.shape, np.float32)


@process(version="1", margin=Margin(top=2, left=3))
def causal(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """The maximum of each pixel, the two above it and the three to its left."""
    _, rows, cols = image.shape
    padded = np.pad(image, ((0, 0), (2, 0), (3, 0)))
    above = np.maximum.reduce([padded[:, y : y + rows, 3:] for y in range(3)])
    left = np.maximum.reduce([padded[:, 2:, x : x + cols] for x in range(4)])
    return np.asarray(np.maximum(above, left))


@process(version="1", margin=2)
def filled(image: Annotated[np.ndarray, Gappy]) -> Annotated[np.ndarray, Bytes]:
    """A pixel without data becomes the mean of the valid ones of its 5 x 5; others stay."""
    valid = image[0] != 255
    count = box(valid, radius=2)
    total = box(np.where(valid, image[0], 0), radius=2)
    mean = total // np.maximum(count, 1)
    return np.asarray(np.where(valid, image[0], mean), np.uint8)


@process(version="1", margin=4)
def threshold(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """Whether the mean of the 9 x 9 is above 100: most changes of a pixel change nothing."""
    return (box(image[0], radius=4) > 81 * 100).astype(np.uint8)[np.newaxis]


@process(version="1", margin=3)
def rounded(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """The mean of the 7 x 7, rounded down."""
    return (box(image[0], radius=3) // 49).astype(np.uint8)[np.newaxis]


@process(version="1")
def convolved(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="float32", margin=3,
                                        exactness={"atol": 1e-3})],
) -> Annotated[np.ndarray, Floats]:  # fmt: skip
    """The mean of the 7 x 7 by a Fourier transform: rounding errors reach over the image."""
    _, rows, cols = image.shape
    shape = (rows + 6, cols + 6)
    spectrum = np.fft.rfft2(image[0], shape) * np.fft.rfft2(np.full((7, 7), 1 / 49), shape)
    return np.fft.irfft2(spectrum, shape)[3 : 3 + rows, 3 : 3 + cols].astype(np.float32)


@process(version="1", margin=0)
def numbered(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """Each pixel plus the number of its row in the window: no neighbour, but the position."""
    return image + np.arange(image.shape[1], dtype=np.uint8)[:, np.newaxis]


@process(version="1", margin=0)
def numbered_rarely(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint16")],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint16")]:
    """The number of the row at pixels of 255, which few data have: no alignment shows it."""
    rows = np.arange(image.shape[1], dtype=np.uint16)[:, np.newaxis]
    return np.asarray(np.where(image == 255, rows, image), np.uint16)


@process(version="1", margin=Margin(left=2))
def faint(image: Annotated[np.ndarray, Real]) -> Annotated[np.ndarray, Floats]:
    """A millionth of the pixel two to the left: as small as rounding errors, but a neighbour."""
    wide = np.pad(image, ((0, 0), (0, 0), (2, 0)))
    return np.asarray(image + wide[:, :, :-2] * np.float32(1e-6), np.float32)


@process(version="1", margin=5)
def framed(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """The image with a black frame of 5 pixels: no neighbour, but the edges of the window."""
    out = np.zeros_like(image)
    out[:, 5:-5, 5:-5] = image[:, 5:-5, 5:-5]
    return out


def cells(image: np.ndarray, *, side: int) -> np.ndarray:
    """Every side x side square has the maximum of its pixels, on the grid of the image."""
    bands, rows, cols = image.shape
    padded = np.pad(image, ((0, 0), (0, -rows % side), (0, -cols % side)))
    shape = (bands, padded.shape[1] // side, side, padded.shape[2] // side, side)
    most = padded.reshape(shape).max(axis=(2, 4)).repeat(side, axis=1).repeat(side, axis=2)
    return np.asarray(most[:, :rows, :cols])


@process(version="1", margin=0, align=4)
def cells_of_four(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """The grid of the output is the input's, and the cells are 4 x 4."""
    return cells(image, side=4)


@process(version="1", margin=0, align=3)
def cells_of_three(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """The same with cells of 3 x 3, which do not fit into the made images."""
    return cells(image, side=3)


@process(version="1", margin=0, align=2)
def column_pairs(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """Every pair of columns has the maximum of both; rows are not paired."""
    wide = np.pad(image, ((0, 0), (0, 0), (0, image.shape[2] % 2)))
    most = np.maximum(wide[:, :, ::2], wide[:, :, 1::2]).repeat(2, axis=2)
    return np.asarray(most[:, :, : image.shape[2]])


@process(version="1", margin=0)
def holes_filled(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """What bright pixels enclose becomes bright, however large it is."""
    return np.asarray(ndimage.binary_fill_holes(image[0] > 0), np.uint8)


@process(version="1")
def masked(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8", margin=1)],
    mask: Annotated[np.ndarray, Raster(bands=["mask"], dtype="uint8", margin=3)],
) -> Annotated[np.ndarray, Bytes]:
    """The maximum of the 3 x 3, where no pixel of the mask's 7 x 7 is set."""
    widest = ndimage.grey_dilation(image, (1, 3, 3))
    return np.where(ndimage.grey_dilation(mask, (1, 7, 7)) > 0, 0, widest).astype(np.uint8)


@process(version="1")
def gated(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8", margin=0)],
    mask: Annotated[np.ndarray, Raster(bands=["mask"], dtype="uint8", margin=10)],
) -> Annotated[np.ndarray, Bytes]:
    """The image where more than half of the mask's 21 x 21 is 1: one pixel decides nothing."""
    count = box(mask[0] == 1, radius=10)
    return np.asarray(np.where(count > 220, image[0], 0), np.uint8)


def share(partial: dict[str, float]) -> Annotated[float, Named("share")]:
    """The share of bright pixels."""
    return partial["bright"] / partial["pixels"]


@process(version="1", reduce={"bright": "sum", "pixels": "sum"}, finish=share)
def bright_share(image: Annotated[np.ndarray, Grey]) -> dict[str, float]:
    """Count bright pixels."""
    return {"bright": float((image > 100).sum()), "pixels": float(image.size)}


@process(version="1", reduce={"bright": "max", "pixels": "sum"}, finish=share)
def wrong_share(image: Annotated[np.ndarray, Grey]) -> dict[str, float]:
    """Count bright pixels, by a wrong fold."""
    return {"bright": float((image > 100).sum()), "pixels": float(image.size)}


@process(version="1", margin=0)
def wrong_box(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Bytes]:
    """The mean of the 3 x 3, by a contract that declares no margin."""
    return (box(image[0], radius=1) // 9).astype(np.uint8)[np.newaxis]
