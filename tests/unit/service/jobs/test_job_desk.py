"""The desk of jobs on an event loop, with threads that run them: what must hold in every race."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import Busy, StoreFailed
from pesto_runtime.hrefs import Gate
from pesto_runtime.processor import load_processor
from pesto_runtime.service.jobs.manager import JobManager
from pesto_runtime.service.jobs.results import JobRequest
from pesto_runtime.service.jobs.states import JobOptions
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.runner import Payload
from pesto_runtime.service.threads import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ERRAND = "tests/contract/errands.py:errand"


@asynccontextmanager
async def opened(
    root: Path, *, waiting: int = 100, ttl_s: float = 3600.0
) -> AsyncIterator[JobManager]:
    """A desk over one thread, ready."""
    limits = Limits(workers=1)
    runs = ThreadRunner(load_processor(ERRAND), gate=Gate(local_files=True), limits=limits)
    options = JobOptions(folder=root / "jobs", waiting=waiting, ttl_s=ttl_s)
    desk = JobManager(runs, options, most_running=1)
    await desk.open()
    runs.start(lambda: None)
    await until(lambda: runs.state == "OK")
    try:
        yield desk
    finally:
        await desk.close()
        await runs.close()


def order(root: Path, name: str, seconds: float = 0.0, **changes: object) -> JobRequest:
    """An errand."""
    body = json.dumps({"path": str(root / "told"), "name": name, "seconds": seconds}).encode()
    payload = Payload(body, "application/json", {}, "")
    return JobRequest(payload, **changes)  # type: ignore[arg-type]  # the test's own


def told(root: Path) -> list[str]:
    """What the errands left."""
    path = root / "told"
    return path.read_text().splitlines() if path.exists() else []


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)


def test_too_many_jobs_that_wait_are_refused(tmp_path: Path) -> None:
    """Busy, to be asked again; what is refused leaves nothing behind."""

    async def main() -> None:
        async with opened(tmp_path, waiting=2) as desk:
            await desk.submit(order(tmp_path, "a", 0.5))
            await until(lambda: desk.running == 1)
            waits = [await desk.submit(order(tmp_path, name)) for name in "bc"]
            with pytest.raises(Busy, match="2 jobs wait"):
                await desk.submit(order(tmp_path, "d"))
            assert desk.counts() == {"accepted": 2, "running": 1}
            for each in waits:
                assert (await desk.wait(each.id, 10)).state == "successful"

    asyncio.run(main())
    assert told(tmp_path) == [f"{what} {name}" for name in "abc" for what in ("begin", "end")]


def test_a_submission_whose_caller_goes_is_a_job_or_none(tmp_path: Path) -> None:
    """Whenever it goes: no files without a record, no record without files."""

    async def main() -> None:
        async with opened(tmp_path) as desk:
            for turns in range(12):
                caller = asyncio.create_task(desk.submit(order(tmp_path, f"n{turns}")))
                for _ in range(turns):
                    await asyncio.sleep(0)
                caller.cancel()
                await asyncio.gather(caller, return_exceptions=True)
            last = await desk.submit(order(tmp_path, "last"))
            await desk.wait(last.id, 10)
            kept = await desk.ids()
            files = {path.name for path in (tmp_path / "jobs" / "files").iterdir()}
            assert files == set(kept)
            assert {(await desk.wait(each, 10)).state for each in kept} == {"successful"}
            assert len(kept) > 1

    asyncio.run(main())


def test_a_job_that_cannot_be_recorded_leaves_no_files(tmp_path: Path) -> None:
    """As on a full disk: the caller receives the error; with room (control) the job is kept."""

    async def main() -> None:
        async with opened(tmp_path) as desk:
            files = tmp_path / "jobs" / "files"
            with closing(sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite")) as db:
                db.execute(
                    "CREATE TRIGGER full BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'full'); "
                    "END"
                )
                with pytest.raises(StoreFailed, match="full"):
                    await desk.submit(order(tmp_path, "a"))
                assert list(files.iterdir()) == []
                db.execute("DROP TRIGGER full")
            job = await desk.submit(order(tmp_path, "b"))
            assert [path.name for path in files.iterdir()] == [job.id]

    asyncio.run(main())


def test_dismissing_a_job_of_a_thread_drops_it_though_it_goes_on(tmp_path: Path) -> None:
    """A thread cannot be stopped; what it answers is dropped, and the job stays dismissed."""

    async def main() -> None:
        async with opened(tmp_path) as desk:
            runs = await desk.submit(order(tmp_path, "a", 0.5, key="k"))
            waits = await desk.submit(order(tmp_path, "b"))
            await until(lambda: told(tmp_path) == ["begin a"])
            both = await asyncio.gather(*(desk.dismiss(runs.id, "test") for _ in range(3)))
            assert {each.state for each in both} == {"dismissed"}
            assert (await desk.wait(waits.id, 10)).state == "successful"
            assert (await desk.find(runs.id)).state == "dismissed"

    asyncio.run(main())
    assert told(tmp_path)[:2] == ["begin a", "end a"]


def test_a_lease_does_not_lapse_while_a_client_waits(tmp_path: Path) -> None:
    """However long a client waits; the lease begins anew once its request is answered.

    The control is a job that outlives its lease without a client.
    """

    async def main() -> None:
        async with opened(tmp_path) as desk:
            job = await desk.submit(order(tmp_path, "a", 1.6, lease_s=0.4))
            early = await desk.wait(job.id, 0.9)
            lease_until = desk.lease_until(job.id)
            assert not early.is_over
            assert lease_until is not None
            assert 0.3 < lease_until - time.time() <= 0.4
            assert (await desk.wait(job.id, None)).state == "successful"
            left = await desk.submit(order(tmp_path, "b", 1.0, lease_s=0.4))
            await asyncio.sleep(0.9)
            assert (await desk.wait(left.id, None)).state == "dismissed"

    asyncio.run(main())


def test_an_end_that_cannot_be_kept_is_told_and_kept_later(tmp_path: Path) -> None:
    """As on a full disk: who waits is answered, and the record is there as soon as it can be."""

    async def main() -> None:
        async with opened(tmp_path) as desk:
            job = await desk.submit(order(tmp_path, "a", 0.5))
            await until(lambda: told(tmp_path) == ["begin a"])
            with closing(sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite")) as db:
                db.execute("ALTER TABLE jobs RENAME TO away")
                assert (await desk.wait(job.id, 10)).state == "successful"
                await asyncio.sleep(0.6)
                db.execute("ALTER TABLE away RENAME TO jobs")
                query = "SELECT state FROM jobs"
                await until(lambda: db.execute(query).fetchone() == ("successful",))
            assert (await desk.find(job.id)).state == "successful"

    asyncio.run(main())
    assert told(tmp_path) == ["begin a", "end a"]


def test_what_a_closed_desk_leaves_is_taken_up(tmp_path: Path) -> None:
    """What ran and what waited, in their order; what had ended is still known."""

    async def main() -> None:
        async with opened(tmp_path) as desk:
            done = await desk.submit(order(tmp_path, "a"))
            await desk.wait(done.id, 10)
            rest = [await desk.submit(order(tmp_path, name, 0.3)) for name in "bcd"]
            await until(lambda: "begin b" in told(tmp_path))
        async with opened(tmp_path) as desk:
            assert (await desk.find(done.id)).state == "successful"
            ended = [await desk.wait(each.id, 10) for each in rest]
            assert [each.state for each in ended] == ["successful"] * 3
            assert [each.crashes for each in ended] == [0, 0, 0]
            moments = [each.started or 0 for each in ended]
            assert moments == sorted(moments)

    asyncio.run(main())
    ends = [line for line in told(tmp_path) if line.startswith("end")]
    assert [ends[0], *ends[-2:]] == ["end a", "end c", "end d"]


@pytest.mark.parametrize("shift_s", [7200.0, -7200.0])
def test_leases_and_results_ignore_a_changed_system_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    """Two hours forward, or back: what has time left stays; what has none ends (the controls)."""
    real = time.time

    async def main() -> None:
        async with opened(tmp_path, ttl_s=60.0) as desk:
            done = await desk.submit(order(tmp_path, "done"))
            await desk.wait(done.id, 10)
            running = await desk.submit(order(tmp_path, "running", 2.0, lease_s=30.0))
            short = await desk.submit(order(tmp_path, "short", lease_s=0.6))
            monkeypatch.setattr(time, "time", lambda: real() + shift_s)
            await until(lambda: short.id not in desk._active)
            assert (await desk.find(short.id)).state == "dismissed"
            assert (await desk.find(running.id)).state == "running"
            assert (await desk.find(done.id)).is_kept
            ended = await desk.wait(running.id, 10)
            assert ended.state == "successful"
            assert ended.finished is not None
            assert ended.started is not None
            assert 1.5 < ended.finished - ended.started < 20

    asyncio.run(main())


@pytest.mark.parametrize("shift_s", [0.0, -7200.0])
def test_results_expire_whatever_the_system_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    """After half a second; a clock that was set back does not keep them for two hours more."""
    real = time.time

    async def main() -> None:
        async with opened(tmp_path, ttl_s=0.5) as desk:
            done = await desk.submit(order(tmp_path, "done"))
            await desk.wait(done.id, 10)
            monkeypatch.setattr(time, "time", lambda: real() + shift_s)
            async with asyncio.timeout(10):
                while (await desk.find(done.id)).is_kept:  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(0.05)

    asyncio.run(main())
