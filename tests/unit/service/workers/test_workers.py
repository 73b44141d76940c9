"""Workers, asked without HTTP: what is heard, what is waited for, what setting up tells."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import AlgorithmFailed, InvalidInput, NotFound, PestoError
from pesto_runtime.hrefs import Gate
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.logs import bound, fields_now
from pesto_runtime.service.runner import Payload, no_log, no_progress
from pesto_runtime.service.workers.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pesto_runtime.service.runner import CallResponse

HAZARDS = "tests/contract/hazards.py:"
SET_UP = """
import os, pesto_runtime
def prepare():
    print("a model is loaded")
    pesto_runtime.log("and warmed up")
    {then}
@pesto_runtime.process(version="1", setup=prepare)
def ready(number: float) -> float:
    return number
"""


@asynccontextmanager
async def working(
    target: str, *, count: int = 1, timeout_s: float = 60
) -> AsyncIterator[WorkerPool]:
    """Workers that are ready, or failed."""
    limits = Limits(workers=count, timeout_s=timeout_s, refuse_unknown=False)
    workers = WorkerPool(target, gate=Gate(local_files=True), limits=limits)
    await workers.load()
    workers.start(lambda: None)
    try:
        async with asyncio.timeout(20):
            while workers.state == "STARTING":  # noqa: ASYNC110  # a failure calls nobody
                await asyncio.sleep(0.01)
        yield workers
    finally:
        await workers.close()


def payload(**inputs: object) -> Payload:
    """A call with JSON."""
    return Payload(json.dumps(inputs).encode(), "application/json", {}, "")


async def ask(workers: WorkerPool, **inputs: object) -> CallResponse:
    """Call, and hear nothing."""
    return await workers.run(payload(**inputs), on_progress=no_progress, on_log=no_log)


def test_what_an_algorithm_tells_arrives_in_its_order() -> None:
    """Printed, logged, from threads; progress as it goes, the last one always."""
    lines: list[str] = []
    progress: list[tuple[float, float]] = []

    async def scene() -> None:
        async with working(HAZARDS + "chatter") as workers:
            answer = await workers.run(
                payload(lines=2),
                on_progress=lambda done, total: progress.append((done, total)),
                on_log=lines.append,
            )
            assert json.loads(answer.whole()) == {"told": 2}

    asyncio.run(scene())
    assert lines == ["printed 0", "printed 1", "told", "in two", "from a thread"]
    assert progress == [(1.0, 4.0), (4.0, 4.0)]


def test_what_a_call_says_of_its_tile_is_in_the_lines_about_it() -> None:
    """Those that the algorithm told while it ran, and those that follow; not in the next call's."""
    seen: list[object] = []
    tile = {"read": [0, 0, 8, 8], "write": [1, 1, 6, 6], "scene_size": [8, 8]}

    async def scene() -> None:
        async with working(HAZARDS + "chatter") as workers:
            for options in ({"tile": tile}, {}):
                with bound(job="7"):
                    await workers.run(
                        payload(lines=1, pesto=options),
                        on_progress=no_progress,
                        on_log=lambda _line: seen.append(dict(fields_now())),
                    )
                    seen.append(dict(fields_now()))

    asyncio.run(scene())
    told, silent = {"job": "7", "tile": "1,1,6,6"}, {"job": "7"}
    assert seen == [told] * 5 + [silent] * 5


def test_a_flood_of_lines_is_cut() -> None:
    """The service keeps a bounded number, and says that there were more."""
    lines: list[str] = []

    async def scene() -> None:
        async with working(HAZARDS + "chatter") as workers:
            await workers.run(payload(lines=5000), on_progress=no_progress, on_log=lines.append)
            again: list[str] = []
            await workers.run(payload(lines=1), on_progress=no_progress, on_log=again.append)
            assert again[0] == "printed 0"  # the next call counts anew

    asyncio.run(scene())
    assert len(lines) == 2000
    assert lines[-1] == "over 2000 lines; further lines are not stored"


@pytest.mark.parametrize("size", [10, 65_536, 1 << 20, 9 << 20])
def test_bytes_of_any_size_come_back_as_they_went(size: int) -> None:
    """Through the pipe and through memory, one after the other; 9 MiB are given back after."""
    text = "".join(chr(32 + index % 90) for index in range(size)).replace('"', "'")

    async def scene() -> None:
        async with working(HAZARDS + "echo") as workers:
            for times in (1, 2):
                answer = await ask(workers, text=text[: size // times], times=times)
                assert json.loads(answer.whole()) == {"text": text[: size // times] * times}

    asyncio.run(scene())


def test_a_refused_request_is_the_same_error_as_in_a_thread() -> None:
    """Kind, text and every field; the worker goes on."""

    async def scene() -> InvalidInput:
        async with working(HAZARDS + "echo") as workers:
            with pytest.raises(InvalidInput) as caught:
                await ask(workers, text=5, times="many")
            before = workers.process_ids
            await ask(workers, text="a")
            assert workers.process_ids == before
            return caught.value

    error = asyncio.run(scene())
    assert [field.pointer for field in error.fields] == ["/text", "/times"]
    assert not error.retryable


def test_a_cancelled_call_waiting_for_its_turn_costs_no_worker(tmp_path: Path) -> None:
    """Only cancelling the one that runs kills a process; its control does."""

    async def scene() -> None:
        async with working(HAZARDS + "hazard") as workers:
            (worker,) = workers.process_ids
            late = {"how": "late", "path": f"{tmp_path}/a", "seconds": 0.5}
            running = asyncio.ensure_future(ask(workers, **late))
            waiting = asyncio.ensure_future(ask(workers, how="tell"))
            await asyncio.sleep(0.1)
            waiting.cancel()
            assert json.loads((await running).whole()) == {"worker": worker}
            control = asyncio.ensure_future(ask(workers, **late))
            await asyncio.sleep(0.1)
            control.cancel()
            answer = await ask(workers, how="tell")
            assert json.loads(answer.whole()) != {"worker": worker}

    asyncio.run(scene())


def test_a_worker_that_is_lost_gets_no_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither after it died idle, nor after it died at work: no call has to be handed on."""

    async def scene() -> None:
        async with working(HAZARDS + "hazard") as workers:
            (idle,) = workers.process_ids
            os.kill(idle, signal.SIGKILL)
            while workers.process_ids in ((idle,), ()):  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.001)
            answer = json.loads((await ask(workers, how="tell")).whole())
            (at_work,) = workers.process_ids
            assert answer == {"worker": at_work}
            with pytest.raises(AlgorithmFailed, match="exit status 3"):
                await ask(workers, how="exit")
            answer = json.loads((await ask(workers, how="tell")).whole())
            assert answer["worker"] not in (idle, at_work)

    asyncio.run(scene())
    assert [each.getMessage() for each in caplog.records] == []


def test_each_late_call_is_stopped_at_its_own_deadline(tmp_path: Path) -> None:
    """There is one timer for all: it is set again for the call that began later."""

    async def scene() -> float:
        async with working(HAZARDS + "hazard", count=2, timeout_s=2) as workers:
            nap = {"how": "late", "seconds": 30}
            first = asyncio.ensure_future(ask(workers, path=f"{tmp_path}/a", **nap))
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            second = asyncio.ensure_future(ask(workers, path=f"{tmp_path}/b", **nap))
            async with asyncio.timeout(20):
                for call in (first, second):
                    with pytest.raises(AlgorithmFailed, match="no response within 2 s"):
                        await call
            return asyncio.get_running_loop().time() - began

    assert asyncio.run(scene()) >= 2


def test_every_late_call_is_stopped_and_not_only_the_first(tmp_path: Path) -> None:
    """Two calls of a minute, where 1.5 s are allowed; a quick one (control) is answered."""

    async def scene() -> None:
        async with working(HAZARDS + "hazard", timeout_s=1.5) as workers:
            for _ in range(2):
                with pytest.raises(AlgorithmFailed, match=r"within 1\.5 s"):
                    async with asyncio.timeout(20):
                        await ask(workers, how="late", path=f"{tmp_path}/a", seconds=60)
            await ask(workers, how="tell")

    asyncio.run(scene())
    assert not (tmp_path / "a").exists()


def test_set_up_is_told_line_by_line(tmp_path: Path) -> None:
    """What the author's set-up prints and logs is in the set-up log; it ends with its time."""
    (tmp_path / "ready.py").write_text(SET_UP.format(then=""))

    async def scene() -> tuple[str, ...]:
        async with working(f"{tmp_path}/ready.py:ready") as workers:
            assert workers.state == "OK"
            return workers.setup_log

    began, *lines, ended = asyncio.run(scene())
    assert began == "set-up began"
    assert lines == ["a model is loaded", "and warmed up"]
    assert ended.startswith("set-up done after ")


@pytest.mark.parametrize(
    ("then", "told"), [("raise OSError('no model')", "no model"), ("os._exit(4)", "exit status 4")]
)
def test_a_set_up_that_fails_is_told_to_every_caller(then: str, told: str, tmp_path: Path) -> None:
    """Raised or died: not retryable, and nothing is left that runs."""
    (tmp_path / "ready.py").write_text(SET_UP.format(then=then))

    async def scene() -> None:
        async with working(f"{tmp_path}/ready.py:ready", count=2) as workers:
            assert workers.state == "FAILED"
            assert told in workers.setup_log[-1]
            with pytest.raises(AlgorithmFailed, match=told) as caught:
                await ask(workers, number=1)
            assert not caught.value.retryable
            assert workers.process_ids == ()

    asyncio.run(scene())


def test_a_target_that_cannot_be_loaded_is_refused_before_it_is_served() -> None:
    """The error is the loader's own, and its workers are gone."""

    async def scene() -> PestoError:
        workers = WorkerPool(
            HAZARDS + "nobody", gate=Gate(local_files=True), limits=Limits(workers=2)
        )
        with pytest.raises(NotFound) as caught:
            await workers.load()
        assert workers.process_ids == ()
        return caught.value

    assert "hazards.py:chatter" in str(asyncio.run(scene()))
