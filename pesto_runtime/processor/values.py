"""Convert values between arrays and JSON, check images, and fold the partials of a reduce.

A fold goes from left to right in row-major order of the blocks, and starts with the first partial
and not with zero: so no float depends on the tiling.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic_core import PydanticSerializationError, to_jsonable_python

from pesto_runtime.errors import BadField, ContractBroken, InvalidInput, shortened
from pesto_runtime.raster.image import dtype_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Fold, RasterContract


def encode_value(name: str, value: object) -> JsonValue:
    """Convert an output to plain JSON: numpy scalars and arrays, dataclasses, models, dates.

    Raises:
        ContractBroken: a number is not finite, or the value has no JSON form; names the output.

    >>> encode_value("mean", np.float32(1.5))
    1.5
    """
    try:
        plain = to_jsonable_python(value, fallback=_from_numpy, inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError, TypeError) as error:
        raise ContractBroken(f"output {name!r} has no JSON form: {error}") from error
    return _finite(name, plain)


_EXACT = frozenset((bool, int, str, type(None)))
"""Types that are JSON as they are: long lists of them are not walked."""


def _from_numpy(value: object) -> object:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {shortened(value)}")


def _finite(pointer: str, value: object) -> JsonValue:
    if isinstance(value, dict):
        return {str(key): _finite(f"{pointer}/{key}", each) for key, each in value.items()}
    if isinstance(value, list):
        kinds = set(map(type, value))
        if kinds <= _EXACT or (kinds == {float} and all(map(math.isfinite, value))):
            return value
        return [_finite(f"{pointer}/{index}", each) for index, each in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ContractBroken(f"output {pointer!r} is {value}, which JSON cannot represent")
        return float(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise ContractBroken(f"output {pointer!r} is a {type(value).__name__}, which is not JSON")


def read_only(pixels: np.ndarray) -> np.ndarray:
    """Return the same pixels, C-contiguous and read-only; the caller's array is not changed."""
    view = np.ascontiguousarray(pixels).view()
    view.flags.writeable = False
    return view


def received_mask(mask: np.ndarray, contract: RasterContract | None) -> np.ndarray:
    """Return a mask (band, row, col) as a process receives it: bool (row, col), or per band."""
    marks = np.asarray(mask != 0)
    return marks if contract is not None and contract.per_band else marks[0]


def image_faults(
    pointer: str, value: object, contract: RasterContract | None
) -> Iterator[BadField]:
    """Yield the errors of an input image (band, row, col): axes, size, dtype, bands."""
    if not isinstance(value, np.ndarray):
        kind = type(value).__name__
        yield BadField(pointer, f"must be an array (band, row, col), not {kind}", shortened(value))
        return
    if value.ndim != 3 or 0 in value.shape:
        shape = list(value.shape)
        yield BadField(pointer, f"must have shape (band, row, col), each >= 1, not {shape}")
        return
    if contract is None:
        return
    dtypes = contract.received_dtype
    if dtypes and dtype_name(value.dtype) not in dtypes:
        yield BadField(pointer, f"must be {' or '.join(dtypes)}, not {value.dtype.name}")
    if contract.band_count not in (None, value.shape[0]):
        names = f" ({', '.join(contract.band_names)})" if contract.band_names else ""
        yield BadField(pointer, f"must have {contract.band_count} bands{names}, "
                       f"not {value.shape[0]}")  # fmt: skip


def output_image(name: str, value: object) -> np.ndarray:
    """Return an output image as (band, row, col); a 2-D array becomes one band.

    Raises:
        ContractBroken: it is not an array, or does not have 2 or 3 axes.
    """
    if not isinstance(value, np.ndarray):
        raise ContractBroken(f"output {name!r} must be an array, not {type(value).__name__}")
    if value.ndim == 2:
        return value[np.newaxis]
    if value.ndim != 3:
        raise ContractBroken(
            f"output {name!r} must have shape (band, row, col) or (row, col), "
            f"not {list(value.shape)}"
        )
    return value


def output_images(name: str, value: object) -> list[np.ndarray]:
    """Return a list of output images, each (band, row, col).

    Raises:
        ContractBroken: it is not a list or tuple of images.
    """
    if not isinstance(value, (list, tuple)):
        raise ContractBroken(f"output {name!r} must be a list of arrays, not {shortened(value)}")
    return [output_image(f"{name}/{index}", each) for index, each in enumerate(value)]


def require_no_faults(name: str, faults: list[BadField]) -> None:
    """Do nothing if a call has no faults.

    Raises:
        InvalidInput: it has; the error lists all of them.
    """
    if faults:
        raise InvalidInput.of(f"input of {name!r}", faults)


FOLDS: tuple[Fold, ...] = ("sum", "min", "max", "concat")


def encode_partial(partial: Mapping[str, object]) -> dict[str, JsonValue]:
    """Convert a partial to JSON: an array becomes `{"npy": base64 of a .npy file}`.

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
    """Convert a partial from JSON; lossless for arrays, numbers and lists.

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
    """Fold two partials; `first` is before `second` in row-major order.

    A null or absent key is skipped; `sum`, `min` and `max` work on numbers, lists of numbers and
    arrays, element by element; `concat` joins lists, and arrays along their first axis.

    Raises:
        ContractBroken: two values of a key cannot be folded; names the key.

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
    """Return whether all keys of the partial are null or absent."""
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
    # numpy would broadcast and promote: a partial of another shape or dtype would go unnoticed.
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


def plain_array(key: str, value: np.ndarray) -> np.ndarray:
    """Return an array of a partial.

    Raises:
        ContractBroken: its elements are Python objects.
    """
    if value.dtype.hasobject:
        raise ContractBroken(f"partial {key!r} is an array of objects; use numbers")
    return value


def _encode_array(key: str, value: np.ndarray) -> dict[str, JsonValue]:
    buffer = io.BytesIO()
    np.save(buffer, plain_array(key, value), allow_pickle=False)
    return {"npy": base64.b64encode(buffer.getvalue()).decode("ascii")}


def _decode_array(key: str, text: JsonValue) -> np.ndarray:
    try:
        # Without validate, other characters are skipped; a pickle could run code when it is loaded.
        data = base64.b64decode(str(text), validate=True)
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (binascii.Error, ValueError, EOFError, OSError) as error:
        raise InvalidInput(f"partial {key!r} is not a .npy file in base64: {error}") from error
    if not isinstance(array, np.ndarray):
        raise InvalidInput(f"partial {key!r} is an .npz archive; one .npy array is required")
    return array


def named_part(value: object, schema: object) -> object:
    """Return a value without the keys that the schema does not name, at every depth.

    >>> schema = {"type": "object", "properties": {"a": {"type": "number"}}}
    >>> named_part({"a": 1, "b": 2}, schema)
    {'a': 1}
    >>> named_part({"a": 1, "b": 2}, {"type": "object"})
    {'a': 1, 'b': 2}
    """
    if not isinstance(schema, dict):
        return value
    if isinstance(value, list):
        return [named_part(each, schema.get("items")) for each in value]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return value
    is_open = "additionalProperties" in schema or "patternProperties" in schema
    return {
        key: named_part(each, properties.get(key))
        for key, each in value.items()
        if is_open or key in properties
    }
