"""Call a process once on whole images, outside a pipeline, and write its outputs to files.

Nothing is tiled or stored, and no plan is made.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import BadField, InvalidInput, StoreFailed, shortened
from pesto_runtime.hrefs import image_reference
from pesto_runtime.pipeline import FedPort, way_to_write
from pesto_runtime.processor import encode_value
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.inheritance import covers, output_image
from pesto_runtime.raster.read import read_for
from pesto_runtime.raster.validity import add_masks, named_images
from pesto_runtime.run.callers import caller_for, close_callers
from pesto_runtime.run.features import whole_collection
from pesto_runtime.run.output_files import json_text
from pesto_runtime.run.services import find
from pesto_runtime.schema import typed_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port
    from pesto_runtime.places import AnyPath
    from pesto_runtime.raster.image import Image

_TIFF, _PNG = "image/tiff", "image/png"


def call_once(
    target: str | Sequence[str],
    texts: Mapping[str, JsonValue],
    *,
    keep: Mapping[str, AnyPath],
    stays_open: bool = False,
) -> dict[str, JsonValue]:
    """Call a target or a service.

    Args:
        target: A target, a service's URL, or the URLs of its replicas.
        texts: Input name -> text: path or href of an image, JSON for other kinds, or a plain
            string; a list of images is a list of paths or hrefs.
        keep: Output name -> file or object for it: a GeoTIFF, a `.png`, a vector's `.geojson` in
            the CRS of the first image, or JSON as the process returns it.
        stays_open: Whether connections stay open for the next call, until `close_callers`.

    Returns:
        JSON outputs by name; for those in a file, the path.

    Raises:
        InvalidInput: the process does not have an input or output, or an image has no path.
        PestoError: the call failed; then no file is written.
    """
    found = find((target,) if isinstance(target, str) else target)
    description = found.description
    _refuse_unknown(description, texts, keep)
    values = _values(description, texts)
    images = {
        port.name: [_read(port, value) for value in _images(port, texts[port.name])]
        for port in description.inputs
        if port.name in texts and port.kind in ("image", "images")
    }
    inputs: dict[str, object] = {
        name: _pixels(description.input(name), images[name]) if name in images else values[name]
        for name in texts
    }
    inputs = add_masks(inputs, description, named_images(description, images))
    data = [several for name, several in images.items() if name not in description.masks]
    first = next((each[0] for each in data if each), None)
    try:
        outputs = caller_for(found.service).run(inputs, tile=first.whole_tile if first else None)
    finally:
        if not stays_open:
            close_callers()
    return _save(description, outputs, keep, first)


def _values(description: Description, texts: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the values of the inputs that are not images, by their schemas.

    Raises:
        InvalidInput: values do not fit; the error lists all of them.
    """
    ports = [port for port in description.inputs if port.kind in ("json", "vector")]
    values = {
        port.name: typed_value(description.schema_of(port), texts[port.name])
        for port in ports
        if port.name in texts
    }
    faults = [
        replace(fault, detail=f"{fault.detail}: {way_to_write(port.name, fault)}")
        for port in ports
        if port.name in values
        for fault in FedPort("", port, description).faults(values[port.name], f"/{port.name}")
    ]
    if faults:
        raise InvalidInput.of(f"inputs of {description.name!r}", faults)
    return values


def _images(port: Port, value: JsonValue) -> list[JsonValue]:
    """Return the paths or references of an image port: one, or for a list of images any number."""
    found = typed_value({"type": "array"}, value) if port.kind == "images" else [value]
    found = [found] if isinstance(found, str) and found else found
    if not isinstance(found, list):
        detail = f"must be a list of paths or hrefs of images, not {shortened(value)}"
        raise InvalidInput.of("inputs", [BadField(f"/inputs/{port.name}", detail)])
    return found


def _read(port: Port, value: JsonValue) -> Image:
    return read_for(image_reference(value), port.raster)


def _pixels(port: Port | None, images: list[Image]) -> object:
    arrays = [image.pixels for image in images]
    return arrays if port is not None and port.kind == "images" else arrays[0]


def _refuse_unknown(
    description: Description, texts: Mapping[str, JsonValue], keep: Mapping[str, AnyPath]
) -> None:
    inputs = {port.name for port in description.inputs}
    outputs = {port.name for port in description.outputs}
    faults = [
        BadField(
            f"/{side}/{name}", f"does not exist; there are {', '.join(sorted(known)) or 'none'}"
        )
        for side, names, known in (("inputs", texts, inputs), ("outputs", keep, outputs))
        for name in names
        if name not in known
    ]
    faults += [
        BadField(f"/outputs/{port.name}", f"is an image: write it by -o {port.name}=PATH")
        for port in description.outputs
        if port.kind == "image" and port.required and port.name not in keep
    ]
    faults += [
        BadField(f"/outputs/{name}", f"an image is written as .tif or .png, not {path.suffix!r}")
        for name, path in keep.items()
        if (port := description.output(name)) is not None
        and port.kind == "image"
        and path.suffix not in (".tif", ".tiff", ".png")
    ]
    if faults:
        raise InvalidInput.of(description.name, faults)


def _save(
    description: Description,
    outputs: Mapping[str, object],
    keep: Mapping[str, AnyPath],
    first: Image | None,
) -> dict[str, JsonValue]:
    """Write outputs to their files, and return JSON outputs and paths by name."""
    results: dict[str, JsonValue] = {}
    files: dict[AnyPath, bytes] = {}
    for port in description.outputs:
        value = outputs.get(port.name)
        path = keep.get(port.name)
        if isinstance(value, np.ndarray):
            if path is not None:
                files[path] = _encoded(port, value, first, path)
        elif value is not None and port.kind != "images":
            results[port.name] = encode_value(port.name, value)
            if path is not None:
                files[path] = _text(description, port, results[port.name], first, path).encode()
        if path is not None:
            results[port.name] = str(path)
    for path, data in files.items():
        _write(path, data)
    return results


def _text(
    description: Description, port: Port, value: JsonValue, first: Image | None, path: AnyPath
) -> str:
    if port.kind == "vector" and path.suffix == ".geojson" and first is not None:
        return whole_collection(description, port, value, first)
    return json_text(value)


def _encoded(port: Port, pixels: np.ndarray, first: Image | None, path: AnyPath) -> bytes:
    on_input = first is not None and covers(pixels, first.whole_tile, port.raster)
    image = output_image(pixels, port.raster, first, covers=on_input)
    return encode_image(image, _PNG if path.suffix == ".png" else _TIFF)


def _write(path: AnyPath, data: bytes) -> None:
    if not isinstance(path, Path):
        path.write_bytes(data)
        return
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error
