"""`pesto plan` by numbers of workers and prices; limits that an engine or campaign refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from pesto_runtime.cli.main import app
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

_SCENE = ["workflows/cloud_cover.json", "-i", "scene=examples/data/landsat8_cloudy.tif"]


def test_a_plan_has_a_curve_and_its_price(tmp_path: Path) -> None:
    """More workers take less time; the price is that of cores and memory over the time."""
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"core_hour": 3600, "gb_hour": 360, "currency": "EUR"}))
    words = ["plan", *_SCENE, "--tile", "128", "--workers", "2", "--prices", str(prices)]
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    curve = document["curve"]
    assert [each["workers"] for each in curve] == [1, 2, 4, 8, 16]
    seconds = [each["seconds"] for each in curve]
    assert seconds == sorted(seconds, reverse=True)
    for each in (document["cost"], *curve):
        hourly = each["workers"] * 1 + each["memory_bytes"] / 1e9 * 0.1
        assert each["price"] == pytest.approx(each["seconds"] * hourly)
    shown = CliRunner().invoke(app, words).stdout
    assert " EUR with 2 threads" in shown
    assert "16: " in shown
    without = json.loads(CliRunner().invoke(app, ["plan", *_SCENE, "--json"]).stdout)
    assert without["cost"]["price"] == 0


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--budget", "1"], "--prices"),
        (["--deadline", "soon"], "1h30m"),
        (["--deadline", "1h", "--engine", "conductor"], "timeoutSeconds"),
        (["--deadline", "1h", "--engine", "airflow"], "execution_timeout"),
    ],
)
def test_limits_that_cannot_hold_are_refused(tmp_path: Path, words: list[str], fault: str) -> None:
    """Before anything runs."""
    found = CliRunner().invoke(app, ["run", *_SCENE, "-o", str(tmp_path / "out"), *words])
    assert isinstance(found.exception, InvalidInput)
    assert fault in str(found.exception)
    assert not (tmp_path / "out" / "result.json").exists()
