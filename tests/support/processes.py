"""Small processes with a known answer, for pipelines that the tests run; some fail on purpose."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import numpy as np

from pesto_runtime import Named, Raster, TileInfo, process
from pesto_runtime.errors import Busy, NothingValid, error_from_problem

if TYPE_CHECKING:
    from pydantic import JsonValue

Grey = Raster(bands=["grey"], dtype="uint8")
Plain = Raster(name="image", bands=["grey"], dtype="uint8")
Void = Raster(name="image", bands=["grey"], dtype="uint8", nodata=255)
MARKER = 250


def widest(image: np.ndarray, radius: int) -> np.ndarray:
    """Maximum of the (2 radius + 1) square around every pixel; nothing lies beyond the array."""
    _, rows, cols = image.shape
    side = 2 * radius + 1
    padded = np.pad(image, ((0, 0), (radius, radius), (radius, radius)))
    down = np.maximum.reduce([padded[:, y : y + rows] for y in range(side)])
    return np.asarray(np.maximum.reduce([down[:, :, x : x + cols] for x in range(side)]))


@process(version="1", margin=1)
def grow(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Plain]:
    """Maximum of the 3 x 3 around every pixel."""
    return widest(image, 1)


@process(version="1", margin=40)
def grow_far(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Plain]:
    """Maximum of the 81 x 81 around every pixel."""
    return widest(image, 40)


@process(version="1", margin=39)
def grow_short(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Plain]:
    """Maximum of the 81 x 81 around every pixel, by a contract that says less: a wrong one."""
    return widest(image, 40)


@process(version="1", margin={"top": 0, "right": 3, "bottom": 0, "left": 0})
def look_right(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Plain]:
    """Maximum of every pixel and the three to its right."""
    padded = np.pad(image, ((0, 0), (0, 0), (0, 3)))
    return np.asarray(np.maximum.reduce([padded[:, :, x : x + image.shape[2]] for x in range(4)]))


@process(version="1")
def soften(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8", margin=2, edge="reflect")],
) -> Annotated[np.ndarray, Raster(name="image", bands=["sum"], dtype="uint16")]:
    """Sum of the 5 x 5 around every pixel; the outermost two of the window are not right."""
    wide = image.astype(np.uint16)
    total = np.zeros_like(wide)
    for y in range(-2, 3):
        for x in range(-2, 3):
            total += np.roll(wide, (y, x), (1, 2))
    return total


@process(version="1", margin=0)
def enlarge(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8", scale=2)]:
    """Every pixel four times."""
    return image.repeat(2, axis=1).repeat(2, axis=2)


@process(version="1", margin=0, align=4)
def shrink(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8", scale="1/4")]:
    """Maximum of every 4 x 4; an incomplete one is dropped."""
    bands, rows, cols = image.shape
    rows, cols = rows // 4, cols // 4
    cells = image[:, : rows * 4, : cols * 4].reshape(bands, rows, 4, cols, 4)
    return np.asarray(cells.max(axis=(2, 4)))


@process(version="1", margin=0, align=8)
def tops(image: Annotated[np.ndarray, Grey], tile: TileInfo) -> Annotated[np.ndarray, Plain]:
    """Maximum of the 8 x 8 cell that a pixel lies in; windows must begin where cells do."""
    assert tile.read.col_off % 8 == 0
    assert tile.read.row_off % 8 == 0
    _, rows, cols = image.shape
    padded = np.pad(image, ((0, 0), (0, -rows % 8), (0, -cols % 8)))
    cells = padded.reshape(1, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8).max(axis=(2, 4))
    return np.asarray(cells.repeat(8, axis=1).repeat(8, axis=2)[:, :rows, :cols])


def finish_mean(partial: dict[str, int]) -> Annotated[float, Named("mean")]:
    """Divide the sums."""
    if not partial["count"]:
        raise NothingValid("mean: no valid pixel")
    return partial["sum"] / partial["count"]


@process(version="1", reduce={"sum": "sum", "count": "sum"}, finish=finish_mean)
def mean(image: Annotated[np.ndarray, Grey]) -> dict[str, int]:
    """Mean of a raster."""
    return {"sum": int(image.sum(dtype=np.int64)), "count": image.size}


@process(version="1", margin=0)
def above(image: Annotated[np.ndarray, Grey], level: float) -> Annotated[np.ndarray, Void]:
    """1 where a pixel is above a level, else 0."""
    return (image > level).astype(np.uint8)


@process(version="1", tileable="whole")
def rank(image: Annotated[np.ndarray, Grey]) -> Annotated[np.ndarray, Plain]:
    """Spread the values of the whole raster over 0 to 255: no tile knows them all."""
    low, high = int(image.min()), int(image.max())
    spread = (image.astype(np.uint16) - low) * 255 // max(high - low, 1)
    return np.asarray(spread.astype(np.uint8))


class Split(TypedDict):
    """Two images."""

    high: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")]
    low: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")]


@process(version="1", margin=0)
def split(image: Annotated[np.ndarray, Grey]) -> Split:
    """The high and the low four bits."""
    return {"high": image >> 4, "low": image & 15}


@process(version="1", margin=0)
def add(
    first: Annotated[np.ndarray, Grey], second: Annotated[np.ndarray, Grey]
) -> Annotated[np.ndarray, Plain]:
    """Sum of two images, modulo 256."""
    return np.asarray(first + second)


@process(version="1", margin=0)
def fragile(image: Annotated[np.ndarray, Grey], broken: str = "") -> Annotated[np.ndarray, Void]:
    """Give the image back, but fail where it holds the marker, as long as a file exists."""
    if (image == MARKER).any() and Path(broken).exists():
        raise ZeroDivisionError("float division by zero")
    return image.copy()


@process(version="1", margin=0)
def fragile_without_nodata(
    image: Annotated[np.ndarray, Grey], broken: str = ""
) -> Annotated[np.ndarray, Plain]:
    """The same, but its output has no value for a hole."""
    if (image == MARKER).any() and Path(broken).exists():
        raise ZeroDivisionError("float division by zero")
    return image.copy()


@process(version="1", margin=0)
def raises(image: Annotated[np.ndarray, Grey], slug: str) -> Annotated[np.ndarray, Void]:
    """Give the image back, but raise the error of this name where it holds the marker."""
    if (image == MARKER).any():
        problem: dict[str, JsonValue] = {
            "type": f"urn:pesto:error:{slug}",
            "detail": "no",
            "errors": [{"pointer": "/image", "detail": "must be dark", "value": "bright"}],
        }
        raise error_from_problem(problem, status=500)
    return image.copy()


@process(version="1", margin=0)
def busy_once(
    image: Annotated[np.ndarray, Grey], flag: str, seconds: float
) -> Annotated[np.ndarray, Void]:
    """Give the image back, but be busy the first time, and ask for this long a pause."""
    if not Path(flag).exists():
        Path(flag).touch()
        raise Busy("full", retry_after_s=seconds)
    return image.copy()


@process(version="1", margin=0)
def slow(image: Annotated[np.ndarray, Grey], seconds: float) -> Annotated[np.ndarray, Void]:
    """Give the image back, after a while."""
    time.sleep(seconds)
    return image.copy()


@process(version="1", margin=0)
def deadly(image: Annotated[np.ndarray, Grey], flag: str) -> Annotated[np.ndarray, Void]:
    """Take the worker process down at the marker: once, where a flag is named, else always."""
    if (image == MARKER).any() and not (flag and Path(flag).exists()):
        if flag:
            Path(flag).touch()
        os._exit(1)
    return image.copy()


@process(version="1", margin=0)
def verbose(image: Annotated[np.ndarray, Grey], log: str) -> Annotated[np.ndarray, Void]:
    """Give the image back, and write a line per call: a counter that no report can bend."""
    with Path(log).open("a") as file:
        file.write("call\n")
    return image.copy()


@process(version="1", margin=0)
def paced(
    image: Annotated[np.ndarray, Grey], log: str, seconds: float, tile: TileInfo
) -> Annotated[np.ndarray, Void]:
    """Write down the window that is asked for, and give its image back after a while."""
    with Path(log).open("a") as file:
        file.write(f"{' '.join(map(str, tile.write))}\n")
    time.sleep(seconds)
    return image.copy()


@process(version="1", margin=0)
def watched(
    image: Annotated[np.ndarray, Grey], tile: TileInfo, broken: str, log: str
) -> Annotated[np.ndarray, Void]:
    """Give the image back, and tell a file the window; fail at the marker while a file exists."""
    with Path(log).open("a") as file:
        file.write(f"{tile.read.col_off},{tile.read.row_off}\n")
    if (image == MARKER).any() and Path(broken).exists():
        raise ZeroDivisionError("float division by zero")
    return image.copy()
