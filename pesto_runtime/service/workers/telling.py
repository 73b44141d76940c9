"""What an algorithm tells inside a worker, sent to the service: progress, lines it prints or logs.

A program that prints in a loop does not drown the service: lines have a length and a number.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    Send = Callable[[str, Mapping[str, JsonValue]], None]

_LINE_CHARS = 2000
_MOST_LINES = 2000
_EVERY_S = 0.05


class Teller:
    """Sends what one call tells; a `Listener`."""

    def __init__(self, send: Send) -> None:
        """Take what sends a frame."""
        self._send = send
        self._lines = 0
        self._next = 0.0
        self._held: tuple[float, float] | None = None

    def begin(self) -> None:
        """Count anew, for the next call."""
        self._lines, self._next, self._held = 0, 0.0, None

    def end(self) -> None:
        """Send what was held back: a call that ends tells how far it came."""
        if self._held is not None:
            self._send_progress(*self._held)

    def progress(self, done: float, total: float) -> None:
        """Send it, at most 20 times a second; the last one always."""
        now = time.monotonic()
        if now >= self._next or done >= total:
            self._next = now + _EVERY_S
            self._send_progress(done, total)
        else:
            self._held = (done, total)

    def _send_progress(self, done: float, total: float) -> None:
        self._held = None
        self._send("progress", {"done": done, "total": total})

    def log(self, text: str) -> None:
        """Send a line; after many, say that there are more."""
        self._lines += 1
        if self._lines < _MOST_LINES:
            self._send("log", {"line": text[:_LINE_CHARS]})
        elif self._lines == _MOST_LINES:
            self._send("log", {"line": f"over {_MOST_LINES} lines; no more are kept"})


class _Lines(io.TextIOBase):
    """A text stream whose lines go to a teller."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._rest = ""
        self._gate = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._gate:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > _LINE_CHARS:
                lines.append(self._rest)
                self._rest = ""
        for line in lines:
            self._teller.log(line)
        return len(text)


class _Records(logging.Handler):
    """Log records as lines."""

    def __init__(self, teller: Teller) -> None:
        super().__init__(logging.INFO)
        self._teller = teller
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self._teller.log(line)


def redirect(teller: Teller) -> None:
    """Send what this process prints or logs to a teller from now on."""
    sys.stdout = sys.stderr = _Lines(teller)
    root = logging.getLogger()
    root.addHandler(_Records(teller))
    root.setLevel(logging.INFO)
