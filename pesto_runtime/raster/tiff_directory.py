"""Read the image directories of a TIFF header that GDAL wrote, and write them in another order.

Little-endian classic TIFF and BigTIFF: https://libtiff.gitlab.io/libtiff/specification/bigtiff.html
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pesto_runtime.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np

SUBFILE, OFFSETS, SIZES = 254, 324, 325
"""Tags NewSubfileType, TileOffsets, TileByteCounts."""

_LONG, _LONG8 = 4, 16
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8}
"""Type of a field -> bytes of one value."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a directory: its TIFF type, the number of its values, and their bytes."""

    kind: int
    count: int
    data: bytes

    @property
    def size(self) -> int:
        """Bytes that the values have in a whole file."""
        return self.count * _BYTES[self.kind]


@dataclass(frozen=True, slots=True)
class _Form:
    """How numbers of directories are written: in 32 bits, or in the 64 bits of BigTIFF."""

    is_big: bool

    @property
    def number(self) -> str:
        return "<H" if not self.is_big else "<Q"

    @property
    def word(self) -> str:
        return "<I" if not self.is_big else "<Q"

    @property
    def room(self) -> int:
        """Bytes of a word: larger values of a field lie outside of it."""
        return 8 if self.is_big else 4

    @property
    def entry(self) -> int:
        return 4 + 2 * self.room


Directory = dict[int, Field]
"""Tag -> field."""


class FileHeader(Protocol):
    """The part of a file before its blocks.

    Attributes:
        data: Its bytes, with an empty table of blocks for each image.
        count: Blocks of an image.
    """

    data: bytes
    count: int

    @property
    def total(self) -> int:
        """Blocks of all images."""

    def filled(self, sizes: np.ndarray) -> bytes:
        """Return it with the places of blocks of these sizes (block,), without gaps."""


def read_directories(data: bytes) -> list[Directory]:
    """Return the directories of a TIFF, in their order.

    Raises:
        StoreFailed: a field has an unknown type.
    """
    form = _Form(is_big=data[2] == 43)  # the version number of BigTIFF
    position = struct.unpack_from(form.word, data, 8 if form.is_big else 4)[0]
    found = []
    while position:
        count = struct.unpack_from(form.number, data, position)[0]
        first = position + struct.calcsize(form.number)
        directory = {}
        for at in range(first, first + count * form.entry, form.entry):
            tag, kind = struct.unpack_from("<HH", data, at)
            if kind not in _BYTES:
                raise StoreFailed(f"the field {tag} of a TIFF has the unknown type {kind}")
            number = struct.unpack_from(form.word, data, at + 4)[0]
            size, value = number * _BYTES[kind], at + 4 + form.room
            start = value if size <= form.room else struct.unpack_from(form.word, data, value)[0]
            directory[tag] = Field(kind, number, bytes(data[start : start + size]))
        found.append(directory)
        position = struct.unpack_from(form.word, data, first + count * form.entry)[0]
    return found


def as_overview(directory: Directory, without: Collection[int]) -> Directory:
    """Return a directory that says that its image has a reduced resolution.

    Args:
        directory: Of an image, or of a mask.
        without: Tags of fields that are left out.
    """
    kept = {tag: field for tag, field in directory.items() if tag not in without}
    kind = directory.get(SUBFILE)
    bits = 1 | (int.from_bytes(kind.data, "little") if kind else 0)
    return {**kept, SUBFILE: Field(_LONG, 1, struct.pack("<I", bits))}


def write_directories(directories: Sequence[Directory], *, note: bytes, is_big: bool) -> bytes:
    """Return a TIFF of directories without blocks: the offsets and sizes of blocks are 0.

    Args:
        directories: In their order in the file.
        note: Bytes between the first 8 or 16 and the first directory.
        is_big: Whether it is a BigTIFF.
    """
    form = _Form(is_big)
    start = b"II" + (struct.pack("<HHHQ", 43, 8, 0, 0) if is_big else struct.pack("<HI", 42, 0))
    file = bytearray(start + note + bytes(len(note) % 2))  # directories start at even positions
    link = len(start) - form.room  # where the position of the next directory is written
    for directory in directories:
        struct.pack_into(form.word, file, link, len(file))
        fields = {**directory, **_tables(directory, is_big=is_big)}
        values = len(file) + struct.calcsize(form.number) + len(fields) * form.entry + form.room
        outside = bytearray()
        file += struct.pack(form.number, len(fields))
        for tag, field in sorted(fields.items()):
            file += struct.pack("<HH", tag, field.kind) + struct.pack(form.word, field.count)
            if len(field.data) <= form.room:
                file += field.data.ljust(form.room, b"\0")
                continue
            file += struct.pack(form.word, values + len(outside))
            outside += field.data + bytes(len(field.data) % 2)  # values start at even positions
        link = len(file)
        file += bytes(form.room) + outside
    return bytes(file)


def _tables(directory: Directory, *, is_big: bool) -> Directory:
    """Return empty tables of blocks of which every number fits."""
    count = directory[OFFSETS].count
    kind = _LONG8 if is_big else _LONG
    return {
        OFFSETS: Field(kind, count, bytes(count * _BYTES[kind])),
        SIZES: Field(_LONG, count, bytes(count * _BYTES[_LONG])),
    }
