"""What all tests share: which of them run on one worker, no proxies, runs without pictures."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.run import publishing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

_ENGINES = ("airflow", "celery", "conductor")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Keep tests that share a server on one worker, unless `--dist` says otherwise.

    pytest-xdist 3.8 ignores its own marker for this, `xdist_group`, under pytest 9.2.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # the order of the workers is the better one
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = group_of
    return scheduler


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start with the engines: their tests mostly wait, so the others should run beside them."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: group_of(item.nodeid) not in _ENGINES)


def group_of(nodeid: str) -> str:
    """Name the tests that run in one process: those on one engine, else those of one file.

    An engine takes 20 s to start. The pages of the docs share nothing, so each is a group.
    """
    path, _, _ = nodeid.partition("::")
    engine = path.partition("tests/integration/on_")[2].partition("/")[0]
    return engine if engine in _ENGINES else nodeid if path.startswith("tests/docs/") else path


@pytest.fixture(autouse=True, scope="session")
def _loopback_is_direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Proxies of the environment are for other machines; what runs keep is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1,localhost")
        patch.setenv("PESTO_COSTS", str(tmp_path_factory.mktemp("costs")))
        patch.setenv("PESTO_STORE_PATIENCE", "3")  # tests of servers that are away end soon
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

    monkeypatch.setattr(publishing, "write_report", write_report)
