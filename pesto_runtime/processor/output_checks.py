"""Check the outputs of a call against the contract of its process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import Scale
from pesto_runtime.errors import BadField, ContractBroken
from pesto_runtime.raster.image import dtype_name
from pesto_runtime.tiling import scaled_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pesto_runtime.contract import Description, Port


def check_outputs(
    description: Description, inputs: Mapping[str, object], outputs: Mapping[str, object]
) -> None:
    """Check outputs against the contract: presence, dtype, bands, and the shape for a map.

    Outputs that are not in the description are ignored.

    Args:
        description: The contract.
        inputs: The inputs of the call; arrays are (band, row, col), margin included.
        outputs: The outputs of the call.

    Raises:
        ContractBroken: outputs break the contract; the error lists the expected and actual
            properties of each.
    """
    window = _window(description, inputs) if description.tileable == "map" else None
    faults: list[BadField] = []
    for port in description.outputs:
        value = outputs.get(port.name)
        if port.name not in outputs or (value is None and port.kind == "image"):
            if port.required or port.raster is not None:
                faults.append(BadField(f"/{port.name}", "is missing"))
        elif port.kind == "image":
            faults.extend(_image_faults(port, value, window))
        elif port.kind == "images":
            faults.extend(_images_faults(port, value))
    if faults:
        listed = "; ".join(f"output {each.pointer[1:]!r} {each.detail}" for each in faults[:3])
        raise ContractBroken(f"{description.name}: {listed}", fields=faults)


def _window(description: Description, inputs: Mapping[str, object]) -> tuple[int, int] | None:
    """Return height and width of the window that a map process received, in its first image."""
    for port in (*description.image_inputs, *description.lists):
        pixels = inputs.get(port.name)
        pixels = pixels[0] if isinstance(pixels, (list, tuple)) and pixels else pixels
        if isinstance(pixels, np.ndarray) and pixels.ndim >= 2:
            size = (pixels.shape[-1], pixels.shape[-2])
            return scaled_size(size, Scale() / description.ratio(port.name))[::-1]
    return None


def _image_faults(port: Port, value: object, window: tuple[int, int] | None) -> Iterator[BadField]:
    pointer = f"/{port.name}"
    if not isinstance(value, np.ndarray) or value.ndim != 3:
        shape = list(value.shape) if isinstance(value, np.ndarray) else None
        actual = f"shape {shape}" if shape is not None else type(value).__name__
        yield BadField(pointer, f"must be an array (band, row, col), got {actual}")
        return
    yield from _band_faults(port, pointer, value)
    if window is not None:
        expected = _scaled(port, window)
        if value.shape[1:] != expected:
            yield BadField(
                pointer,
                f"must have {expected[0]} rows and {expected[1]} columns, margin included, got "
                f"{value.shape[1]} and {value.shape[2]}: a map returns the whole window",
            )


def _images_faults(port: Port, value: object) -> Iterator[BadField]:
    if not isinstance(value, (list, tuple)):
        yield BadField(f"/{port.name}", f"must be a list of arrays, got {type(value).__name__}")
        return
    for index, each in enumerate(value):
        pointer = f"/{port.name}/{index}"
        if isinstance(each, np.ndarray) and each.ndim == 3:
            yield from _band_faults(port, pointer, each)
        else:
            yield BadField(pointer, f"must be an array (band, row, col), got {type(each).__name__}")


def _band_faults(port: Port, pointer: str, value: np.ndarray) -> Iterator[BadField]:
    raster = port.raster
    if raster is None:
        return
    if raster.dtype and dtype_name(value.dtype) not in raster.dtype:
        yield BadField(pointer, f"must be {' or '.join(raster.dtype)}, got {value.dtype.name}")
    if raster.band_count not in (None, value.shape[0]):
        yield BadField(pointer, f"must have {raster.band_count} bands, got {value.shape[0]}")


def _scaled(port: Port, window: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the output, without an incomplete pixel at the far edge."""
    if port.raster is None:
        return window
    return scaled_size(window[::-1], port.raster.scale)[::-1]
