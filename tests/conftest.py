"""What all tests share: which of them run on one worker, no proxies, runs without pictures."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.run import workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_ENGINES = ("airflow", "conductor")
_SHARING = ("browser", "contract", "integration")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep tests that share a server on one worker, so that it is started once.

    An engine takes 20 s to start, and its tests wait more than they compute: they begin first, so
    that the short tests fill the other worker until the end.
    """
    for item in items:
        if group := _group_of(item):
            item.add_marker(pytest.mark.xdist_group(group))
    if hasattr(config, "workerinput"):
        items.sort(key=_turn_of)


def _group_of(item: pytest.Item) -> str | None:
    """The engine that a test runs on, or the file whose servers it shares."""
    used = getattr(item, "fixturenames", ())
    shared = item.path.stem if item.path.parent.name in _SHARING else None
    return next((name for name in _ENGINES if name in used), shared)


def _turn_of(item: pytest.Item) -> int:
    group = item.get_closest_marker("xdist_group")
    if group is None:
        return 2
    return 0 if group.args[0] in _ENGINES else 1


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

    monkeypatch.setattr(workspace, "write_report", write_report)
