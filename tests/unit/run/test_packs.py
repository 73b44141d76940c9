"""Packs: blocks come back by their place, whoever wrote them; what is damaged counts as missing."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.contract import Window
from pesto_runtime.errors import Damaged, NotFound, StoreFailed
from pesto_runtime.hrefs import file_href
from pesto_runtime.run import packs
from pesto_runtime.run.packs import PackWriter, StoredBlocks
from pesto_runtime.store import Store
from tests.support.packs import packed_blocks, packs_in
from tests.support.rasters import tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pesto_runtime.tiling import BlockIndex

FOLDER = "blocks/key"
ROWS, COLS = 5, 7
GRID = Window(0, 0, COLS * 512 - 100, ROWS * 512 - 1)


def blocks() -> dict[BlockIndex, bytes]:
    """Bytes of each block, of different lengths."""
    dice = random.Random(7)  # noqa: S311  # the same in every run
    indices = [(row, col) for row in range(ROWS) for col in range(COLS)]
    return {index: dice.randbytes(dice.randrange(1, 3000)) for index in indices}


def write(store: Store, found: Mapping[BlockIndex, bytes], order: Iterable[BlockIndex]) -> None:
    writer = PackWriter(store, FOLDER)
    for index in order:
        writer.add(index, found[index])
    writer.flush()


def in_order(stored: StoredBlocks) -> list[bytes]:
    return [each for run in stored.in_order(0, len(stored.places)) for each in run.split()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(file_href(tmp_path))


@pytest.mark.parametrize("base", ["file", "memory"])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_blocks_of_any_writer_come_back_by_index_and_in_order(
    tmp_path: Path, base: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shuffled over several packs, and read in windows of some blocks; one more is missing."""
    monkeypatch.setattr(packs, "_WINDOW_BYTES", 9000)
    store = Store(file_href(tmp_path) if base == "file" else "memory:///")
    found, order = blocks(), list(blocks())
    random.Random(count).shuffle(order)  # noqa: S311  # the same in every run
    *order, lost = order
    for number in range(count):
        write(store, found, order[number::count])
    stored = StoredBlocks.of(store, FOLDER, GRID)
    assert stored.missing_blocks == (lost,)
    assert lost not in stored
    assert len(stored.packs) == count
    for index in order:
        assert index in stored
        assert stored.read(index) == found[index]
    with pytest.raises(NotFound):
        stored.read(lost)
    with pytest.raises(NotFound):
        in_order(stored)
    write(store, found, [lost])
    assert in_order(StoredBlocks.of(store, FOLDER, GRID)) == list(found.values())


def test_a_part_of_the_grid_has_its_own_blocks_alone(store: Store) -> None:
    found = blocks()
    write(store, found, [index for index in found if index[0] < 3])
    window = Window(512 * 2 + 5, 512 * 2, 512 * 2, 512 * 2)
    stored = StoredBlocks.of(store, FOLDER, window)
    assert stored.missing_blocks == ((3, 2), (3, 3), (3, 4))
    assert [stored.read((2, col)) for col in (2, 3, 4)] == [found[2, col] for col in (2, 3, 4)]
    assert StoredBlocks.of(store, FOLDER, Window(0, 0, 0, 0)).missing_blocks == ()


def test_the_same_block_in_two_packs_is_the_same_block(store: Store) -> None:
    """Two attempts at a chunk were alive at the same time."""
    found = blocks()
    write(store, found, found)
    write(store, found, reversed(list(found)[3:20]))
    assert in_order(StoredBlocks.of(store, FOLDER, GRID)) == list(found.values())


def test_a_pack_appears_whole_or_not_at_all(store: Store, tmp_path: Path) -> None:
    """A killed writer has left a file that nobody lists, and the end of its run deletes it."""
    found = blocks()
    writer = PackWriter(store, FOLDER)
    writer.add((0, 0), found[0, 0])
    assert tree(tmp_path)
    assert list(store.names("blocks")) == []
    assert (0, 0) not in StoredBlocks.of(store, FOLDER, GRID)
    store.delete_folder(FOLDER)
    assert not tree(tmp_path)
    with pytest.raises(Damaged, match="deleted while it was written"):
        writer.flush()
    write(store, found, found)
    assert len(list(store.names("blocks"))) == 1, "the control"


@pytest.mark.parametrize(("limit", "value"), [("_SECONDS", 0.0), ("_BYTES", 10)])
def test_blocks_are_stored_after_some_time_and_above_some_bytes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    """At once with a limit of nearly nothing; with the usual limits (control), at the end."""
    found = blocks()
    usual = PackWriter(store, FOLDER)
    usual.add((0, 1), found[0, 1] + b"0" * 20)
    assert not packs_in(tmp_path)
    monkeypatch.setattr(packs, limit, value)
    strict = PackWriter(store, FOLDER)
    strict.add((0, 0), found[0, 0] + b"0" * 20)
    assert [each.index for each in packed_blocks(tmp_path)] == [(0, 0)]
    usual.flush()
    assert sorted(each.index for each in packed_blocks(tmp_path)) == [(0, 0), (0, 1)]


def test_many_small_blocks_are_one_object(store: Store, tmp_path: Path) -> None:
    """Also a footer larger than the first read of it."""
    index = [(row, col) for row in range(60) for col in range(60)]
    write(store, dict.fromkeys(index, b"a block"), index)
    assert len(tree(tmp_path)) == 1
    stored = StoredBlocks.of(store, FOLDER, Window(0, 0, 60 * 512, 60 * 512))
    assert not stored.missing.size
    assert in_order(stored) == [b"a block"] * 3600
    assert {each.name for each in packed_blocks(tmp_path)} == {
        f"{FOLDER}/{row}/{col}" for row, col in index
    }


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_anywhere_is_noticed_and_the_pack_is_gone(
    store: Store, tmp_path: Path, seed: int
) -> None:
    """In a block or in the footer; blocks of another pack stay, and nothing wrong is returned."""
    found, dice = blocks(), random.Random(seed)  # noqa: S311  # the same in every run
    first, second = [*found][:20], [*found][20:]
    write(store, found, first)
    (victim,) = packs_in(tmp_path)
    write(store, found, second)
    data = bytearray(victim.read_bytes())
    at = dice.randrange(len(data)) if seed % 2 else dice.randrange(len(data) - 600, len(data))
    data[at] ^= 1 << dice.randrange(8)
    victim.write_bytes(data)
    stored = StoredBlocks.of(store, FOLDER, GRID)
    if (0, 0) in stored:
        with pytest.raises(Damaged, match="its blocks again"):
            in_order(stored)
        with pytest.raises(Damaged, match="has been deleted"):
            stored.read((0, 0))
    again = StoredBlocks.of(store, FOLDER, GRID)
    assert again.missing_blocks == tuple(first)
    assert [again.read(index) for index in second] == [found[index] for index in second]
    assert not victim.exists()


@pytest.mark.parametrize("harm", ["cut", "of another key", "noise"])
def test_a_pack_that_was_not_written_there_is_missing(
    store: Store, tmp_path: Path, harm: str
) -> None:
    found = blocks()
    write(store, found, found)
    (pack,) = packs_in(tmp_path)
    if harm == "of another key":
        other = tmp_path / "blocks" / "other" / pack.name
        other.parent.mkdir()
        other.write_bytes(pack.read_bytes())
        assert not StoredBlocks.of(store, FOLDER, GRID).missing.size, "the control"
        assert StoredBlocks.of(store, "blocks/other", GRID).missing.size == ROWS * COLS
        assert not other.exists()
        return
    data = pack.read_bytes()
    pack.write_bytes(data[:-1000] if harm == "cut" else bytes(len(data)))
    assert StoredBlocks.of(store, FOLDER, GRID).missing.size == ROWS * COLS
    assert not pack.exists()


def test_objects_of_another_layout_are_not_read(store: Store, tmp_path: Path) -> None:
    """Those of an earlier version of this package, and of a later one: their blocks are missing."""
    found = blocks()
    write(store, found, found)
    (pack,) = packs_in(tmp_path)
    pack.rename(pack.with_suffix(".pack2"))
    store.put(f"{FOLDER}/0/0", found[0, 0])
    assert StoredBlocks.of(store, FOLDER, GRID).missing.size == ROWS * COLS
    assert len(tree(tmp_path)) == 2
    pack.with_suffix(".pack2").rename(pack)
    assert not StoredBlocks.of(store, FOLDER, GRID).missing.size, "the control"


def test_a_disk_that_refuses_a_block_loses_the_pack_and_nothing_else(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written afterwards is in a pack of its own, with the right places."""
    found = blocks()
    write(store, found, [(0, 0)])
    writer = PackWriter(store, FOLDER)
    writer.add((0, 1), found[0, 1])
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*_: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(StoreFailed, match="No space left"):
            writer.flush()
    writer.add((0, 2), found[0, 2])
    writer.flush()
    stored = StoredBlocks.of(store, FOLDER, Window(0, 0, 512 * 3, 512))
    assert stored.missing_blocks == ((0, 1),)
    assert stored.read((0, 2)) == found[0, 2]
    assert len(tree(tmp_path)) == 2
