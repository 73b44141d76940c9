"""The worker loop against a server that refuses updates: leases, results, repeated attempts."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from pesto_conductor import worker_loop
from pesto_conductor.metrics import WorkerMetrics
from pesto_conductor.taskdefs import task_definition
from pesto_conductor.taskqueue import TaskQueue
from pesto_conductor.verbs import binding_of
from pesto_conductor.worker_loop import WorkerLoop
from pesto_runtime.contract import ChunkResult
from pesto_runtime.errors import Interrupted
from tests.support.commands import waited
from tests.support.task_server import task_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydantic import JsonValue

    from pesto_conductor.binding import TaskBinding, TaskContext
    from pesto_conductor.worker_loop import NewBindings
    from pesto_runtime.contract.base import ClosedValue
    from tests.support.task_server import TaskServer

DONE = ChunkResult(manifest="file:///m.json", tiles=1, reused=0, holes=0, blocks=1, bytes_read=0)


def chunk(phase: int = 0) -> dict[str, JsonValue]:
    return {"plan": "file:///plan.json", "phase": phase, "start": 0, "stop": 1}


@contextmanager
def working(
    server: TaskServer,
    serve: Callable[[ClosedValue, TaskContext], ClosedValue],
    *,
    types: Sequence[str] = ("pesto_process",),
    others: Sequence[str] = (),
    concurrency: int = 2,
    new_bindings: NewBindings | None = None,
) -> Iterator[None]:
    """Run a worker while the block runs; a function performs the chunks of some types."""
    chunks = replace(binding_of("pesto_process"), verb=serve)
    bindings = [replace(chunks, definition=task_definition(each)) for each in types]
    bindings += map(binding_of, others)
    stop = threading.Event()

    async def main() -> None:
        queue = TaskQueue(server.url)
        loop = WorkerLoop(queue, WorkerMetrics(), concurrency, new_bindings=new_bindings)
        work = asyncio.create_task(loop.run(bindings))
        await asyncio.to_thread(stop.wait)
        loop.drain()
        await work
        await queue.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def until(is_so: Callable[[], bool], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@dataclass
class Meeting:
    """Run chunks that wait until the expected number has begun, or until they are stopped."""

    expected: int
    events: list[str] = field(default_factory=list)

    def __call__(self, _request: ClosedValue, context: TaskContext) -> ChunkResult:
        """Run one."""
        self.events.append("begins")
        while self.events.count("begins") < self.expected:
            if context.observer.should_stop():
                self.events.append("stops")
                raise Interrupted("stopped")
            time.sleep(0.01)
        return DONE


def test_chunks_of_two_phases_are_made_at_once() -> None:
    """Equal chunk numbers in two phases are different chunks."""
    meeting = Meeting(expected=2)
    with task_server() as server, working(server, meeting):
        for phase in (0, 1):
            server.put(f"phase {phase}", chunk(phase))
        until(lambda: "stops" in meeting.events or all(map(server.ended, ("phase 0", "phase 1"))))
    assert meeting.events == ["begins", "begins"]
    assert server.ended("phase 0") == server.ended("phase 1") == ["COMPLETED"]


def test_a_chunk_is_never_made_by_two_attempts_at_once() -> None:
    """The control: an attempt that lost its lease ends, unreported, before the next one begins."""
    meeting = Meeting(expected=2)
    with task_server() as server, working(server, meeting):
        server.put("first", chunk())
        until(lambda: meeting.events == ["begins"])
        server.put("second", chunk())
        until(lambda: bool(server.ended("second")))
    assert meeting.events == ["begins", "stops", "begins"]
    assert (server.ended("first"), server.ended("second")) == ([], ["COMPLETED"])


def test_a_result_that_cannot_be_delivered_is_sent_again_with_growing_pauses() -> None:
    """A server that comes back is not flooded: the pauses are 0.2 s, 0.4 s, 0.8 s and so on."""
    with task_server() as server, working(server, lambda _request, _context: DONE):
        server.refusals = 3
        server.put("t", chunk())
        until(lambda: bool(server.ended("t")))
    came = [each.at for each in server.updates]
    assert [each.is_accepted for each in server.updates] == [False, False, False, True]
    pauses = [after - before for before, after in pairwise(came)]
    assert all(pause >= least for pause, least in zip(pauses, (0.2, 0.4, 0.8), strict=True)), pauses


def test_a_result_is_sent_again_if_the_server_limits_requests() -> None:
    """HTTP 429 asks for patience; 413 (control) refuses the result, and the task fails for good."""
    for refusal, status in ((429, "COMPLETED"), (413, "FAILED_WITH_TERMINAL_ERROR")):
        with task_server() as server, working(server, lambda _asked, _errand: DONE):
            server.refusals, server.refusal = 1, refusal
            server.put("t", chunk())
            until(lambda: bool(server.ended("t")))
        assert server.ended("t") == [status]


def test_silence_of_the_server_lasts_until_it_answers_a_poll() -> None:
    """A poll that failed is no sign of life, however often a worker polls."""
    metrics = WorkerMetrics()
    time.sleep(0.1)
    metrics.polled("pesto_process", responded=False)
    assert metrics.silence_s >= 0.1
    metrics.polled("pesto_process", responded=True)
    assert metrics.silence_s < 0.1


def test_a_lease_outlives_two_renewals_that_are_lost() -> None:
    """Three renewals fit into the response timeout, and one is enough."""
    is_renewed = threading.Event()

    def serve(_request: ClosedValue, _context: TaskContext) -> ChunkResult:
        is_renewed.wait(60)
        return DONE

    with task_server() as server, working(server, serve):
        server.refusals = 2
        server.put("t", chunk(), response_timeout_s=4)
        until(lambda: any(each.is_renewal and each.is_accepted for each in server.updates))
        is_renewed.set()
        until(lambda: bool(server.ended("t")))
    renewals = [each for each in server.updates if each.is_renewal]
    assert [each.is_accepted for each in renewals] == [False, False, True]
    assert renewals[-1].at - server.handed_out["t"] < 4
    assert server.ended("t") == ["COMPLETED"]


def test_an_idle_worker_rests_between_polls_until_it_has_a_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of all types at once; a type whose interval an operator has set is polled in between."""
    monkeypatch.setattr(worker_loop, "_RESTS_AFTER_S", 0.0)
    monkeypatch.setattr(worker_loop, "_LONGEST_REST_S", 3600.0)
    monkeypatch.setattr(worker_loop, "_IDLE_POLLS_PER_S", 0.001)
    monkeypatch.setenv("CONDUCTOR_WORKER_PESTO_PROCESS_POLL_INTERVAL", "50")
    others = ("pesto_plan", "pesto_close", "pesto_publish")
    with task_server() as server, working(server, lambda *_: DONE, others=others):
        waited(lambda: server.polls["pesto_process"] > 5 and len(server.polls) == 4)
        assert [server.polls[each] for each in others] == [1, 1, 1]
        server.put("t", chunk())
        waited(lambda: min(server.polls[each] for each in others) > 1)


@pytest.mark.parametrize("concurrency", [2, 3])
def test_tasks_of_all_types_together_are_at_most_as_many_as_the_concurrency(
    concurrency: int,
) -> None:
    """Of two types and six tasks; with one more (control), three of them meet."""
    meeting = Meeting(expected=3)
    with (
        task_server() as server,
        working(server, meeting, types=("pesto_process", "pesto_other"), concurrency=concurrency),
    ):
        for number in range(6):
            server.put(str(number), chunk(number))
        until(lambda: len(meeting.events) >= concurrency)
        time.sleep(1)
        assert (len(meeting.events) > 2) == (concurrency > 2)


def test_types_that_are_registered_later_are_polled_without_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are looked up from time to time; each is polled once it is there, not before."""
    monkeypatch.setattr(worker_loop, "_NEW_TYPES_S", 0.05)
    added: list[TaskBinding] = []

    async def new_bindings() -> list[TaskBinding]:
        found = [*added]
        added.clear()
        return found

    with task_server() as server, working(server, lambda *_: DONE, new_bindings=new_bindings):
        waited(lambda: server.polls["pesto_process"] > 1)
        assert [*server.polls] == ["pesto_process"]
        added.append(binding_of("pesto_cloud_mask"))
        waited(lambda: server.polls["pesto_cloud_mask"] > 1)


def test_a_result_is_reported_after_the_renewal_that_is_under_way() -> None:
    """A server that completes the renewal later would write the task as it was before."""

    def work(_request: ClosedValue, _context: TaskContext) -> ChunkResult:
        until(lambda: server.renewals_begun > 0)
        return DONE

    with task_server() as server, working(server, work):
        server.renewal_s = 0.5
        server.put("a", chunk(), response_timeout_s=1)
        until(lambda: server.ended("a") == ["COMPLETED"])
        time.sleep(1)
        assert [each.is_renewal for each in server.updates] == [True, False]


@pytest.mark.parametrize(
    ("why", "attempts", "reports"),
    [
        ("late", (0, 1), 0),
        ("late", (0,), 1),
        ("renewed late", (0, 1), 0),
        ("died", (0, 1), 0),
        ("in time", (0, 1), 1),
    ],
)
def test_the_result_of_an_attempt_with_a_successor_is_dropped(
    why: str, attempts: tuple[int, ...], reports: int
) -> None:
    """If the lease was renewed late, or a process with the task has died.

    The controls: without a successor the result is reported; in time, nothing is looked up.
    """

    def work(_request: ClosedValue, _context: TaskContext) -> ChunkResult:
        time.sleep(0.7 if "late" in why else 0)
        server.refusals = 0
        if why == "renewed late":
            until(lambda: any(each.is_renewal and each.is_accepted for each in server.updates))
        return DONE

    with task_server() as server, working(server, work):
        server.tasks = [
            {"taskId": f"a{number}", "referenceTaskName": "chunk", "retryCount": number}
            for number in attempts
        ]
        server.tasks.append({"taskId": "b", "referenceTaskName": "other", "retryCount": 7})
        server.refusals = 1 << 20
        server.put(
            "a0", chunk(), response_timeout_s=1 if "late" in why else 60, deaths=int(why == "died")
        )
        until(lambda: server.refusals == 0)
        time.sleep(1.5)
        assert server.ended("a0") == ["COMPLETED"] * reports
