"""Partials of a reduce: how they fold, and how they travel.

A fold goes from left to right in row-major order of the blocks, from the first partial: there is
no zero to start from, so no float changes with the tiling.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING, Literal

import numpy as np

from pesto_runtime.errors import ContractBroken, InvalidInput, shortened
from pesto_runtime.processor.values import encode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Fold

FOLDS: tuple[Fold, ...] = ("sum", "min", "max", "concat")


def encode_partial(partial: Mapping[str, object]) -> dict[str, JsonValue]:
    """Write a partial as JSON: an array becomes `{"npy": base64 of a .npy file}`.

    Raises:
        ContractBroken: a value is neither JSON nor an array of numbers, or is not finite.
    """
    return {
        key: _encode_array(key, value)
        if isinstance(value, np.ndarray)
        else encode_value(key, value)
        for key, value in partial.items()
    }


def decode_partial(document: Mapping[str, JsonValue]) -> dict[str, object]:
    """Read a partial back; lossless for arrays, numbers and lists.

    Raises:
        InvalidInput: an array is not a .npy file in base64.
    """
    return {
        key: _decode_array(key, value["npy"])
        if isinstance(value, dict) and set(value) == {"npy"}
        else value
        for key, value in document.items()
    }


def fold(
    first: Mapping[str, object], second: Mapping[str, object], folds: Mapping[str, Fold]
) -> dict[str, object]:
    """Fold two partials, `first` being before `second` in row-major order.

    A null or absent key is skipped; `sum`, `min` and `max` work on numbers, lists of numbers and
    arrays, element by element; `concat` joins lists, and arrays along their first axis.

    Raises:
        ContractBroken: two values of a key do not fit together; names the key.

    >>> fold({"n": 1, "top": None}, {"n": 2, "top": 7}, {"n": "sum", "top": "max"})
    {'n': 3, 'top': 7}
    """
    merged: dict[str, object] = {}
    for key, how in folds.items():
        left, right = first.get(key), second.get(key)
        if left is None or right is None:
            merged[key] = right if left is None else left
        else:
            merged[key] = _folded(key, left, right, how)
    return merged


def is_empty(partial: Mapping[str, object], folds: Mapping[str, Fold]) -> bool:
    """Whether no key of the partial holds anything."""
    return all(partial.get(key) is None for key in folds)


def _folded(key: str, left: object, right: object, how: Fold) -> object:
    if how == "concat":
        return _joined(key, left, right)
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return _folded_arrays(key, left, right, how)
    if isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            raise ContractBroken(f"partial {key!r}: lists of {len(left)} and {len(right)} numbers")
        return [_folded(key, a, b, how) for a, b in zip(left, right, strict=True)]
    if not (_is_number(left) and _is_number(right)):
        raise ContractBroken(
            f"partial {key!r}: {how} of {shortened(left)} and {shortened(right)}; "
            "both must be numbers, lists of numbers or arrays"
        )
    return _NUMBERS[how](left, right)


def _folded_arrays(key: str, left: object, right: object, how: Literal["sum", "min", "max"]
                   ) -> np.ndarray:  # fmt: skip
    a, b = np.asarray(left), np.asarray(right)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ContractBroken(
            f"partial {key!r}: arrays {a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)} differ"
        )
    return np.asarray({"sum": np.add, "min": np.minimum, "max": np.maximum}[how](a, b))


def _joined(key: str, left: object, right: object) -> object:
    if isinstance(left, list) and isinstance(right, list):
        return [*left, *right]
    if (
        isinstance(left, np.ndarray)
        and isinstance(right, np.ndarray)
        and left.dtype == right.dtype
        and left.ndim == right.ndim >= 1
        and left.shape[1:] == right.shape[1:]
    ):
        return np.concatenate([left, right])
    raise ContractBroken(
        f"partial {key!r}: concat of {shortened(left)} and {shortened(right)}; both must be lists, "
        "or arrays of one dtype that differ in their first axis only"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _sum(left: float, right: float) -> float:
    return left + right


_NUMBERS: dict[str, Callable[..., object]] = {"sum": _sum, "min": min, "max": max}


def _encode_array(key: str, value: np.ndarray) -> dict[str, JsonValue]:
    if value.dtype.hasobject:
        raise ContractBroken(f"partial {key!r} is an array of objects; use numbers")
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=False)
    return {"npy": base64.b64encode(buffer.getvalue()).decode("ascii")}


def _decode_array(key: str, text: JsonValue) -> np.ndarray:
    try:
        data = base64.b64decode(str(text), validate=True)
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (binascii.Error, ValueError, EOFError, OSError) as error:
        raise InvalidInput(f"partial {key!r} is no .npy file in base64: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InvalidInput(f"partial {key!r} is an .npz archive; one .npy array is wanted")
    return array
