"""500 small scenes and three large ones in one campaign, which is killed on the way."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.campaign_sizes import DOCUMENT, KILLS, MOST_TASKS, TILE, SizesCampaign
from tests.support.commands import saved, started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.endurance, pytest.mark.timeout(3000)]


def ended(*words: object) -> int:
    """The exit code of a command that takes minutes."""
    with started(*words) as process:
        return process.wait(1800)


@pytest.mark.parametrize("options", [(), ("--only-failed",)])
def test_small_and_large_scenes_outlive_kills(tmp_path: Path, options: tuple[str, ...]) -> None:
    """The bytes of each scene alone; two unreadable scenes fail, and a rerun touches them alone."""
    campaign = SizesCampaign(tmp_path)
    listed = saved(tmp_path / "list.json", campaign.hrefs)  # type: ignore[arg-type]  # a list
    words = ["run", saved(tmp_path / "p.json", DOCUMENT), "--scenes", listed, "-o", campaign.out,
             "--tile", TILE, "--max-tasks", MOST_TASKS]  # fmt: skip
    for kill_at in KILLS:
        with started(*words) as process:
            campaign.wait_for_packs(kill_at)
            os.kill(process.pid, signal.SIGKILL)
    assert ended(*words) == 3
    campaign.require_all_but_the_unreadable()
    campaign.mend()
    assert ended(*words, *options) == 0
    campaign.require_all()
