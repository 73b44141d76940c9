"""Compare the files of a finished run with its `result.json`: outputs whole, images block by block.

Reads only the output folder; the run store may be gone.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput, NotFound, PestoError
from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.product import block_checksums, file_sha256
from pesto_runtime.raster.read import read_scene
from pesto_runtime.run.result import RESULT, read_result
from pesto_runtime.tiling import block_window, blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Window
    from pesto_runtime.places import AnyPath

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
    path: AnyPath
    detail: str = ""
    blocks: tuple[Window, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Whether the file is the one that the run published."""
        return not self.detail


def verify_result(folder: AnyPath) -> tuple[OutputCheck, ...]:
    """Compare every output of a folder with the checksums of its `result.json`.

    Raises:
        NotFound: the folder has no `result.json`.
        InvalidInput: it is not a result.
    """
    if not (folder / RESULT).exists():
        raise NotFound(f"{folder / RESULT} does not exist: no run has finished in this folder")
    result = read_result(folder)
    if result is None:
        raise InvalidInput(
            f"{folder / RESULT} is not the result of a run: it lacks a member, or an output has a "
            "path that is not its name"
        )
    return tuple(
        _checked(name, folder / str(entry["path"]), entry) for name, entry in result.outputs.items()
    )


def _checked(name: str, path: AnyPath, entry: Mapping[str, JsonValue]) -> OutputCheck:
    if not path.is_file():
        return OutputCheck(name, path, "is not a file" if path.exists() else "does not exist")
    wanted = entry["sha256"]
    try:
        digest, size = file_sha256(path)
    except OSError as error:
        return OutputCheck(name, path, f"cannot be read: {error.strerror}")
    if digest == wanted:
        return OutputCheck(name, path)
    detail = f"sha256 {digest}, {size} bytes; the result has {wanted}, {entry.get('bytes', '?')}"
    checksums = entry.get("crc32")
    if not isinstance(checksums, str):
        return OutputCheck(name, path, detail)
    try:
        with _local(path) as file:
            scene, found = read_scene(file_href(file)), block_checksums(file)
    except (PestoError, OSError, ValueError, IndexError) as error:
        return OutputCheck(name, path, f"{detail}; its blocks cannot be found: {error}")
    size_px = (scene.width, scene.height)
    windows = tuple(
        block_window(index, size_px)
        for number, index in enumerate(blocks_of(size_px))
        if _part(found, number) != _part(checksums, number)
    )
    count = "1 block differs" if len(windows) == 1 else f"{len(windows)} blocks differ"
    where = count if windows else "no block differs, but the header does"
    return OutputCheck(name, path, f"{detail}; {where}", windows)


@contextmanager
def _local(path: AnyPath) -> Iterator[Path]:
    """Yield a file of this machine with the bytes of a product, a temporary one for an object."""
    if isinstance(path, Path):
        yield path
        return
    with NamedTemporaryFile(suffix=".tif") as file:
        file.writelines(path.chunks())
        file.flush()
        yield Path(file.name)


def _part(checksums: str, number: int) -> str:
    return checksums[number * _DIGITS : (number + 1) * _DIGITS]
