"""Cover images with overlapping windows of one size, and blend what a process makes of each.

The windows are at fixed places of the scene, whatever its tiles are: a pixel is the mean of the
same windows, added in the same order, in every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pesto_runtime.contract import TileInfo, Window
from pesto_runtime.errors import InvalidContract, InvalidInput
from pesto_runtime.pipeline import image_scale
from pesto_runtime.processor.output_checks import check_outputs
from pesto_runtime.tiling import scaled_window, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pesto_runtime.contract import Description

Profile = Literal["hann", "triangle"]
_PROFILES = get_args(Profile)


@dataclass(frozen=True)
class Blend:
    """How a network of one size covers a scene: `@process(blend=Blend(size=256, overlap=64))`.

    The function receives windows of `size` x `size` pixels, one each `size - overlap` pixels. With
    several windows over a pixel, the output there is `sum(w * output) / sum(w)`, where `w` is the
    product of a profile along the rows and one along the columns. Pixels of an output that are NaN
    or its declared nodata do not count.

    Attributes:
        size: Width and height of a window, pixels.
        overlap: Pixels that two windows side by side have in common, 1 to `size` - 1.
        profile: `hann`: `sin²(pi * (i + 0.5) / n)` for pixel `i` of `n` (F. J. Harris, Proc. IEEE
            66(1), 1978); `triangle`: `min(i + 0.5, n - i - 0.5)`.

    Raises:
        InvalidContract: a number or the profile is not allowed.
    """

    size: int
    overlap: int
    profile: Profile = "hann"

    def __post_init__(self) -> None:
        if not 1 <= self.overlap < self.size:
            raise InvalidContract(
                f"Blend: overlap {self.overlap} must be 1 to size - 1, and size is {self.size}"
            )
        if self.profile not in _PROFILES:
            raise InvalidContract(f"Blend: profile {self.profile!r} is not one of {_PROFILES}")

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""
        return self.size - self.overlap

    @property
    def geometry(self) -> dict[str, object]:
        """The fields of the raster contract that give each call whole windows."""
        # Windows that start before a pixel reach it from `overlap` pixels away, in whole steps.
        margin = math.ceil(self.overlap / self.step) * self.step
        return {"margin": margin, "align": self.step, "edge": "reflect", "fill": "reflect"}

    def weights(self, rows: int, cols: int) -> np.ndarray:
        """Return the weights (row, col) of a window's outputs; float64, all above 0."""
        return np.asarray(np.outer(self._profile(rows), self._profile(cols)))

    def _profile(self, count: int) -> np.ndarray:
        place = np.arange(count) + 0.5
        if self.profile == "triangle":
            return np.asarray(np.minimum(place, count - place))
        return np.asarray(np.sin(np.pi * place / count) ** 2)


def require_blendable(description: Description, blend: Blend) -> None:
    """Require outputs that a weighted mean has a meaning for.

    Raises:
        InvalidContract: an output is no image of floating-point numbers, its scale does not map
            windows to whole pixels, or images have several resolutions.
    """
    for port in description.outputs:
        dtypes = port.raster.dtype if port.kind == "image" and port.raster else ()
        if not dtypes or any(np.dtype(each).kind != "f" for each in dtypes):
            raise InvalidContract(
                f"blend makes means of overlapping windows, and output {port.name!r} is not an "
                "image with dtype float32 or float64: return scores, and make classes of them in "
                "a process after it"
            )
    if description.has_ratios:
        raise InvalidContract(
            "blend gives all images windows of one size, and these have several resolutions "
            "(`ratio`): enlarge the coarse one in a stage before it"
        )
    scale = image_scale(description)
    for length in (blend.size, blend.step):
        if (length * scale.x).denominator > 1 or (length * scale.y).denominator > 1:
            raise InvalidContract(
                f"blend: {length} pixels times the scale of the outputs is not a whole number: "
                "change size or overlap"
            )


def blended(
    call: Callable[[Mapping[str, object], TileInfo], Mapping[str, object]],
    blend: Blend,
    description: Description,
    inputs: Mapping[str, object],
    place: TileInfo,
) -> dict[str, object]:
    """Call a process for all windows of a tile, and return its blended outputs.

    Pixels of the tile's margin that no window covers are nodata, or NaN.

    Args:
        call: Runs the process on the inputs of one window.
        blend: Size and overlap of the windows.
        description: The contract of the process.
        inputs: The inputs of the tile; images are arrays (band, row, col).
        place: Place of the images in the scene.

    Raises:
        InvalidInput: the images have several sizes, or the tile does not start at a window.
        ContractBroken: an output of a window does not fit the contract.
    """
    images = {
        port.name: value
        for port in description.image_inputs
        if isinstance(value := inputs.get(port.name), np.ndarray)
    }
    read, scale = place.read, image_scale(description)
    for name, image in images.items():
        if image.shape[1:] != (read.height, read.width):
            raise InvalidInput(
                f"{description.name}: {name!r} has {image.shape[1]} rows and {image.shape[2]} "
                f"columns, and the first image {read.height} and {read.width}: give images of one "
                "size"
            )
    if any(number % blend.step for number in read):
        raise InvalidInput(
            f"{description.name} blends windows that start at multiples of {blend.step} pixels, "
            f"and the tile {list(read)} does not: a call of a whole image needs no tile, and "
            "`pesto probe` cannot measure such a process"
        )
    nodata = {port.name: port.raster.nodata for port in description.outputs if port.raster}
    means: dict[str, _Mean] = {}
    for window in _windows(read, place.write, blend):
        rows, cols = window.relative_to(read).slices
        parts = {name: image[:, rows, cols] for name, image in images.items()}
        write = window.intersection(place.write)
        at = place.model_copy(update={"read": window, "write": write})
        target = scaled_window(window.relative_to(read), scale)
        weights = blend.weights(target.height, target.width)
        received = {**inputs, **parts}
        outputs = call(received, at)
        check_outputs(description, received, outputs)
        for name, value in outputs.items():
            if not isinstance(value, np.ndarray):
                continue
            if name not in means:
                size = scaled_window(whole((read.width, read.height)), scale)
                means[name] = _Mean.empty(value, size, nodata.get(name))
            means[name].add(value, weights, target)
    return {name: mean.result() for name, mean in means.items()}


def _windows(read: Window, write: Window, blend: Blend) -> Iterator[Window]:
    """Yield the windows inside `read` that contain pixels of `write`, row by row."""
    size, step = blend.size, blend.step
    for row in range(read.row_off, read.row_stop - size + 1, step):
        for col in range(read.col_off, read.col_stop - size + 1, step):
            window = Window(col, row, size, size)
            if window.intersection(write).pixels:
                yield window


@dataclass(frozen=True)
class _Mean:
    """The weighted mean of the outputs that were added; arrays are (band, row, col)."""

    sums: np.ndarray
    weights: np.ndarray
    dtype: np.dtype
    nodata: float | None

    @classmethod
    def empty(cls, like: np.ndarray, size: Window, nodata: float | None) -> _Mean:
        shape = (like.shape[0], size.height, size.width)
        return cls(np.zeros(shape), np.zeros(shape), like.dtype, nodata)

    def add(self, value: np.ndarray, weights: np.ndarray, target: Window) -> None:
        valid = ~np.isnan(value)
        if self.nodata is not None:
            valid &= value != self.nodata
        rows, cols = target.slices
        self.sums[:, rows, cols] += np.where(valid, value, 0) * weights
        self.weights[:, rows, cols] += valid * weights

    def result(self) -> np.ndarray:
        empty = np.nan if self.nodata is None else self.nodata
        covered = self.weights > 0
        mean = np.full(self.sums.shape, empty, self.dtype)
        np.divide(self.sums, self.weights, out=self.sums, where=covered)
        mean[covered] = self.sums[covered]
        return mean
