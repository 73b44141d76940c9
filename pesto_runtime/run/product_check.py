"""Compare the files of a finished run with its `result.json`: outputs whole, images block by block.

Reads only the output folder; the run store may be gone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput, NotFound, PestoError
from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.product import block_checksums, file_sha256
from pesto_runtime.raster.read import read_scene
from pesto_runtime.tiling import block_window, blocks_of

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Window

_DIGITS = 8
"""Hexadecimal digits of the CRC-32 of a block."""


@dataclass(frozen=True)
class OutputCheck:
    """An output of a finished run, compared with its entry in `result.json`.

    Attributes:
        name: Name of the output.
        path: Its file.
        detail: The difference; empty if there is none.
        blocks: Windows of the blocks of an image that differ, pixels.
    """

    name: str
    path: Path
    detail: str = ""
    blocks: tuple[Window, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Whether the file is the one that the run published."""
        return not self.detail


def verify_result(folder: Path) -> tuple[OutputCheck, ...]:
    """Compare every output of a folder with the checksums of its `result.json`.

    Raises:
        NotFound: the folder has no `result.json`.
        InvalidInput: it is not a result.
    """
    path = folder / "result.json"
    try:
        outputs: dict[str, dict[str, JsonValue]] = json.loads(path.read_bytes())["outputs"]
        found = [(name, folder / str(each["path"]), each) for name, each in outputs.items()]
        wanted = [str(each["sha256"]) for each in outputs.values()]
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist: no run has finished in this folder") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path} is not the result of a run: {error}") from error
    return tuple(
        _checked(name, file, entry, sha256)
        for (name, file, entry), sha256 in zip(found, wanted, strict=True)
    )


def _checked(name: str, path: Path, entry: dict[str, JsonValue], wanted: str) -> OutputCheck:
    try:
        digest, size = file_sha256(path)
    except FileNotFoundError:
        return OutputCheck(name, path, "does not exist")
    except OSError as error:
        return OutputCheck(name, path, f"cannot be read: {error.strerror}")
    if digest == wanted:
        return OutputCheck(name, path)
    detail = f"sha256 {digest}, {size} bytes; the result has {wanted}, {entry.get('bytes', '?')}"
    checksums = entry.get("crc32")
    if not isinstance(checksums, str):
        return OutputCheck(name, path, detail)
    try:
        scene, found = read_scene(file_href(path)), block_checksums(path)
    except (PestoError, OSError, ValueError, IndexError) as error:
        return OutputCheck(name, path, f"{detail}; its blocks cannot be found: {error}")
    size_px = (scene.width, scene.height)
    windows = tuple(
        block_window(index, size_px)
        for number, index in enumerate(blocks_of(size_px))
        if _part(found, number) != _part(checksums, number)
    )
    where = f"{len(windows)} blocks differ" if windows else "no block differs, but the header does"
    return OutputCheck(name, path, f"{detail}; {where}", windows)


def _part(checksums: str, number: int) -> str:
    return checksums[number * _DIGITS : (number + 1) * _DIGITS]
