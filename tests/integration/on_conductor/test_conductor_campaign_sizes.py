"""500 small scenes and three large ones in one campaign on a real Conductor, with two kills."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.following import tasks_of
from tests.support.campaign_sizes import DOCUMENT, KILLS, MOST_TASKS, TILE, SizesCampaign
from tests.support.conductor_workers import conductor_worker

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk, Document

pytestmark = [
    pytest.mark.integration, pytest.mark.conductor, pytest.mark.endurance,
    pytest.mark.timeout(1800),
]  # fmt: skip

_LOG = logging.getLogger(__name__)


def test_small_and_large_scenes_outlive_kills(conductor: Desk, tmp_path: Path) -> None:
    """Of the worker and of the server; a start with the same input touches the failed alone."""
    campaign = SizesCampaign(tmp_path)
    inputs: dict[str, JsonValue] = {
        "scenes": campaign.hrefs, "folder": str(campaign.out), "tile": TILE, "workers": 4,
        "max_tasks": MOST_TASKS,
    }  # fmt: skip

    def start() -> str:
        return conductor.start(DOCUMENT, inputs, domains={"*": "sizes"}, is_campaign=True)

    with conductor_worker(conductor.url, tmp_path, "--domain", "sizes", at_once=2) as worker:
        begun, identity = time.monotonic(), start()
        campaign.wait_for_packs(KILLS[0])
        os.kill(worker.child, signal.SIGKILL)
        campaign.wait_for_packs(KILLS[1])
        conductor.kill()
        conductor.up()
        first = conductor.ended(identity, 900)
        seconds = time.monotonic() - begun
        reason = str(first.get("reasonForIncompletion"))
        assert (first["status"], "[s007, large1]" in reason) == ("FAILED", True), reason
        campaign.require_all_but_the_unreadable()
        campaign.mend()
        begun = time.monotonic()
        second = conductor.ended(start(), 300)
        _LOG.warning("%.0f s, then %.0f s", seconds, time.monotonic() - begun)
        assert second["status"] == "COMPLETED", second.get("reasonForIncompletion")
    assert len(shared_tasks(first)) <= MOST_TASKS
    assert len(shared_tasks(second)) <= 2 * 25  # the tiles of two scenes, at most
    campaign.require_all()


def shared_tasks(workflow: Document) -> set[str]:
    """References of the tasks that compute chunks."""
    tasks = [each for each in tasks_of(workflow) if each["taskType"] == "pesto_process_scenes"]
    assert tasks
    return {str(each["referenceTaskName"]) for each in tasks}
