"""Make images on which a process shows how far it reads.

No single image does: noise hides what only empty surroundings show (a distance transform), full
ranges hide what happens below a threshold, and only long thin objects show how far a sieve looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pesto_runtime.contract import Port

GIVEN = "given"
_OPTICAL, _BYTE = 10_000, 255
_MOST_EXACT = 1 << 53  # the largest integer that a float has exactly
_LONGEST_STROKE = 24
_WAVES = 6
_FEW = 4
"""Pixels that differ in a sparse image, on average."""
_SINGLE, _RECTANGLES = 0.02, 12
"""Share of single pixels without data, and number of rectangles of them."""


@dataclass(frozen=True)
class ImageSpec:
    """What an image input accepts.

    Attributes:
        bands: Number of bands.
        dtype: Name of the dtype.
        nodata: Value of pixels without data; None where the contract declares none.
        given: An image (band, row, col) of the user; None for made images only.
    """

    bands: int
    dtype: str
    nodata: float | None = None
    given: np.ndarray | None = None

    @classmethod
    def of(cls, port: Port, given: np.ndarray | None = None) -> ImageSpec:
        """Return what a port accepts: bands and dtype of its contract, else of the given image."""
        raster = port.raster
        bands = raster.band_count if raster else None
        dtype = raster.dtype[0] if raster and raster.dtype else None
        if given is not None:
            bands, dtype = given.shape[0], given.dtype.name
        nodata = raster.nodata if raster else None
        # PESTO's images are PNG by default; a function that declares no dtype takes any.
        return cls(bands or 1, dtype or ("float32" if raster else "uint8"), nodata, given)

    @property
    def levels(self) -> tuple[float, ...]:
        """Bright values: a class, a byte, a reflectance, the largest; each where the dtype has it.

        Thresholds are made for one of these ranges.
        """
        is_integer = np.dtype(self.dtype).kind in "iu"
        most = min(np.iinfo(self.dtype).max, _MOST_EXACT) if is_integer else _OPTICAL
        return tuple(dict.fromkeys(float(min(each, most)) for each in (1, _BYTE, _OPTICAL, most)))


@dataclass
class TestImages:
    """The images of all inputs of a process.

    Attributes:
        specs: Input name -> what it accepts.
        seed: Seed of all random numbers.
    """

    __test__ = False  # pytest would collect the name

    specs: Mapping[str, ImageSpec]
    seed: int = 0
    kinds: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Where time is short, the last kinds are not reached.
        specs = self.specs.values()
        given = [GIVEN] if any(spec.given is not None for spec in specs) else []
        nodata = _NODATA_KINDS if any(spec.nodata is not None for spec in specs) else ()
        first, *others = _KINDS
        self.kinds = (*given, first, *nodata, *others)

    def images(self, kind: str, turn: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Return input name -> image (band, row, col).

        Args:
            kind: Name of the kind of data of the first input; each further one may have another.
            turn: Number of the repetition: other random numbers, other values.
            size: Rows and columns.
        """
        first = self.kinds.index(kind)
        found = {}
        for number, (name, spec) in enumerate(self.specs.items()):
            mine = self.kinds[(first + number * turn) % len(self.kinds)]
            rng = np.random.default_rng([self.seed, first, turn, number])
            made = _ALL[mine](_Draw(spec, size, rng, turn))
            found[name] = np.ascontiguousarray(made.astype(spec.dtype))
        return found


@dataclass(frozen=True)
class _Draw:
    """What an image is made from."""

    spec: ImageSpec
    size: tuple[int, int]
    rng: np.random.Generator
    turn: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.spec.bands, *self.size)

    def level(self, turn: int) -> float:
        """Return one of the typical bright values."""
        return self.spec.levels[turn % len(self.spec.levels)]


def _noise(draw: _Draw) -> np.ndarray:
    """Every value of the dtype, also negative ones; a float from 0 to 1."""
    dtype, rng = draw.spec.dtype, draw.rng
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, draw.shape, dtype=dtype, endpoint=True)
    imaginary = 1j * rng.random(draw.shape) if np.dtype(dtype).kind == "c" else 0
    return rng.random(draw.shape) + imaginary


def _classes(draw: _Draw) -> np.ndarray:
    """0 and 1, in shares that differ from turn to turn."""
    return draw.rng.random(draw.shape) < (0.5, 0.1, 0.8)[draw.turn % 3]


def _levels(draw: _Draw) -> np.ndarray:
    """Noise from 0 to a typical value: a byte, a reflectance."""
    return draw.rng.random(draw.shape) * (draw.level(draw.turn + 1) + 0.999)


def _sparse(draw: _Draw) -> np.ndarray:
    """A few bright pixels, far from each other, on 0."""
    return (draw.rng.random(draw.shape) < _FEW / math.prod(draw.size)) * draw.level(draw.turn)


def _holes(draw: _Draw) -> np.ndarray:
    """A few pixels of 0, far from each other, in a bright image."""
    return (draw.rng.random(draw.shape) >= _FEW / math.prod(draw.size)) * draw.level(draw.turn)


def _strokes(draw: _Draw) -> np.ndarray:
    """Straight lines of 1 to 24 pixels, upright or level, that do not touch each other.

    Every second line has the longest ones, each moved against the line before: at any boundary,
    some of them reach one pixel over it, others two, and so on.
    """
    image = np.zeros(draw.shape, bool)
    lines = image if draw.turn % 2 else image.transpose(0, 2, 1)
    for band in lines:
        for number, line in enumerate(band[::2]):
            if number % 2:
                places = np.arange(line.size) + 5 * number + draw.rng.integers(_LONGEST_STROKE)
                line[:] = places % (_LONGEST_STROKE + 3) < _LONGEST_STROKE
                continue
            lengths = draw.rng.integers(1, _LONGEST_STROKE, line.size, endpoint=True)
            lengths[1::2] = draw.rng.integers(2, 6, lengths[1::2].size)  # the gaps
            line[:] = np.repeat(np.arange(lengths.size) % 2 == 0, lengths)[: line.size]
    return image * draw.level(draw.turn // 2)


def _rings(draw: _Draw) -> np.ndarray:
    """Nested closed lines around the middle, and what is connected over the whole image."""
    rows, cols = (np.abs(np.arange(side) - side // 2) for side in draw.size)
    away = np.maximum(rows[:, np.newaxis], cols)
    is_line = (away % (4 + draw.turn)) == 0
    return np.broadcast_to(is_line * draw.level(draw.turn), draw.shape)


def _smooth(draw: _Draw) -> np.ndarray:
    """Waves: neighbours are alike, and thresholds are crossed along lines."""
    rows, cols = np.ogrid[: draw.size[0], : draw.size[1]]
    waves = draw.rng.random((draw.spec.bands, _WAVES, 3)) * (0.3, 0.3, 2 * math.pi)
    bands = [
        sum((np.cos(rows * y + cols * x + phase) for y, x, phase in each), np.zeros(draw.size))
        for each in waves
    ]
    return (np.stack(bands) + _WAVES) / (2 * _WAVES) * draw.level(draw.turn + 1)


def _ramp(draw: _Draw) -> np.ndarray:
    """Values that grow to the bottom and to the right."""
    rows, cols = np.ogrid[: draw.size[0], : draw.size[1]]
    ramp = (rows + cols) / sum(draw.size) * draw.level(draw.turn + 1)
    return np.broadcast_to(ramp, draw.shape)


def _constant(draw: _Draw) -> np.ndarray:
    """0 in every second turn, else a bright value."""
    return np.full(draw.shape, draw.level(draw.turn // 2) if draw.turn % 2 else 0)


def _gaps(draw: _Draw) -> np.ndarray:
    """Noise with rectangles and single pixels of nodata; noise for inputs without nodata."""
    image = _levels(draw)
    if draw.spec.nodata is None:
        return image
    image[:, draw.rng.random(draw.size) < _SINGLE] = draw.spec.nodata
    for _ in range(_RECTANGLES):
        row, col = (int(draw.rng.integers(0, most)) for most in draw.size)
        height, width = draw.rng.integers(2, 20, 2)
        image[:, row : row + height, col : col + width] = draw.spec.nodata
    return image


def _islands(draw: _Draw) -> np.ndarray:
    """Nodata with a few valid pixels; noise for inputs without nodata."""
    image = _levels(draw)
    if draw.spec.nodata is not None:
        share = _SINGLE if draw.turn % 2 else _FEW / math.prod(draw.size)
        image[:, draw.rng.random(draw.size) >= share] = draw.spec.nodata
    return image


def _given(draw: _Draw) -> np.ndarray:
    """A window of the user's image, mirrored where it is too small; noise for other inputs."""
    image = draw.spec.given
    if image is None:
        return _levels(draw)
    _, rows, cols = image.shape
    wider = [(0, 0), (0, max(0, draw.size[0] - rows)), (0, max(0, draw.size[1] - cols))]
    image = np.pad(image, wider, mode="symmetric")
    row, col = (
        int(draw.rng.integers(0, have - want, endpoint=True))
        for have, want in zip(image.shape[1:], draw.size, strict=True)
    )
    return image[:, row : row + draw.size[0], col : col + draw.size[1]]


_KINDS: Mapping[str, Callable[[_Draw], np.ndarray]] = {
    "noise": _noise,
    "sparse": _sparse,
    "smooth": _smooth,
    "classes": _classes,
    "strokes": _strokes,
    "holes": _holes,
    "rings": _rings,
    "levels": _levels,
    "ramp": _ramp,
    "constant": _constant,
}
_NODATA_KINDS: Mapping[str, Callable[[_Draw], np.ndarray]] = {"gaps": _gaps, "islands": _islands}
_ALL = {GIVEN: _given, **_KINDS, **_NODATA_KINDS}
