"""One call of a process on whole images, outside any pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import BadField, InvalidInput, StoreFailed
from pesto_runtime.hrefs import file_href, looks_like_href
from pesto_runtime.processor import encode_value
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.raster.read import read_image
from pesto_runtime.run.callers import caller_for, close_callers
from pesto_runtime.run.features import whole_collection
from pesto_runtime.run.services import find

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port

_TIFF, _PNG = "image/tiff", "image/png"


def call_once(
    target: str | Sequence[str],
    given: Mapping[str, str],
    *,
    keep: Mapping[str, Path],
    stays_open: bool = False,
) -> dict[str, JsonValue]:
    """Call a target or a service.

    Args:
        target: A target, a service's URL, or those of its replicas.
        given: Input name -> text: path or href of an image, JSON for all else, or a plain string.
        keep: Output name -> file to write it to: a GeoTIFF, a `.png`, a vector's `.geojson` in the
            CRS of the first image, or JSON as it was answered.
        stays_open: Whether connections are kept for the next call, until `close_callers`.

    Returns:
        JSON outputs by name; for those that were written, the path.

    Raises:
        InvalidInput: an input or output that the process does not have, or an image without a path.
        PestoError: the call failed; nothing is written then.
    """
    found = find((target,) if isinstance(target, str) else target)
    description = found.description
    _refuse_unknown(description, given, keep)
    images = {
        port.name: read_image(_href(given[port.name]), bands=_bands(port))
        for port in description.image_inputs
        if port.name in given
    }
    inputs: dict[str, object] = {
        name: images[name].pixels if name in images else _value(description.input(name), text)
        for name, text in given.items()
    }
    first = next(iter(images.values()), None)
    try:
        outputs = caller_for(found.service).run(inputs, tile=first.whole_tile if first else None)
    finally:
        if not stays_open:
            close_callers()
    return _kept(description, outputs, keep, first)


def _refuse_unknown(
    description: Description, given: Mapping[str, str], keep: Mapping[str, Path]
) -> None:
    inputs = {port.name for port in description.inputs}
    outputs = {port.name for port in description.outputs}
    faults = [
        BadField(
            f"/{side}/{name}", f"there is none; there are {', '.join(sorted(known)) or 'none'}"
        )
        for side, names, known in (("inputs", given, inputs), ("outputs", keep, outputs))
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


def _kept(
    description: Description,
    outputs: Mapping[str, object],
    keep: Mapping[str, Path],
    first: Image | None,
) -> dict[str, JsonValue]:
    told: dict[str, JsonValue] = {}
    files: dict[Path, bytes] = {}
    for port in description.outputs:
        value = outputs.get(port.name)
        path = keep.get(port.name)
        if isinstance(value, np.ndarray):
            if path is not None:
                files[path] = _encoded(port, value, first, path)
        elif value is not None and port.kind != "images":
            told[port.name] = encode_value(port.name, value)
            if path is not None:
                files[path] = _text(description, port, told[port.name], first, path).encode()
        if path is not None:
            told[port.name] = str(path)
    for path, data in files.items():
        _write(path, data)
    return told


def _text(
    description: Description, port: Port, value: JsonValue, first: Image | None, path: Path
) -> str:
    if port.kind == "vector" and path.suffix == ".geojson" and first is not None:
        return whole_collection(description, port, value, first)
    return json.dumps(value, indent=2)


def _encoded(port: Port, pixels: np.ndarray, first: Image | None, path: Path) -> bytes:
    names = port.raster.band_names if port.raster else None
    nodata = port.raster.nodata if port.raster else None
    same_grid = first is not None and first.pixels.shape[1:] == pixels.shape[1:]
    image = Image(
        pixels,
        crs=first.crs if first and same_grid else None,
        transform=first.transform if first and same_grid else None,
        nodata=nodata,
        bands=names or (),
        tags=dict(first.tags) if first and same_grid else {},
    )
    return encode_image(image, _PNG if path.suffix == ".png" else _TIFF)


def _href(text: str) -> str:
    return text if looks_like_href(text) else file_href(Path(text))


def _bands(port: Port) -> tuple[str, ...] | None:
    return port.raster.band_names if port.raster else None


def _value(port: Port | None, text: str) -> JsonValue:
    if port is not None and port.schema.get("type") == "string":
        return text
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error
