"""Measure whether the folded partials of a reduce are the same for every division of a raster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Window
from pesto_runtime.errors import AlgorithmFailed, ContractBroken, InvalidInput, NothingValid
from pesto_runtime.processor import decode_partial, encode_value, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Fold
    from pesto_runtime.errors import PestoError
    from pesto_runtime.probing.data import TestImages
    from pesto_runtime.probing.measuring import Images
    from pesto_runtime.probing.reach import Size

    Partial = Callable[..., Mapping[str, JsonValue]]
    Finish = Callable[[Mapping[str, object]], Mapping[str, object]]

_SIZE = (160, 192)
_DIVISIONS = ((64, 64), (160, 1), (7, 192), (53, 41))
"""Rows and columns of the parts: squares, columns, strips, parts that do not fit."""
_SAME = 1e-6
"""Relative difference of two floats that are sums of the same numbers in another order."""


@dataclass(frozen=True)
class Folded:
    """What was found about a reduce.

    Attributes:
        calls: Number of calls.
        data: Kinds of data that were used.
        refused: Kind of data -> the error of the process.
        fault: The first difference of outputs, in words; empty if there was none.
    """

    calls: int
    data: tuple[str, ...]
    refused: Mapping[str, PestoError]
    fault: str = ""


def measure_fold(
    partial: Partial, finish: Finish, folds: Mapping[str, Fold], images: TestImages
) -> Folded:
    """Compare the outputs of folded partials of divided images with those of the whole.

    Args:
        partial: Returns the partial of `(images, window=…, scene=…)` as JSON.
        finish: Returns the outputs of a folded partial.
        folds: Keys of the partial, and how each folds.
        images: The images to use.

    Raises:
        PestoError: the process failed on all data, or for a reason other than the data.
    """
    calls = 0
    refused: dict[str, PestoError] = {}
    used: list[str] = []
    for turn, kind in enumerate(images.kinds):
        made = images.images(kind, turn, _SIZE)
        try:
            whole = _plain(finish(_folded(partial, folds, made, _SIZE)))
            for division in _DIVISIONS:
                divided = _plain(finish(_folded(partial, folds, made, division)))
                calls += len(list(_windows(division)))
                where = _first_difference(whole, divided)
                if where:
                    rows, cols = division
                    text = f"{where} for parts of {rows} x {cols} pixels of data {kind!r}"
                    return Folded(calls, (*used, kind), refused, text)
        except (AlgorithmFailed, ContractBroken, InvalidInput, NothingValid) as error:
            refused[kind] = error
            continue
        used.append(kind)
    if not used:
        raise next(iter(refused.values()))
    return Folded(calls, tuple(used), refused)


def _windows(part: Size) -> Iterator[Window]:
    """Yield the parts of the image row-major, as a run folds blocks."""
    for row in range(0, _SIZE[0], part[0]):
        for col in range(0, _SIZE[1], part[1]):
            yield Window.spanning(
                col, row, min(col + part[1], _SIZE[1]), min(row + part[0], _SIZE[0])
            )


def _folded(partial: Partial, folds: Mapping[str, Fold], images: Images, part: Size
            ) -> Mapping[str, object]:  # fmt: skip
    folded: dict[str, object] | None = None
    for window in _windows(part):
        rows, cols = window.slices
        cut = {name: np.ascontiguousarray(image[:, rows, cols]) for name, image in images.items()}
        found = decode_partial(partial(cut, window=window, scene=_SIZE))
        folded = found if folded is None else fold(folded, found, folds)
    return folded or {}


def _plain(outputs: Mapping[str, object]) -> dict[str, JsonValue]:
    return {name: encode_value(name, value) for name, value in outputs.items()}


def _first_difference(whole: JsonValue, divided: JsonValue, where: str = "") -> str:
    """Return the place and the values of the first difference; empty if there is none."""
    if isinstance(whole, dict) and isinstance(divided, dict) and set(whole) == set(divided):
        pairs = [(f"{where}/{key}", whole[key], divided[key]) for key in whole]
    elif isinstance(whole, list) and isinstance(divided, list) and len(whole) == len(divided):
        pairs = [
            (f"{where}/{index}", *both)
            for index, both in enumerate(zip(whole, divided, strict=True))
        ]
    else:
        same = whole == divided or (
            isinstance(whole, float)
            and isinstance(divided, (int, float))
            and math.isclose(whole, divided, rel_tol=_SAME)
        )
        return "" if same else f"{where}: {whole!r} for the whole, {divided!r}"
    return next((text for pair in pairs if (text := _first_difference(*pair[1:], pair[0]))), "")
