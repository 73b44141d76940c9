"""Values on their way in and out of an author's code: arrays made safe, the rest made JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from pydantic_core import PydanticSerializationError, to_jsonable_python

from pesto_runtime.errors import BadField, ContractBroken, InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from pesto_runtime.contract import RasterContract


def encode_value(name: str, value: object) -> JsonValue:
    """Turn an output into plain JSON: numpy scalars and arrays, dataclasses, models, dates.

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


def _from_numpy(value: object) -> object:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {shortened(value)}")


def _finite(pointer: str, value: object) -> JsonValue:
    if isinstance(value, dict):
        return {str(key): _finite(f"{pointer}/{key}", each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(f"{pointer}/{index}", each) for index, each in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ContractBroken(f"output {pointer!r} is {value}, which JSON cannot carry")
        return float(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise ContractBroken(f"output {pointer!r} is a {type(value).__name__}, which is not JSON")


def read_only(pixels: np.ndarray) -> np.ndarray:
    """The same pixels, C-contiguous and not writeable; the caller's array stays as it is."""
    view = np.ascontiguousarray(pixels).view()
    view.flags.writeable = False
    return view


def image_faults(
    pointer: str, value: object, contract: RasterContract | None
) -> Iterator[BadField]:
    """Everything wrong with an input image (band, row, col): axes, size, dtype, bands."""
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
    if contract.dtype and value.dtype.name not in contract.dtype:
        yield BadField(pointer, f"must be {' or '.join(contract.dtype)}, not {value.dtype.name}")
    if contract.band_count not in (None, value.shape[0]):
        names = f" ({', '.join(contract.band_names)})" if contract.band_names else ""
        yield BadField(pointer, f"must have {contract.band_count} bands{names}, "
                       f"not {value.shape[0]}")  # fmt: skip


def output_image(name: str, value: object) -> np.ndarray:
    """An output image as (band, row, col); a 2-D one becomes one band.

    Raises:
        ContractBroken: not an array, or not of 2 or 3 axes.
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
    """A list of output images.

    Raises:
        ContractBroken: not a list or tuple of images.
    """
    if not isinstance(value, (list, tuple)):
        raise ContractBroken(f"output {name!r} must be a list of arrays, not {shortened(value)}")
    return [output_image(f"{name}/{index}", each) for index, each in enumerate(value)]


def refused_inputs(name: str, faults: list[BadField]) -> None:
    """Raise every fault of a call at once.

    Raises:
        InvalidInput: there is a fault.
    """
    if faults:
        raise InvalidInput.of(f"input of {name!r}", faults)
