"""JSON with very long strings, as base64 images are, read without a copy of them.

`json.loads` holds such a body three times: its bytes, its text and the string. Here the strings
stay where they are, and what is parsed is the rest.
"""

from __future__ import annotations

import mmap
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.service.spool import Spool

    Parse: TypeAlias = Callable[[bytes], JsonValue]

_STRIDE_BYTES = 64 << 10
_LOOK_BYTES = 64
_PLAIN = re.compile(rb"[A-Za-z0-9+/=]*+")
_PIECE_BYTES = 1 << 20  # a multiple of 4, so that every piece is base64 of its own
_SHOWN_BYTES = 200
_REMOVE: int | None = getattr(mmap, "MADV_REMOVE", None)


@dataclass(frozen=True, eq=False)
class LongText:
    """A long string of base64 in a body.

    Attributes:
        begins: Its first characters, for messages.
    """

    begins: str
    _source: mmap.mmap
    _begin: int
    _end: int

    def __len__(self) -> int:
        return self._end - self._begin

    def text(self) -> str:
        """A copy of all of it."""
        return self._source[self._begin : self._end].decode("ascii")

    def consumed(self) -> Iterator[bytes]:
        """All of it in pieces of 1 MiB, once: memory is given back as they are taken."""
        freed = self._begin + -self._begin % mmap.PAGESIZE
        for begin in range(self._begin, self._end, _PIECE_BYTES):
            end = min(begin + _PIECE_BYTES, self._end)
            yield self._source[begin:end]
            whole_pages = (end - freed) // mmap.PAGESIZE * mmap.PAGESIZE
            if _REMOVE is not None and whole_pages > 0:
                self._source.madvise(_REMOVE, freed, whole_pages)
                freed += whole_pages


def read_long_json(spool: Spool, parse: Parse) -> tuple[JsonValue, Mapping[str, LongText]]:
    """Parse a body whose long strings of base64 are replaced by short ones.

    Args:
        spool: The body; nobody else needs it any more.
        parse: Reads JSON; what it raises passes.

    Returns:
        The document, and for each string put into it the one that it stands for.
    """
    source = spool.shared()
    mark, texts = secrets.token_hex(16), dict[str, LongText]()
    pieces, at = [], 0
    for begin, end in _long_strings(source):
        name = f"{mark}{len(texts)}"
        shown = source[begin : min(end, begin + _SHOWN_BYTES)].decode("ascii")
        texts[name] = LongText(shown, source, begin, end)
        pieces += [source[at:begin], name.encode()]
        at = end
    return parse(b"".join((*pieces, source[at:]))), texts


def restored(value: JsonValue, texts: Mapping[str, LongText]) -> JsonValue:
    """A value with the strings that were in it."""
    if isinstance(value, str):
        return texts[value].text() if value in texts else value
    if isinstance(value, list):
        return [restored(each, texts) for each in value]
    if isinstance(value, dict):
        return {key: restored(each, texts) for key, each in value.items()}
    return value


def _long_strings(source: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Where the inside of each long string of base64 begins and ends.

    One that is long enough covers a place where this looks. Between its quotes is no backslash,
    so the second one ends a string wherever the first begins one.
    """
    floor = at = 0
    while (at := at + _STRIDE_BYTES) + _LOOK_BYTES < len(source):
        if not _PLAIN.fullmatch(source, at, at + _LOOK_BYTES):
            continue
        begin, end = source.rfind(b'"', floor, at) + 1, source.find(b'"', at)
        if end < 0:
            return
        is_begun = begin > floor and source[begin - 2 : begin - 1] != b"\\"
        if is_begun and _PLAIN.fullmatch(source, begin, end):
            yield begin, end
        floor = at = end + 1
