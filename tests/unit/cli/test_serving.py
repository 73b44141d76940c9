"""What `pesto serve` makes of its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from pesto_runtime.cli.main import app
from pesto_runtime.service import server

if TYPE_CHECKING:
    from pesto_runtime.service.limits import Limits


@pytest.mark.parametrize(
    ("given", "expected"), [([], 3600), (["--timeout", "0"], None), (["--timeout", "2.5"], 2.5)]
)
def test_no_seconds_are_any_time(
    given: list[str], expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--timeout 0` switches the time of a call off; without the option there is one."""
    found: list[Limits] = []

    def serve(_target: str, *, limits: Limits, **_others: object) -> None:
        found.append(limits)

    monkeypatch.setattr(server, "serve", serve)
    result = CliRunner().invoke(app, ["serve", "a.py:b", *given])
    assert result.exit_code == 0, result.output
    assert [each.timeout_s for each in found] == [expected]
