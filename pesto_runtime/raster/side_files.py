"""Name the files beside a raster that state facts of it, by an explicit list. Nothing is read here.

A folder is never listed: each name of the list is looked up.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

_DIMAP = re.compile(r"IMG_(.+?)(_R\d+C\d+)?", re.IGNORECASE)


def side_files(path: Path) -> dict[str, Path]:
    """Return the files beside a local raster that state facts of it: name -> path."""
    folder = os.path.dirname(path)  # noqa: PTH120  # texts take a third of the time of paths
    return {name: path.with_name(name) for name in side_names(path.name)
            if os.path.isfile(os.path.join(folder, name))}  # fmt: skip  # noqa: PTH113, PTH118


def side_names(name: str) -> tuple[str, ...]:
    """Return the names under which a file of this name may have facts beside it.

    >>> side_names("a.tif")
    ('a.tif.aux.xml', 'a.tif.msk', 'a.tfw', 'a.tifw', 'a.wld', 'a_RPC.TXT', 'a_rpc.txt')
    """
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix[1:]
    names = [f"{name}.aux.xml", mask_name(name)]
    names += [f"{stem}.{each}" for each in _world_suffixes(suffix)]
    names += [f"{stem}_RPC.TXT", f"{stem}_rpc.txt"]
    product = _DIMAP.fullmatch(stem)
    return (*names, f"RPC_{product[1]}.XML") if product else tuple(names)


def mask_name(name: str) -> str:
    """Return the name of the file beside a raster that has its mask, as GDAL names it."""
    return f"{name}.msk"


def is_world_file(side: str, name: str) -> bool:
    """Whether a name beside a raster is that of a world file: six numbers, its transform."""
    suffix = PurePosixPath(side).suffix[1:]
    return suffix in _world_suffixes(PurePosixPath(name).suffix[1:])


def _world_suffixes(suffix: str) -> tuple[str, ...]:
    if not suffix:
        return ("wld",)
    w, wld = ("W", "WLD") if suffix.isupper() else ("w", "wld")
    return (f"{suffix[0]}{suffix[-1]}{w}", f"{suffix}{w}", wld)
