"""A warp, images of two resolutions and folded values on Conductor: the local engine's results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.conductor_workers import conductor_worker
from tests.support.engine_resolutions import DOCUMENT, TwoPlaces

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(300)]


def test_a_run_and_a_campaign_give_the_results_of_the_local_engine(
    conductor: Desk, tmp_path: Path
) -> None:
    """All bytes and values, of one scene and of two."""
    places, alone, out = TwoPlaces(tmp_path), tmp_path / "alone", tmp_path / "out"
    domains = {"*": "places"}
    with conductor_worker(conductor.url, tmp_path, "--domain", "places"):
        run: dict[str, JsonValue] = {**places.given("north"), "folder": str(alone), "max_tasks": 3}
        campaign: dict[str, JsonValue] = {
            "scenes": places.scenes, "folder": str(out), "max_tasks": 3,
        }  # fmt: skip
        started = [
            conductor.start(DOCUMENT, run, domains=domains),
            conductor.start(DOCUMENT, campaign, domains=domains, is_campaign=True),
        ]
        for workflow in [conductor.ended(each, 120) for each in started]:
            assert workflow["status"] == "COMPLETED", workflow.get("reasonForIncompletion")
    campaign_folders = [(name, out / name) for name in places.names]
    places.require_local_results(("north", alone), *campaign_folders)
