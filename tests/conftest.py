"""What all tests share: no proxy before the servers that they start, and runs without pictures."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from pesto_runtime import runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True, scope="session")
def _loopback_is_direct() -> Iterator[None]:
    """Proxies of the environment are for other machines."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        yield


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> None:
    """Ctrl-C reaches what the tests start, also where a shell began them in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of one line: its pictures take three quarters of a small run."""

    def write_report(path: Path, _data: object) -> None:
        path.write_text("<!doctype html>")

    monkeypatch.setattr(runs, "write_report", write_report)
