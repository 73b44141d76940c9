"""A worker that dies in the instant it is handed a call: only what it began is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import AlgorithmFailed, Busy
from tests.unit.service.workers.test_workers import HAZARDS, ask, working

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_runtime.service.workers.pool import WorkerPool

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("padding", [0, 1 << 20])
def test_a_call_that_was_not_begun_goes_to_another_worker(padding: int) -> None:
    """The worker is stopped, handed a call, and killed; the next one answers, large body or not."""

    async def scene() -> None:
        async with working(HAZARDS + "hazard") as workers:
            (victim,) = workers.process_ids
            os.kill(victim, signal.SIGSTOP)
            call = asyncio.ensure_future(ask(workers, how="tell", padding="a" * padding))
            await asyncio.sleep(0.2)
            assert not call.done()
            os.kill(victim, signal.SIGKILL)
            answer = json.loads((await call).whole())
            assert answer == {"worker": workers.process_ids[0]}
            assert answer != {"worker": victim}

    asyncio.run(scene())


@pytest.mark.parametrize("padding", [0, 1 << 20])
def test_a_call_that_was_begun_is_not_begun_again(padding: int, tmp_path: Path) -> None:
    """Control: killed at work, it is lost, and told so; nobody knows what it has done already."""
    path = tmp_path / "a"

    async def scene() -> None:
        async with working(HAZARDS + "hazard") as workers:
            (victim,) = workers.process_ids
            late = {"how": "late", "path": str(path), "seconds": 5, "padding": "a" * padding}
            call = asyncio.ensure_future(ask(workers, **late))
            while not path.with_suffix(".began").exists():  # noqa: ASYNC110  # another process makes it
                await asyncio.sleep(0.01)
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(AlgorithmFailed, match="SIGKILL"):
                await call

    asyncio.run(scene())


async def _answering(workers: WorkerPool, inputs: dict[str, object]) -> set[int]:
    """The processes that answer three calls at once."""
    answers = await asyncio.gather(*(ask(workers, **inputs) for _ in range(3)))
    return {json.loads(each.whole())["worker"] for each in answers}


def test_workers_that_keep_dying_are_not_handed_a_call_for_ever(tmp_path: Path) -> None:
    """Three die before they begin; then the caller is told to come again."""

    async def scene() -> int:
        async with working(HAZARDS + "hazard", count=3) as workers:
            naps = {"how": "late", "path": str(tmp_path / "a"), "seconds": 0.3}
            while len(victims := await _answering(workers, naps)) < 3:
                continue
            for victim in victims:
                os.kill(victim, signal.SIGSTOP)
            call = asyncio.ensure_future(ask(workers, how="tell"))
            for _ in victims:
                await asyncio.sleep(0.1)
                assert not call.done()
                (handed,) = workers.running_process_ids
                assert handed in victims
                os.kill(handed, signal.SIGKILL)
            with pytest.raises(Busy, match="before it began") as caught:
                await call
            assert caught.value.retryable
            return len(victims)

    assert asyncio.run(scene()) == 3
