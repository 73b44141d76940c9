"""Workers return what a dead process had, and find JOINs that nobody evaluates."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pesto_conductor import wakeups
from pesto_conductor.errors import DEATHS, died_with
from pesto_conductor.following import tasks_of
from pesto_conductor.joins import dead_end, wedged_joins
from pesto_conductor.journal import Journal
from pesto_conductor.metrics import WorkerMetrics
from pesto_conductor.polling import PollSettings
from pesto_conductor.taskqueue import Assignment, TaskQueue
from pesto_conductor.wakeups import Wakeups
from tests.support.task_server import task_server

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    Document = dict[str, JsonValue]


def assignment(name: str) -> Assignment:
    return Assignment(name, "pesto_process", "w", {"plan": "file:///p.json"}, 30.0)


def test_the_next_process_reads_the_tasks_that_were_in_hand(tmp_path: Path) -> None:
    """Those that had ended are not among them, and neither is the part of a line."""
    first = Journal(tmp_path / "journal")
    first.take_over("host-1")
    for name in ("a", "b", "c"):
        first.began(assignment(name))
    first.ended(assignment("b"))
    with (tmp_path / "journal").open("a") as file:
        file.write('{"identity": "d", "ty')
    found = Journal(tmp_path / "journal").take_over("host-2")
    assert [*found.tasks] == ["a", "c"]
    assert (found.worker, [*found.workflows]) == ("host-1", ["w", "w", "w"])
    assert Journal(tmp_path / "journal").take_over().tasks == {}


def test_a_journal_does_not_grow_with_the_number_of_tasks(tmp_path: Path) -> None:
    """The task in hand and the last workflows are still in it."""
    journal = Journal(tmp_path / "journal")
    journal.began(assignment("first"))
    for number in range(9000):
        journal.began(assignment(str(number)))
        journal.ended(assignment(str(number)))
    assert (tmp_path / "journal").stat().st_size < 1 << 20
    found = journal.take_over()
    assert ([*found.tasks], "w" in found.workflows) == (["first"], True)


def test_a_task_of_a_dead_process_returns_until_it_has_killed_three() -> None:
    """No attempt is lost by one death; a tile that kills its process does not return for ever."""
    reports = [died_with(deaths) for deaths in (1, 2, 3)]
    assert [each.status for each in reports] == ["IN_PROGRESS", "IN_PROGRESS", "FAILED"]
    assert [each.output[DEATHS] for each in reports] == [1, 2, 0]
    assert "3 of them had this task" in reports[2].reason


def workflow(
    *states: str,
    ended_s: float = 120,
    join: str = "IN_PROGRESS",
    task_type: str = "pesto_process",
) -> Document:
    end = int((time.time() - ended_s) * 1000)
    chunks: list[JsonValue] = [
        {"referenceTaskName": f"c{index}", "taskType": task_type, "status": state,
         "endTime": end, "outputData": {"tiles": index}}
        for index, state in enumerate(states)
    ]  # fmt: skip
    names = [f"c{index}" for index in range(len(states))]
    waiting: Document = {"referenceTaskName": "join_0", "taskId": "j", "taskType": "JOIN",
                         "status": join, "inputData": {"joinOn": [*names]}}  # fmt: skip
    return {"workflowId": "w", "status": "RUNNING", "tasks": [*chunks, waiting]}


def test_a_join_whose_tasks_are_done_is_found() -> None:
    """Its output is that of a JOIN: the output of each task by its reference."""
    (found,) = wedged_joins(workflow("COMPLETED", "COMPLETED"))
    assert found.output == {"c0": {"tiles": 0}, "c1": {"tiles": 1}}
    assert "JOIN join_0, which still waits 120 s after the last of its 2 tasks" in found.message


@pytest.mark.parametrize("task_type", ["pesto_process", "HTTP"])
def test_a_worker_completes_a_lost_join_of_our_tasks_alone(
    task_type: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the output of a JOIN; the command that completes another one is in its log."""
    monkeypatch.setattr(wakeups, "_AFTER_S", (0.1, 0.2))
    monkeypatch.setattr(wakeups, "_CHECK_S", 0.05)
    lost = workflow("COMPLETED", "COMPLETED", task_type=task_type)

    async def main(url: str) -> None:
        queue = TaskQueue(url)
        found = Wakeups(queue)
        found.reported("w")
        with suppress(TimeoutError):
            await asyncio.wait_for(found.run(), 1.5)
        await queue.close()

    with task_server() as server:
        server.status, server.tasks = "RUNNING", tasks_of(lost)
        asyncio.run(main(server.url))
        reports = [(each.task, each.status) for each in server.updates]
    if task_type == "HTTP":
        assert reports == []
        assert caplog.text.count("`pesto conductor wake w` completes it") == 1
    else:
        assert reports[0] == ("j", "COMPLETED")
        assert len(reports) > 1, "it is looked at until the workflow has ended"


@pytest.mark.parametrize(
    "document",
    [
        workflow("COMPLETED", "IN_PROGRESS"),
        workflow("COMPLETED", "FAILED"),
        workflow("COMPLETED", ended_s=-3600),
        workflow("COMPLETED", join="COMPLETED"),
        workflow(),
    ],
)
def test_a_join_that_waits_rightly_is_not_named(document: Document) -> None:
    """The control: a task still runs, has failed, or has only just ended."""
    assert wedged_joins(document) == []


def test_a_running_workflow_without_an_open_task_is_named_with_the_way_out() -> None:
    """As a rerun into a fork leaves it; a workflow with an open task (control) is not named."""
    document = workflow("COMPLETED", join="COMPLETED")
    assert "`pesto conductor stop w`" in str(dead_end(document))
    assert dead_end(workflow("COMPLETED")) is None
    assert dead_end({**document, "status": "COMPLETED"}) is None


def test_variables_of_the_sdk_win_over_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a type win over those of all types."""
    plain = PollSettings.of("pesto_plan", concurrency=3, domain="gpu")
    assert plain == PollSettings(wait_s=5.0, interval_s=None, most=3, domain="gpu")
    for name, text in (("POLL_TIMEOUT", "100"), ("POLL_INTERVAL", "700"), ("THREAD_COUNT", "2"),
                       ("DOMAIN", "blue"), ("PAUSED", "true")):  # fmt: skip
        monkeypatch.setenv(f"CONDUCTOR_WORKER_ALL_{name}", text)
    monkeypatch.setenv("CONDUCTOR_WORKER_PESTO_PLAN_PAUSED", "false")
    found = PollSettings.of("pesto_plan", concurrency=3, domain="gpu")
    assert found == PollSettings(0.1, 0.7, 2, "blue", is_paused=False)
    assert PollSettings.of("pesto_call", concurrency=3).is_paused


def test_a_worker_is_ready_once_the_server_has_responded() -> None:
    """It is healthy before: a probe must not restart a worker that only waits for its server."""
    metrics = WorkerMetrics()
    assert (metrics.readiness()[0], metrics.health()[0]) == (503, 200)
    metrics.polled("pesto_plan", responded=False)
    assert metrics.readiness()[0] == 503
    metrics.polled("pesto_plan", responded=True)
    assert metrics.readiness()[0] == 200


def test_a_journal_without_a_path_is_of_the_processes_that_have_it_open() -> None:
    """A fork shares it, as the worker and its supervisor do."""
    journal = Journal()
    child = os.fork()
    if not child:
        journal.began(assignment("a"))
        os._exit(0)
    os.waitpid(child, 0)
    assert [*journal.take_over().tasks] == ["a"]
