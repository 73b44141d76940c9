"""Read the facts of scenes, those of GeoTIFFs with an equal header from the header alone.

Opening a file with GDAL takes ten times as long as reading the fields of its header, and the scenes
of a campaign differ in their place and their blocks alone. The facts of the first file of a kind
are those that GDAL reads.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.contract import ImageReference
from pesto_runtime.contract.band_files import stacked_bands
from pesto_runtime.errors import StoreFailed
from pesto_runtime.raster.identity import identity_of, local_path
from pesto_runtime.raster.image import shifted
from pesto_runtime.raster.read import read_scene
from pesto_runtime.raster.side_files import side_files
from pesto_runtime.raster.tiff_directory import read_directories

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_runtime.contract import Scene
    from pesto_runtime.contract.geometry import Transform
    from pesto_runtime.raster.tiff_directory import Directory

    Header: TypeAlias = tuple[object, Transform | None]

_HEAD_BYTES = 16 << 10
_MOST_KINDS = 64
_MAGIC = (b"II*\0", b"II+\0")
_BLOCKS = {273, 279, 324, 325}
"""Tags of the places and sizes of blocks."""
_POINTERS = {330, 34665, 34853, 40965}
"""Tags of further directories, which are not read here: then GDAL reads the file."""
_PIXEL_SIZE, _TIE_POINT = 33550, 33922

_known: OrderedDict[object, Scene | None] = OrderedDict()
_lock = threading.Lock()


def scene_of_image(image: str | ImageReference) -> Scene:
    """Read the facts and the identity of a raster, as `read_scene` does.

    Raises:
        InvalidInput: a band or the window of the reference does not exist.
        RasterUnreadable: the file is missing, empty, corrupt, or in another format or dtype.
    """
    reference = ImageReference(href=image) if isinstance(image, str) else image
    path = None if stacked_bands(reference.href) else local_path(reference.href)
    if path is None:
        return read_scene(image)
    beside = side_files(path)
    # As in `read_scene`, before the file is read: one that is replaced has another identity.
    identity = identity_of(reference.href, beside)
    header = None if beside else _header(path)
    if header is None:
        return read_scene(image)
    kind = (header[0], repr((reference.bands, reference.window)))
    with _lock:
        template = _known.get(kind)
        is_known = kind in _known
    if template is not None:
        placed = _placed(reference, header[1]) or template.transform
        facts = {"href": reference.href, "identity": identity, "transform": placed}
        return template.model_copy(update=facts)
    scene = read_scene(image)
    # A file that was replaced after its header was read has the facts of another one.
    if not is_known and identity_of(reference.href) == identity:
        _remember(kind, scene, _placed(reference, header[1]))
    return scene


def _remember(kind: object, scene: Scene, placed: Transform | None) -> None:
    """Let other files of a kind have these facts, if the place is the one that GDAL finds."""
    is_placed = placed is None or placed == scene.transform
    with _lock:
        _known[kind] = scene if is_placed else None
        if len(_known) > _MOST_KINDS:
            _known.popitem(last=False)


def _placed(reference: ImageReference, transform: Transform | None) -> Transform | None:
    """Return the transform of the part of a raster that is used; None if it is in no field."""
    if transform is None or reference.window is None:
        return transform
    return shifted(transform, *reference.window[:2])


def _header(path: Path) -> Header | None:
    """Return all fields but those that differ from scene to scene, and the transform.

    None for another format, or fields beyond the first 16 KiB.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_HEAD_BYTES)
        directories = read_directories(data) if data[:4] in _MAGIC else []
    except (OSError, struct.error, StoreFailed, IndexError):
        return None
    if not directories or not all(map(_is_whole, directories)):
        return None
    first = directories[0]
    transform = _transform(first)
    fields = tuple(
        (number, tag, field.kind, field.count, b"" if tag in _BLOCKS else field.data)
        for number, directory in enumerate(directories)
        for tag, field in directory.items()
        if not (transform and number == 0 and tag == _TIE_POINT)
    )
    return fields, transform


def _is_whole(directory: Directory) -> bool:
    """Whether all values of the fields were read, and there are no further directories."""
    return not _POINTERS & directory.keys() and all(
        tag in _BLOCKS or len(field.data) == field.size for tag, field in directory.items()
    )


def _transform(directory: Directory) -> Transform | None:
    """Return the transform of a pixel size and a single tie point at the first pixel."""
    size, tie = directory.get(_PIXEL_SIZE), directory.get(_TIE_POINT)
    if size is None or tie is None or (size.size, tie.size) != (24, 48):
        return None
    across, down, _ = struct.unpack("<3d", size.data)
    col, row, _, x, y, _ = struct.unpack("<6d", tie.data)
    return (across, 0.0, x, 0.0, -down, y) if col == row == 0 else None
