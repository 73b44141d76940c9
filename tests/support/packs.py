"""Blocks as tests have them: in packs, which are read without the package, and in products."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from pesto_runtime.raster.product import Blocks, write_product

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from pesto_runtime.raster.product import Layout, Product
    from pesto_runtime.raster.tiff_directory import FileHeader

PLACE = struct.Struct("<IIQQI")
END = struct.Struct("<Q32s")


@dataclass(frozen=True)
class PackedBlock:
    """A block in a pack: its index, its bytes, and where it is."""

    index: tuple[int, int]
    data: bytes
    pack: Path
    offset: int

    @property
    def name(self) -> str:
        """`KIND/KEY/ROW/COL`."""
        return "/".join((*self.pack.parts[-3:-1], *map(str, self.index)))


def packs_in(store: Path, kind: str = "blocks") -> list[Path]:
    """The packs of a run store, those of one folder `blocks` or `features`."""
    return sorted((store / kind).glob("*/*.pack1"))


def packed_blocks(store: Path, kind: str = "blocks") -> Iterator[PackedBlock]:
    """Every block in the packs of a run store, verified."""
    for pack in packs_in(store, kind):
        try:
            data = pack.read_bytes()
        except FileNotFoundError:  # a run ends
            continue
        count, digest = END.unpack(data[-END.size :])
        footer = data[-END.size - count * PLACE.size : -END.size]
        name = "/".join(pack.parts[-3:])
        assert hashlib.sha256(name.encode() + b"\0" + footer).digest() == digest, name
        for row, col, offset, length, checksum in PLACE.iter_unpack(footer):
            block = data[offset : offset + length]
            assert crc32(block) == checksum, (name, row, col)
            yield PackedBlock((row, col), block, pack, offset)


def drop_blocks(store: Path, lost: Collection[tuple[int, int]], kind: str = "blocks") -> None:
    """Write each pack again without some blocks (row, col), as if they had never been stored."""
    found = list(packed_blocks(store, kind))
    for pack in packs_in(store, kind):
        kept = [each for each in found if each.pack == pack and each.index not in lost]
        pack.unlink()
        if not kept:
            continue
        data, footer = b"", b""
        for each in kept:
            footer += PLACE.pack(*each.index, len(data), len(each.data), crc32(each.data))
            data += each.data
        name = "/".join(pack.parts[-3:])
        digest = hashlib.sha256(name.encode() + b"\0" + footer).digest()
        pack.write_bytes(data + footer + END.pack(len(kept), digest))


def write_blocks(path: Path, layout: Layout | FileHeader, blocks: Iterable[bytes]) -> Product:
    """Write a product from compressed blocks, one by one."""
    found = [*blocks]
    sizes = np.array([len(each) for each in found])
    return write_product(path, layout, map(Blocks.of, found), sizes=sizes)
