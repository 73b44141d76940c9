"""A hundred workflows at once on one worker: all complete, and its memory does not grow."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.commands import waited
from tests.support.conductor_workers import conductor_worker
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import chain

if TYPE_CHECKING:
    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk

pytestmark = [
    pytest.mark.integration, pytest.mark.conductor, pytest.mark.endurance,
    pytest.mark.timeout(1800),
]  # fmt: skip

_LOG = logging.getLogger(__name__)
COUNT = 100
MOST_GROWTH_MB = 40
"""Of the second fifty workflows; a leak of one scene each is more than twice as much."""


def memory_mb(pid: int) -> int:
    """Resident memory of a process."""
    (line,) = [e for e in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in e]
    return int(line.split()[1]) >> 10


def test_a_hundred_workflows_at_once_leave_the_memory_as_it_is(
    conductor: Desk, tmp_path: Path
) -> None:
    """No attempt is lost, and every product is right."""
    scene = write_scene(tmp_path / "s.tif", noise(1024, 1024))
    document = chain("grow")

    def inputs(number: int) -> dict[str, JsonValue]:
        return {"scene": str(scene), "folder": str(tmp_path / str(number)), "tile": 512,
                "workers": 4}  # fmt: skip

    def ended() -> int:
        return len(list(tmp_path.glob("*/result.json")))

    with conductor_worker(conductor.url, tmp_path, "--domain", "load", at_once=4) as worker:
        runs = [
            conductor.start(document, inputs(number), domains={"*": "load"})
            for number in range(COUNT)
        ]
        found = []
        for count in (COUNT // 4, COUNT // 2, 3 * COUNT // 4, COUNT):
            waited(lambda count=count: ended() >= count, 600)  # type: ignore[misc]
            found.append(memory_mb(worker.child))
        _LOG.warning("MB after each quarter: %s", found)
        for identity in runs:
            workflow = conductor.ended(identity, 120)
            assert workflow["status"] == "COMPLETED", workflow.get("reasonForIncompletion")
            attempts = conductor.tasks(identity)
            assert [each["status"] for each in attempts] == ["COMPLETED"] * len(attempts)
        assert found[-1] < found[1] + MOST_GROWTH_MB
    assert len({sha256_of(each) for each in tmp_path.glob("*/image.tif")}) == 1
