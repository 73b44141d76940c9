"""Parse a large JSON body without copying the long base64 strings in it."""

from __future__ import annotations

import mmap
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.service.runner import Spool

    Parse: TypeAlias = Callable[[bytes], JsonValue]

_STRIDE_BYTES = 64 << 10
_PROBE_BYTES = 64
_PLAIN = re.compile(rb"[A-Za-z0-9+/=]*+")
_PIECE_BYTES = 1 << 20  # a multiple of 4, so that each piece is valid base64
_SHOWN_BYTES = 200
_REMOVE: int | None = getattr(mmap, "MADV_REMOVE", None)


@dataclass(frozen=True, eq=False)
class LongText:
    """A long base64 string inside a body.

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
        """Return a copy of the string."""
        return self._source[self._begin : self._end].decode("ascii")

    def consumed(self) -> Iterator[bytes]:
        """Yield the string in pieces of 1 MiB, once: the memory of each is freed after it."""
        freed = self._begin + -self._begin % mmap.PAGESIZE
        for begin in range(self._begin, self._end, _PIECE_BYTES):
            end = min(begin + _PIECE_BYTES, self._end)
            yield self._source[begin:end]
            whole_pages = (end - freed) // mmap.PAGESIZE * mmap.PAGESIZE
            # MADV_REMOVE punches a hole into the memory file, so that a body and the image decoded
            # from it never need their memory at the same time, https://man7.org/linux/man-pages/man2/madvise.2.html
            if _REMOVE is not None and whole_pages > 0:
                self._source.madvise(_REMOVE, freed, whole_pages)
                freed += whole_pages


def read_long_json(spool: Spool, parse: Parse) -> tuple[JsonValue, Mapping[str, LongText]]:
    """Parse a body whose long base64 strings are replaced by short placeholders.

    Args:
        spool: The body; it is consumed.
        parse: Parses JSON; its errors are not caught.

    Returns:
        The document, and the long string of each placeholder in it.
    """
    source = spool.shared()
    # A random prefix, so that no string of the body is taken for a placeholder.
    prefix, texts = secrets.token_hex(16), dict[str, LongText]()
    pieces, at = [], 0
    for begin, end in _long_strings(source):
        name = f"{prefix}{len(texts)}"
        first = source[begin : min(end, begin + _SHOWN_BYTES)].decode("ascii")
        texts[name] = LongText(first, source, begin, end)
        pieces += [source[at:begin], name.encode()]
        at = end
    return parse(b"".join((*pieces, source[at:]))), texts


def restored(value: JsonValue, texts: Mapping[str, LongText]) -> JsonValue:
    """Return a value with its placeholders replaced by the long strings."""
    if isinstance(value, str):
        return texts[value].text() if value in texts else value
    if isinstance(value, list):
        return [restored(each, texts) for each in value]
    if isinstance(value, dict):
        return {key: restored(each, texts) for key, each in value.items()}
    return value


def _long_strings(source: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each long base64 string, without its quotes.

    Only every 64 KiB, a few bytes are examined: a longer string covers one of these places. It has
    no backslash between its quotes, so the second quote ends a string if the first begins one.
    """
    floor = at = 0
    while (at := at + _STRIDE_BYTES) + _PROBE_BYTES < len(source):
        if not _PLAIN.fullmatch(source, at, at + _PROBE_BYTES):
            continue
        begin, end = source.rfind(b'"', floor, at) + 1, source.find(b'"', at)
        if end < 0:
            return
        is_begun = begin > floor and source[begin - 2 : begin - 1] != b"\\"
        if is_begun and _PLAIN.fullmatch(source, begin, end):
            yield begin, end
        floor = at = end + 1
