"""Store the partials of a reduce, one object for many blocks, and read them back.

A value whose folds have the same result in every order is folded before it is stored: `min`, `max`,
and sums of integer arrays. Others are kept block by block, because sums of floating-point numbers
depend on the order. So the result does not depend on chunks.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import Damaged, NotFound
from pesto_runtime.processor import fold
from pesto_runtime.run.context import folder_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pesto_runtime.contract import Fold
    from pesto_runtime.pipeline import BoundStage
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.tiling import BlockIndex

_SECONDS = 2.0
_BYTES = 64 << 20
_NAME = re.compile(r"/(\d+)-(\d+)-(\d+)-(\d+)-[0-9a-f]+$")

Partial = dict[str, object]


@dataclass
class _Partials:
    """The partials of some blocks: values that were folded, and the others of each block."""

    blocks: list[BlockIndex] = field(default_factory=list)
    folded: Partial = field(default_factory=dict)
    single: dict[BlockIndex, Partial] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return a line of JSON, which has the place of each array, and the arrays (.npy)."""
        data = io.BytesIO()

        def placed(value: object) -> object:
            if not isinstance(value, np.ndarray):
                return value
            place = data.tell()
            np.save(data, value, allow_pickle=False)
            return {"npy": place}

        document = [
            [[index, {key: placed(value) for key, value in self.single[index].items()}]
             for index in self.blocks],
            {key: placed(value) for key, value in self.folded.items()},
        ]  # fmt: skip
        return json.dumps(document).encode() + b"\n" + data.getvalue()

    @classmethod
    def decode(cls, stored: bytes) -> _Partials:
        head, _, data = stored.partition(b"\n")

        def read(values: Mapping[str, object]) -> Partial:
            return {key: _value(value, data) for key, value in values.items()}

        single, folded = json.loads(head)
        found = {(row, col): read(values) for (row, col), values in single}
        return cls(list(found), read(folded), found)


@dataclass
class PartialWriter:
    """Collects the partials of a reduce in one chunk.

    They are stored at the end of the chunk, after 2 s, and when they have 64 MiB.

    Attributes:
        context: The run.
        stage: The reduce.
    """

    context: RunContext
    stage: BoundStage
    _waiting: _Partials = field(default_factory=_Partials)
    _bytes: int = 0
    _begun: float = field(default_factory=time.monotonic)

    def add(self, index: BlockIndex, partial: Partial) -> None:
        """Take the partial of a block (row, col).

        Raises:
            ContractBroken: it cannot be folded with those of other blocks.
            StoreFailed: the store cannot be written.
        """
        folds, waiting = self.stage.description.folds, self._waiting
        known = {key: value for key, value in partial.items() if key in folds}
        exact = {key: value for key, value in known.items() if _is_exact(value, folds[key])}
        rest = {key: value for key, value in known.items() if key not in exact}
        waiting.blocks.append(index)
        waiting.folded = fold(waiting.folded, exact, folds)
        waiting.single[index] = rest
        self._bytes += sum(each.nbytes for each in rest.values() if isinstance(each, np.ndarray))
        if self._bytes > _BYTES or time.monotonic() - self._begun > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Store what was collected.

        Raises:
            StoreFailed: the store cannot be written.
        """
        if self._waiting.blocks:
            name = _name(self.context, self.stage.id, sorted(self._waiting.blocks))
            self.context.store.put(name, self._waiting.encode())
        self._waiting, self._bytes, self._begun = _Partials(), 0, time.monotonic()


def blocks_with_partials(
    context: RunContext, stage_id: str, near: Collection[BlockIndex] | None = None
) -> set[BlockIndex]:
    """Return the blocks (row, col) of a reduce whose partials are stored.

    Args:
        context: The run.
        stage_id: Id of the reduce.
        near: Only objects that may have partials of these blocks are read; None for all.

    Raises:
        StoreFailed: the store does not respond.
    """
    return {
        index
        for _, data in stored_partials(context, stage_id, near)
        for index in blocks_in_partials(data)
    }


def stored_partials(
    context: RunContext, stage_id: str, near: Collection[BlockIndex] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the objects of a reduce, as for `blocks_with_partials`.

    Raises:
        StoreFailed: the store does not respond.
    """
    for name in _names(context, stage_id):
        if near is None or may_have_partials(name, near):
            with suppress(NotFound):  # damaged, and deleted
                yield name, context.store.get(name)


def blocks_in_partials(data: bytes) -> set[BlockIndex]:
    """Return the blocks (row, col) whose partials an object has."""
    head, _, _ = data.partition(b"\n")
    return {(row, col) for (row, col), _ in json.loads(head)[0]}


def folded_partial(
    context: RunContext, stage_id: str, blocks: Collection[BlockIndex]
) -> Partial | None:
    """Return the partial of all blocks, folded row-major; None if one is missing.

    Args:
        context: The run.
        stage_id: Id of the reduce.
        blocks: All blocks (row, col) of its grid.

    Raises:
        ContractBroken: two partials cannot be folded.
        Damaged: an object was damaged, or repeats another one; it has been deleted.
        StoreFailed: the store does not respond.
    """
    folds = context.stages[stage_id].description.folds
    whole: Partial = {}
    single: dict[BlockIndex, Partial] = {}
    there: set[BlockIndex] = set()
    for name in _names(context, stage_id):
        stored = _Partials.decode(context.store.get(name))
        if there.intersection(stored.blocks):
            # Two attempts at a chunk ran at the same time, and stored other groups of the same
            # blocks: this one is deleted, and its other blocks are computed again.
            context.store.delete([name])
            raise Damaged(f"{context.store.href(name)} repeats blocks; it has been deleted")
        there.update(stored.blocks)
        single |= stored.single
        whole = fold(whole, stored.folded, folds)
    if there != set(blocks):
        return None
    for index in sorted(single):
        whole = fold(whole, single[index], folds)
    return whole


def _names(context: RunContext, stage_id: str) -> list[str]:
    return sorted(context.store.names(folder_of(context, stage_id)))


def _value(value: object, data: bytes) -> object:
    if not (isinstance(value, dict) and set(value) == {"npy"}):
        return value
    arrays = io.BytesIO(data)
    arrays.seek(value["npy"])
    return np.load(arrays, allow_pickle=False)


def _is_exact(value: object, how: Fold) -> bool:
    """Whether the order of folding cannot be seen in the result."""
    is_integer = isinstance(value, np.ndarray) and value.dtype.kind in "iu"
    return how in ("min", "max") or (how == "sum" and is_integer)


def _name(context: RunContext, stage_id: str, blocks: list[BlockIndex]) -> str:
    rows, cols = [row for row, _ in blocks], [col for _, col in blocks]
    extent = f"{min(rows)}-{min(cols)}-{max(rows)}-{max(cols)}"
    listed = hashlib.sha256(repr(blocks).encode()).hexdigest()[:12]
    return f"{folder_of(context, stage_id)}/{extent}-{listed}"


def may_have_partials(name: str, blocks: Collection[BlockIndex]) -> bool:
    """Whether an object of this name can have the partial of one of the blocks (row, col)."""
    found = _NAME.search(name)
    if found is None:
        return False
    top, left, bottom, right = map(int, found.groups())
    return any(top <= row <= bottom and left <= col <= right for row, col in blocks)
