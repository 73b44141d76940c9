"""Read the facts of a raster together with those of the files beside it, as GDAL combines them.

A copy of the raster's facts without pixels is opened in memory beside copies of these files: GDAL
sees no other file, follows no reference to one, and decides itself which fact counts.
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4
from xml.etree import ElementTree as ET

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from pesto_runtime.errors import RasterUnreadable
from pesto_runtime.raster.block_codec import PLAIN_COLOURS
from pesto_runtime.raster.identity import local_path
from pesto_runtime.raster.metadata import (
    read_bands,
    read_georeference,
    write_bands,
    write_georeference,
)
from pesto_runtime.raster.opening import dtype_of
from pesto_runtime.raster.side_files import is_world_file, side_names
from pesto_runtime.remote import is_there

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from rasterio.io import DatasetReader

    from pesto_runtime.contract import Scene

_MOST_BYTES = 16 << 20
_SIDE = 4096  # of the blocks of a file without pixels: few, so that its header is small


def dataset_of_facts(
    dataset: DatasetReader, name: str, beside: Mapping[str, Path], stack: ExitStack
) -> DatasetReader:
    """Open a dataset that has the facts of a raster and of the files beside it, but no pixels.

    Args:
        dataset: The open raster.
        name: Name of its file.
        beside: Name -> path of the files beside it.
        stack: Closes the dataset.

    Raises:
        RasterUnreadable: a file cannot be read, or has more than 16 MiB.
    """
    stem = PurePosixPath(name).stem
    files = {f"{stem}.tif": _without_pixels(dataset)}
    for side, path in beside.items():
        files[_beside_tif(side, name, stem)] = _require_whole(side, name, _content(path))
    folder = str(uuid4())
    opened = [MemoryFile(data, dirname=folder, filename=each) for each, data in files.items()]
    for each in opened:
        stack.callback(each.close)
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="FALSE", GDAL_PAM_ENABLED="YES"):
            facts = rasterio.open(opened[0].name, driver="GTiff")
            stack.callback(facts.close)
            _ = facts.tags(), facts.rpcs  # GDAL reads some of the files when they are asked for
            return facts
    except RasterioError as error:
        raise RasterUnreadable(
            f"{', '.join(beside)} beside {name} cannot be read: {error}; correct or remove it"
        ) from error


def unread_files(scene: Scene) -> tuple[str, ...]:
    """Return the names of files beside a remote raster that may state its place: none is read.

    Each lookup is a request, so there is none for a raster that states its place itself.
    """
    url = urlsplit(scene.href)
    has_place = scene.crs is not None and scene.transform is not None
    if has_place or url.scheme == "stack" or url.query or url.fragment:
        return ()
    if local_path(scene.href) is not None:
        return ()
    folder, _, name = scene.href.rpartition("/")
    names = side_names(unquote(name))
    return tuple(each for each in names if is_there(f"{folder}/{quote(each)}"))


def _without_pixels(dataset: DatasetReader) -> bytes:
    dtype = dtype_of(dataset, dataset.name, [1])
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=dataset.width, height=dataset.height, count=dataset.count,
            dtype=dtype, nodata=dataset.nodata, sparse_ok=True, tiled=True, blockxsize=_SIDE,
            blockysize=_SIDE, bigtiff="YES", **PLAIN_COLOURS,
        ) as copy:  # fmt: skip
            write_georeference(copy, read_georeference(dataset))
            write_bands(copy, read_bands(dataset, dataset.indexes))
        return bytes(memory.getbuffer())


def _beside_tif(side: str, name: str, stem: str) -> str:
    """Return the name of a file beside `STEM.tif` in place of its name beside the raster."""
    if side == f"{name}.aux.xml":
        return f"{stem}.tif.aux.xml"
    return f"{stem}.tfw" if is_world_file(side, name) else side


def _require_whole(side: str, name: str, data: bytes) -> bytes:
    """Return the content of a side file that GDAL would ignore without a word if it were broken.

    Raises:
        RasterUnreadable: it is not XML, or not the six numbers of a world file.
    """
    try:
        if is_world_file(side, name):
            _require_world(data)
        elif side.lower().endswith(".xml"):
            ET.fromstring(data)  # noqa: S314  # expat limits the expansion of entities
    except (ValueError, ET.ParseError) as error:
        raise RasterUnreadable(
            f"{side} beside {name} cannot be read: {error}; correct or remove it"
        ) from error
    return data


def _require_world(data: bytes) -> None:
    numbers = [float(each) for each in data.decode("ascii").split()[:6]]
    if len(numbers) != 6 or not all(map(math.isfinite, numbers)) or not any(numbers[:4]):
        raise ValueError("a world file has six finite numbers, and a pixel has a size")


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RasterUnreadable(f"{path} has more than 16 MiB, and is no side file of a raster")
        return path.read_bytes()
    except OSError as error:
        raise RasterUnreadable(f"{path} cannot be read: {error.strerror or error}") from error
