"""Measure scale, alignment, margin and exactness of a process that makes images.

The process is a function from images to images; nothing is loaded, printed or compared with a
contract. Two experiments find how far an output looks:

- *replace*: everything on one side of a boundary is replaced in one input;
- *cut*: everything on one side of a boundary is cut off all inputs, as a tile's window does.

The first one shows on which pixels of which input an output depends, the second one also what
depends on the position, the size or the edges of the window.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from pesto_runtime.contract import Scale, Tolerance, Window
from pesto_runtime.errors import (
    AlgorithmFailed,
    ContractBroken,
    InvalidInput,
    NothingValid,
    PestoError,
)
from pesto_runtime.probing.reach import (
    SIDES,
    Difference,
    Profile,
    Side,
    Size,
    distances,
    kept,
    ratio_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pesto_runtime.probing.data import TestImages

Images: TypeAlias = "Mapping[str, np.ndarray]"
Profiles: TypeAlias = "dict[tuple[str, str, Side], Profile]"

WINDOW = ""
"""Stands for all inputs in the profiles of cuts."""

_ALIGNMENTS = (*range(1, 17), 24, 32, 48, 64)
_DATA_OF_ALIGNMENT = ("noise", "smooth", "classes")
_SPARE = 16
_SHARE = 0.25
"""Share of the time for each of the first questions: which data, and which alignment."""
_SIZES = ((192, 128), (160, 224))
_MOST_DENOMINATOR = 64
_OF_THE_DATA = (AlgorithmFailed, ContractBroken, InvalidInput, NothingValid)
"""Errors that other data need not have."""


class _TimeEnded(Exception):  # control flow: the measurement ends with what it has
    """The time of a measurement is over."""


class Call(Protocol):
    """Calls the process."""

    def __call__(self, images: Images, *, window: Window, scene: Size) -> Images:
        """Return output name -> image (band, row, col).

        Args:
            images: Input name -> image (band, row, col), all of one size.
            window: The place of the images in a scene.
            scene: Rows and columns of that scene.
        """


@dataclass
class Effort:
    """How much to measure.

    Attributes:
        limit: Largest margin to look for, pixels.
        turns: Repetitions with other random numbers.
        seconds: Time after which no further experiment starts.
        on_step: Called after each step with the number of steps so far and of all.
    """

    limit: int = 64
    turns: int = 4
    seconds: float = 30.0
    on_step: Callable[[int, int], None] = lambda _done, _all: None


@dataclass
class Measured:
    """What was found about a process.

    Attributes:
        limit: Largest margin that could be seen.
        is_random: Whether two equal calls gave different outputs.
        scales: Output -> output pixels per input pixel; None if its size is no ratio of the
            input's size.
        align: Smallest multiple at which windows must start and end; None if none was found.
        profiles: Input, output and side -> differences; input "" for cuts of all inputs.
        data: Kinds of data that were used.
        refused: Kind of data -> the error of the process.
        calls: Number of calls.
        is_complete: Whether every experiment was made before the time ended.
        size: Rows and columns of the images.
    """

    limit: int
    is_random: bool = False
    scales: dict[str, Scale | None] = field(default_factory=dict)
    align: int | None = None
    profiles: Profiles = field(default_factory=dict)
    data: list[str] = field(default_factory=list)
    refused: dict[str, PestoError] = field(default_factory=dict)
    calls: int = 0
    is_complete: bool = True
    size: Size = (0, 0)


def measure(
    call: Call,
    images: TestImages,
    *,
    effort: Effort | None = None,
    exactness: Tolerance | None = None,
) -> Measured:
    """Measure a process.

    Args:
        call: The process.
        images: The images to call it on.
        effort: How much to measure.
        exactness: The differences that its contract permits; None for bitwise.

    Raises:
        PestoError: the process failed on all data, or for a reason other than the data.
    """
    effort = effort or Effort()
    run = _Measuring(call, images, effort, exactness, Measured(effort.limit))
    run.repeat()
    if run.found.is_random:
        return run.found
    run.find_scales()
    if all(run.found.scales.values()):
        run.find_alignment()
        run.find_reaches()
    return run.found


@dataclass
class _Measuring:
    """One measurement while it runs."""

    process: Call
    images: TestImages
    effort: Effort
    exactness: Tolerance | None
    found: Measured
    started: float = field(default_factory=time.monotonic)
    outputs: tuple[str, ...] = ()
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.images.seed)

    def call(self, images: Images, window: Window | None = None, scene: Size | None = None
             ) -> Images:  # fmt: skip
        """Call the process on a window of a scene; on a whole scene by default."""
        if self.has_spent(1) and self.found.size != (0, 0):
            raise _TimeEnded
        self.found.calls += 1
        rows, cols = next(iter(images.values())).shape[1:]
        outputs = self.process(
            images, window=window or Window(0, 0, cols, rows), scene=scene or (rows, cols)
        )
        self.outputs = self.outputs or tuple(outputs)
        if tuple(outputs) != self.outputs:
            raise ContractBroken(f"returns images {tuple(outputs)}, for other data {self.outputs}")
        return outputs

    def has_spent(self, share: float) -> bool:
        """Whether a share of the time is over."""
        return time.monotonic() - self.started > share * self.effort.seconds

    def size(self, align: int) -> Size:
        """Return a size on whose both halves a reach over the limit shows."""
        side = 2 * (self.effort.limit + _SPARE + align)
        return side, side

    def repeat(self) -> None:
        """Find out which data the process accepts, and whether it repeats its outputs."""
        for kind in self.images.kinds:
            images = self.images.images(kind, 0, _SIZES[0])
            if self.found.data and self.has_spent(_SHARE):
                break
            try:
                first, second = self.call(images), self.call(images)
            except _OF_THE_DATA as error:
                self.found.refused[kind] = error
                continue
            self.found.data.append(kind)
            if any(_differ(first[name], second[name]) for name in first):
                self.found.is_random = True
                return
        if not self.found.data:
            raise next(iter(self.found.refused.values()))

    def find_scales(self) -> None:
        """Find output pixels per input pixel, from the sizes of the outputs for two sizes."""
        kind = self.found.data[0]
        shapes = [
            {name: image.shape for name, image in self.call(self.images.images(kind, 0, s)).items()}
            for s in _SIZES
        ]
        for name in shapes[0]:
            y, x = (
                _ratio([(size[axis], shape[name][axis + 1]) for size, shape in
                        zip(_SIZES, shapes, strict=True)])
                for axis in (0, 1)
            )  # fmt: skip
            self.found.scales[name] = Scale(x, y) if x and y else None

    def find_alignment(self) -> None:
        """Find the smallest multiple at which windows may start and end."""
        ratios = [each for scale in self._scales.values() for each in (scale.x, scale.y)]
        least = math.lcm(*(ratio.denominator for ratio in ratios))
        kinds = [kind for kind in _DATA_OF_ALIGNMENT if kind in self.found.data]
        for align in _ALIGNMENTS:
            if align % least == 0 and all(
                self._fits(kind, align)
                for number, kind in enumerate(kinds or self.found.data[:1])
                if not (number and self.has_spent(2 * _SHARE))
            ):
                self.found.align = align
                return

    def find_reaches(self) -> None:
        """Find how far outputs look, on all data."""
        align = self.found.align or 1
        self.found.size = self.size(align)
        steps = [(turn, kind) for turn in range(self.effort.turns) for kind in self.found.data]
        for number, (turn, kind) in enumerate(steps):
            base = self.images.images(kind, turn, self.found.size)
            try:
                whole = self.call(base)
                self._cut(base, whole, kind=kind, align=align)
                for partner in self._partners(kind, turn):
                    others = self.images.images(partner, turn + 1, self.found.size)
                    self._replace(base, whole, others, kind=kind, align=align)
            except _TimeEnded:
                self.found.is_complete = False
                return
            except _OF_THE_DATA as error:
                self.found.refused[kind] = error
            self.effort.on_step(number + 1, len(steps))

    def _fits(self, kind: str, align: int) -> bool:
        """Whether windows at multiples give the outputs of the whole, beyond the limit.

        One multiple is enough: a window of a window shows the others, and `_cut` tries them later.
        """
        size = self.size(align)
        images = self.images.images(kind, 0, size)
        whole = self.call(images)
        for side in SIDES:
            boundary = _boundary(side, size[0], align, align)
            profiles: Profiles = {}
            if not self._compare_cut(images, whole, side, boundary, profiles, kind) or any(
                each.loose_reach() > self.effort.limit for each in profiles.values()
            ):
                return False
        return True

    def _compare_cut(
        self, images: Images, whole: Images, side: Side, boundary: int, into: Profiles, kind: str
    ) -> bool:
        """Compare a window with the whole; False if an output has another size than the whole's."""
        scene = self.size_of(images)
        window = kept(side, boundary, scene)
        outputs = self.call(_windows(images, window), window, scene)
        for name, output in outputs.items():
            scale = self._scales[name]
            ratio = ratio_of(scale, side)
            first = int(boundary * ratio) if side in ("top", "left") else 0
            rows, cols = window.slices
            place = (_scaled(rows, scale.y), _scaled(cols, scale.x))
            expected = whole[name][:, place[0], place[1]]
            if output.shape != expected.shape:
                return False
            difference = Difference.of(output, expected, self.exactness, whole=whole[name])
            _add(into, (WINDOW, name, side), difference, boundary, first, ratio, kind)
        return True

    def _cut(self, base: Images, whole: Images, *, kind: str, align: int) -> None:
        most = max(1, self.effort.limit // align)
        for side in SIDES:
            for step in (align, align * int(self.rng.integers(1, most, endpoint=True))):
                boundary = _boundary(side, self.found.size[0], step, align)
                self._compare_cut(base, whole, side, boundary, self.found.profiles, kind)

    def _replace(self, base: Images, whole: Images, others: Images, *, kind: str, align: int
                 ) -> None:  # fmt: skip
        for name in base:
            for side in SIDES:
                boundary = self._middle(align)
                changed = others[name].copy()
                rows, cols = kept(side, boundary, self.found.size).slices
                changed[:, rows, cols] = base[name][:, rows, cols]
                for output, image in self.call({**base, name: changed}).items():
                    difference = Difference.of(image, whole[output], self.exactness)
                    ratio = ratio_of(self._scales[output], side)
                    key = (name, output, side)
                    _add(self.found.profiles, key, difference, boundary, 0, ratio, kind)

    def _partners(self, kind: str, turn: int) -> Iterator[str]:
        """Yield two other kinds of data, others in each turn."""
        kinds = self.found.data
        for step in (1 + 2 * turn, 2 + 2 * turn):
            yield kinds[(kinds.index(kind) + step) % len(kinds)]

    def _middle(self, align: int) -> int:
        """Return a multiple near the middle."""
        jitter = int(self.rng.integers(-_SPARE // 2, _SPARE // 2, endpoint=True))
        return (self.found.size[0] // 2 + jitter) // align * align

    @property
    def _scales(self) -> dict[str, Scale]:
        return {name: scale for name, scale in self.found.scales.items() if scale is not None}

    @staticmethod
    def size_of(images: Images) -> Size:
        """Return rows and columns of the images."""
        rows, cols = next(iter(images.values())).shape[1:]
        return rows, cols


def _add(
    profiles: Profiles, key: tuple[str, str, Side], difference: Difference,
    boundary: int, first: int, ratio: Fraction, kind: str,
) -> None:  # fmt: skip
    profile = profiles.setdefault(key, Profile())
    absolute, excess = difference.lines(key[2])
    where = distances(key[2], boundary, absolute.size, first=first, ratio=ratio)
    profile.add(where, absolute, excess, kind)


def _boundary(side: Side, length: int, step: int, align: int) -> int:
    """Return the boundary that is `step` pixels or more from the edge."""
    return step if side in ("top", "left") else (length - step) // align * align


def _windows(images: Images, window: Window) -> dict[str, np.ndarray]:
    rows, cols = window.slices
    return {name: np.ascontiguousarray(image[:, rows, cols]) for name, image in images.items()}


def _scaled(part: slice, ratio: Fraction) -> slice:
    return slice(int(part.start * ratio), int(part.stop * ratio))


def _ratio(lengths: list[tuple[int, int]]) -> Fraction | None:
    """Return the simplest ratio that gives every (input, output) length; None if there is none."""
    for denominator in range(1, _MOST_DENOMINATOR + 1):
        length, made = lengths[0]
        numerator = -(-made * denominator // length)
        if numerator and all(n * numerator // denominator == m for n, m in lengths):
            return Fraction(numerator, denominator)
    return None


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape != b.shape or not Difference.of(a, b, None).is_none
