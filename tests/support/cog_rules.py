"""The rules of GDAL's `validate_cloud_optimized_geotiff.py`, full check, on what GDAL reads."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import rasterio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rasterio.io import DatasetReader

_LARGEST_WITHOUT = 512
_FIRST_DIRECTORY = 300  # bytes of the note that rio-cogeo allows


def broken_rules(path: Path) -> list[str]:
    """Return the rules that a file breaks; none for a cloud-optimised GeoTIFF.

    The order of directories and of blocks, the note at the start, and the bytes around each block.
    """
    data = path.read_bytes()
    with rasterio.open(path) as dataset:
        levels = len(dataset.overviews(1))
        numbers = [None, *range(levels)]
        directories = [_number(dataset, "IFD_OFFSET", level) for level in numbers]
        blocks = [[*_blocks(dataset, path, level)] for level in numbers]
        note = dataset.get_tag_item("GDAL_STRUCTURAL_METADATA", "TIFF") or ""
        is_large = max(dataset.shape) > _LARGEST_WITHOUT
    starts = [places[0][0] for places in blocks]
    rules = {
        "overviews": not is_large or levels > 0,
        "the first directory at the start": directories[0] < _FIRST_DIRECTORY,
        "directories from large to small": directories == sorted(directories),
        "directories before blocks": max(directories) < min(starts),
        "blocks of the smallest overview first": starts == sorted(starts, reverse=True),
        "blocks row by row": all(places == sorted(places) for places in blocks),
        "a note": "LAYOUT=IFDS_BEFORE_DATA" in note and "EDITION=NO" in note,
        "sizes before blocks": all(
            struct.unpack_from("<I", data, at - 4)[0] == size
            for places in blocks
            for at, size in places
        ),
        "last bytes after blocks": all(
            data[at + size - 4 : at + size] == data[at + size : at + size + 4]
            for places in blocks
            for at, size in places
        ),
    }
    return [name for name, holds in rules.items() if not holds]


def _number(dataset: DatasetReader, name: str, level: int | None) -> int:
    return int(dataset.get_tag_item(name, "TIFF", bidx=1, ovr=level))


def _blocks(dataset: DatasetReader, path: Path, level: int | None) -> Iterator[tuple[int, int]]:
    """Yield offset and size of each block of an image, row-major."""
    options = {} if level is None else {"overview_level": level}
    with rasterio.open(path, **options) as image:
        rows, cols = (-(-side // 512) for side in image.shape)
    for row in range(rows):
        for col in range(cols):
            yield (
                _number(dataset, f"BLOCK_OFFSET_{col}_{row}", level),
                _number(dataset, f"BLOCK_SIZE_{col}_{row}", level),
            )
