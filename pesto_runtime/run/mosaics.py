"""Keep the mosaics that later phases read, each with its checksum, in the run store.

GDAL reads windows of these files by itself, so the whole file is verified before the first window;
in a bucket, its ETag is.
This file does not write mosaics: `run/closing.py` does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pesto_runtime.errors import Damaged, NotFound
from pesto_runtime.pipeline import RasterType
from pesto_runtime.places import RemotePath
from pesto_runtime.raster.product import file_sha256
from pesto_runtime.run.context import raster_digest_name, raster_name
from pesto_runtime.run.inputs import scene_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pesto_runtime.raster.product import Product
    from pesto_runtime.run.context import RunContext


def seal_mosaic(context: RunContext, raster: str, product: Product) -> None:
    """Store the checksum of a mosaic that was written.

    Raises:
        StoreFailed: the store cannot be written.
    """
    document: dict[str, object] = {"sha256": product.sha256, "bytes": product.size}
    place = context.store.place(raster_name(context, raster))
    if isinstance(place, RemotePath):
        document["etag"] = place.stat().tag
    context.store.put_json(raster_digest_name(context, raster), document)


def has_mosaic(context: RunContext, raster: str) -> bool:
    """Whether the mosaic of a raster is there and undamaged; a damaged one is deleted."""
    path = context.store.place(raster_name(context, raster))
    try:
        document = context.store.get_json(raster_digest_name(context, raster))
    except NotFound:
        path.unlink(missing_ok=True)
        return False
    if not path.is_file():
        return False
    if isinstance(path, RemotePath):
        return isinstance(document, dict) and document.get("etag") == path.stat().tag
    status = path.stat()
    expected = document.get("sha256") if isinstance(document, dict) else None
    if _digest(path, status.st_size, status.st_mtime_ns, status.st_ino) == expected:
        return True
    path.unlink()
    return False


def require_mosaics(context: RunContext, sources: Iterable[str]) -> None:
    """Verify the mosaics among the sources of a phase, once per process.

    Raises:
        Damaged: one is damaged or incomplete; it has been deleted.
    """
    for name in sources:
        is_mosaic = scene_of(context, name) is None and isinstance(context.types[name], RasterType)
        if is_mosaic and not has_mosaic(context, name):
            raise Damaged(
                f"{context.store.href(raster_name(context, name))} was damaged: its checksum "
                "differs; it has been deleted, and the same command makes it again"
            )


@lru_cache(maxsize=64)
def _digest(path: Path, _size: int, _mtime_ns: int, _inode: int) -> str:
    """Return the sha256 of a file; the status of the file is part of the cache's key."""
    return file_sha256(path)[0]
