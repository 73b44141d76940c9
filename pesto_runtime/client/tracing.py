"""The W3C trace context of the work at hand: taken in by a service, sent on by its calls.

No spans are made here: the `traceparent` that came in goes out as it is, so that whoever does
make them sees one trace across schedulers, services and what those call.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEADER = "traceparent"

_FORM = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_CURRENT: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Trace(NamedTuple):
    """Whose work this is part of.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: Of the caller; 16 hexadecimal digits.
    """

    trace_id: str
    span_id: str

    @classmethod
    def parse(cls, header: str | None) -> Self | None:
        """Read a `traceparent`; None where it is none, as the standard asks.

        >>> Trace.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").span_id
        'b7ad6b7169203331'
        >>> Trace.parse("00-" + "0" * 32 + "-b7ad6b7169203331-01")
        """
        found = _FORM.fullmatch(header or "")
        if found is None or (header or "").startswith("ff"):
            return None
        trace_id, span_id = found[1], found[2]
        return cls(trace_id, span_id) if int(trace_id, 16) and int(span_id, 16) else None


@contextmanager
def traced(header: str | None) -> Iterator[Trace | None]:
    """Do what is inside as part of a trace; without a valid header it is part of none."""
    trace = Trace.parse(header)
    token = _CURRENT.set(header if trace else None)
    try:
        yield trace
    finally:
        _CURRENT.reset(token)


def with_trace(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request, with the trace that it is part of.

    That is the one of `traced`, else of the environment variable `TRACEPARENT`, by which batch
    schedulers hand theirs to a process.
    """
    current = _CURRENT.get() or os.environ.get("TRACEPARENT")
    if Trace.parse(current) is None or current is None:
        return dict(headers)
    return {**headers, HEADER: current}
