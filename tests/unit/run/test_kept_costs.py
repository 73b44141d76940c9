"""What stages took in earlier runs: kept by build, and used where nothing can be measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.run.costs import run_cost
from pesto_runtime.run.kept_costs import StageRate, kept_rate
from pesto_runtime.run.local import sizing_of
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import Planned, plan
from pesto_runtime.run.services import resolve_services
from tests.support import resolutions
from tests.support.rasters import noise, write_scene
from tests.support.runs import ROOT, run_local

if TYPE_CHECKING:
    from pathlib import Path

TWO_PHASES: dict[str, Any] = {
    "name": "two", "inputs": {"scene": "image"},
    "services": {name: f"{resolutions.__file__}:{name}" for name in ("counted", "bright")},
    "stages": [
        {"id": "c", "process": "counted", "inputs": {"image": "$inputs.scene"}},
        {"id": "b", "process": "bright", "inputs": {"image": "$inputs.scene",
                                                   "above": "$c.brightest"}},
    ],
    "outputs": {"bright": "$b.pixels"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own."""
    monkeypatch.setenv("PESTO_COSTS", str(tmp_path / "costs"))
    return tmp_path / "costs"


def planned(folder: Path) -> Planned:
    pipeline = Pipeline.parse(TWO_PHASES)
    services = resolve_services(pipeline, base=ROOT)
    inputs = read_inputs(pipeline, services, {"scene": str(folder / "s.tif")})
    sizing = sizing_of(workers=1, tile=None, max_tasks=4)
    return plan(pipeline, services, inputs, store="file:///", sizing=sizing)


def test_a_finished_run_keeps_what_its_stages_took(tmp_path: Path, costs: Path) -> None:
    """By build: pixels of its tiles, seconds of its calls. A second run halves the first."""
    write_scene(tmp_path / "s.tif", noise(600, 500))
    given = {"scene": str(tmp_path / "s.tif")}
    run_local(TWO_PHASES, tmp_path / "one", given, tile=None)
    found = planned(tmp_path).plan.services
    first = kept_rate(found["counted"])
    assert first is not None
    assert first.pixels == 600 * 500
    assert first.seconds > 0
    run_local(TWO_PHASES, tmp_path / "two", given, tile=None)
    second = kept_rate(found["counted"])
    assert second is not None
    assert second.pixels == 1.5 * 600 * 500
    assert second.seconds > 0.5 * first.seconds
    other = found["counted"].model_copy(update={"build": "other"})
    assert kept_rate(other) is None
    assert len(list(costs.iterdir())) == 2


def test_a_later_phase_takes_as_long_as_in_earlier_runs(tmp_path: Path) -> None:
    """With a kept rate of 1 ms a pixel, the estimate grows by that; without, it is nominal."""
    write_scene(tmp_path / "s.tif", noise(600, 500))
    before = run_cost(planned(tmp_path), workers=1)
    assert "earlier runs" not in before.basis
    found = planned(tmp_path)
    run_local(TWO_PHASES, tmp_path / "out", {"scene": str(tmp_path / "s.tif")}, tile=None)
    for path in (tmp_path / "costs").iterdir():
        path.write_text(json.dumps({"pixels": 1000.0, "seconds": 1.0, "cpu_seconds": 1.0}))
    after = run_cost(found, workers=1)
    assert after.basis.endswith("and earlier runs")
    # The first phase is measured, and not taken from what was kept: 300 s for each.
    assert 299 < after.seconds < 320


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pixels": 0, "seconds": 1, "cpu_seconds": 1}'])
def test_a_damaged_file_is_no_rate(tmp_path: Path, text: str) -> None:
    """It is replaced by the next run."""
    write_scene(tmp_path / "s.tif", noise(60, 50))
    run_local(TWO_PHASES, tmp_path / "out", {"scene": str(tmp_path / "s.tif")}, tile=None)
    service = planned(tmp_path).plan.services["counted"]
    assert kept_rate(service) is not None
    for path in (tmp_path / "costs").iterdir():
        path.write_text(text)
    assert kept_rate(service) is None


def test_a_folder_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PESTO_COSTS", str(tmp_path / "file" / "costs"))
    write_scene(tmp_path / "s.tif", noise(60, 50))
    done = run_local(TWO_PHASES, tmp_path / "out", {"scene": str(tmp_path / "s.tif")}, tile=None)
    assert done.result["status"] == "COMPLETE"


def test_rates_are_joined_by_their_pixels() -> None:
    """By hand: half of the earlier run."""
    assert StageRate(10, 4, 2).joined(StageRate(20, 2, 6)) == StageRate(20, 5, 5)
    assert StageRate(10, 4, 2).joined(None) == StageRate(10, 4, 2)
