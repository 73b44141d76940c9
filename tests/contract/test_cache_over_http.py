"""Runs over other windows take blocks of services from a cache, where the place has no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.commands import served
from tests.support.rasters import noise, write_scene
from tests.support.runs import PROCESSES, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.runs import Done

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("without_pictures")]

FIRST, SECOND = "0,0,1400,1300", "296,200,1400,1304"
"""With a margin of 1, block (1, 1) of 3 x 3 of the second lies inside both: 808 to 1320 and 712 to
1224."""


@pytest.mark.parametrize(
    ("process", "calls"),
    [("grow", 8), ("tops", 9)],  # the control is told its place in the scene
)
def test_overlapping_windows_share_calls_of_services(
    tmp_path: Path, process: str, calls: int
) -> None:
    """The count of calls, and the bytes of a run without a cache."""
    scene = write_scene(tmp_path / "s.tif", noise(1800, 1600))
    document = chain(process)
    name = process.replace("_", "-")
    with served(f"{PROCESSES}:{process}", "--allow", tmp_path) as url:

        def run(out: str, window: str, cache: str | None = str(tmp_path / "cache")) -> Done:
            return run_local(
                document, tmp_path / out, {"scene": f"{scene}#window={window}"}, tile=512,
                cache=cache, services=(f"{name}={url}",),
            )  # fmt: skip

        run("first", FIRST)
        second, reference = run("second", SECOND), run("reference", SECOND, None)
        again = run("again", SECOND)
    assert second.sha256() == reference.sha256() == again.sha256()
    assert [calls_of(each) for each in (second, reference, again)] == [calls, 9, 0]


def calls_of(done: Done) -> int:
    stages = done.result["stages"]
    assert isinstance(stages, dict)
    (stage,) = stages.values()
    assert isinstance(stage, dict)
    return int(str(stage["calls"]))
