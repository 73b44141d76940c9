"""The command line inside this process: its words, its exit code, and nothing mocked."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.cli import main
from tests.support.commands import Said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.commands import Command


@pytest.fixture
def pesto(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command; fails where it shows a traceback."""

    def command(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["pesto", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        assert "Traceback" not in output.err + output.out
        return Said(int(ended.value.code or 0), output.out, output.err)

    before = signal.getsignal(signal.SIGTERM)
    yield command
    signal.signal(signal.SIGTERM, before)
