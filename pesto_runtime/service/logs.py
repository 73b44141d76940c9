"""Write log lines: as text for people, or as JSON objects with the fields of their request.

The fields of a line come from a context variable; `observing` and the workers set them.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TextIO, TypeAlias

from pesto_runtime.masking import masked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

ExceptionInfo: TypeAlias = (
    "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"
)
LogFormat: TypeAlias = Literal["text", "json"]

_FIELDS: ContextVar[Mapping[str, str | int | float]] = ContextVar(
    "log_fields", default=MappingProxyType({})
)
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LOGGER_NAME = "pesto_runtime"


class bound:  # noqa: N801  # it is used as a function
    """Add fields to every line logged inside, in this task or thread; None adds nothing.

    >>> with bound(job="42", tile=None):
    ...     also(tile="0,0,8,8", job="43")
    ...     dict(fields_now())
    {'job': '42', 'tile': '0,0,8,8'}
    """

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: str | float | None) -> None:
        added = {name: value for name, value in fields.items() if value is not None}
        self._fields: dict[str, str | int | float] = {**_FIELDS.get(), **added}

    def __enter__(self) -> None:
        self._token = _FIELDS.set(self._fields)

    def __exit__(self, *_: object) -> None:
        _FIELDS.reset(self._token)


def also(**fields: str | float) -> None:
    """Add fields to the innermost `bound` until it ends; existing ones are not changed."""
    known = _FIELDS.get()
    if isinstance(known, dict):
        for name, value in fields.items():
            known.setdefault(name, value)


def fields_now() -> Mapping[str, str | int | float]:
    """Return the fields that a line logged now would have."""
    return _FIELDS.get()


def configure(log_format: LogFormat, *, stream: TextIO | None = None) -> None:
    """Send all log lines of this process to standard error, in one form; call it once, early.

    Args:
        log_format: `json` also has a line per request; `text` has only warnings and errors.
        stream: Used instead of standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    is_json = log_format == "json"
    handler.setFormatter(JsonLines() if is_json else MaskedLines(_TEXT))
    handler.addFilter(_masked)
    handler.addFilter(BoundedRate())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_LOGGER_NAME).setLevel(logging.INFO if is_json else logging.WARNING)


def _masked(record: logging.LogRecord) -> bool:
    """Take the credentials of URLs out of a line; those of GDAL are in its own words."""
    message = record.getMessage()
    if "://" in message:
        record.msg, record.args = masked(message), None
    return True


class BoundedRate(logging.Filter):
    """Lets through 20 warnings or errors of one place in the code per 10 s, and counts the others.

    Each wrong request may write one, with a traceback: callers could fill the disk.
    """

    def __init__(self, *, most: int = 20, period_s: float = 10.0) -> None:
        """Start with no line."""
        super().__init__()
        self._most, self._period_s = most, period_s
        self._places: dict[tuple[str, int], _Place] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written; the first of a period says how many were not."""
        if record.levelno < logging.WARNING:
            return True
        place = self._places.setdefault((record.pathname, record.lineno), _Place())
        now = time.monotonic()
        if now - place.began >= self._period_s:
            if place.left_out:
                more = f" ({place.left_out} such lines before this one were left out)"
                record.msg, record.args = record.getMessage() + more, None
            place.began, place.written, place.left_out = now, 0, 0
        if place.written < self._most:
            place.written += 1
            return True
        place.left_out += 1
        return False


@dataclass
class _Place:
    """The lines of one place in the code since the begin of a period."""

    began: float = -math.inf
    written: int = 0
    left_out: int = 0


class MaskedLines(logging.Formatter):
    """Formats lines; tracebacks, too, are without the credentials of URLs."""

    def formatException(  # noqa: N802  # the name of logging
        self, ei: ExceptionInfo
    ) -> str:
        """Return a traceback."""
        return masked(super().formatException(ei))


class JsonLines(MaskedLines):
    """Formats one JSON object per line: time, level, logger, message, the fields of `bound`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        document: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_FIELDS.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False, default=str)
