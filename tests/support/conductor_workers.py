"""A real Conductor, workers of ours as processes, and pipelines run by them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pesto_conductor.campaign_definitions import campaign_definition
from pesto_conductor.client import Conductor, is_over
from pesto_conductor.definitions import workflow_definition
from pesto_conductor.following import tasks_of
from pesto_conductor.taskdefs import task_definitions
from pesto_conductor.trial_server import Server, find, up
from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import RunFailed
from pesto_runtime.run.planning import shape
from pesto_runtime.run.services import resolve_services
from tests.support.commands import PESTO, ROOT, descendants, waited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    Document = dict[str, JsonValue]

RESPONSE_TIMEOUT_S = 6
"""Of task definitions in tests: a killed worker's tasks come back so soon."""


@dataclass(frozen=True)
class Desk:
    """A Conductor that tests share, by its data folder.

    Attributes:
        folder: Where it keeps everything.
    """

    folder: Path

    @property
    def server(self) -> Server:
        """The server that runs now."""
        found = find(self.folder)
        assert found is not None, "the shared Conductor does not run"
        return found

    @property
    def url(self) -> str:
        """Base of its REST interface."""
        return self.server.url

    @contextmanager
    def conductor(self) -> Iterator[Conductor]:
        """A client of it."""
        with Conductor(self.url) as conductor:
            yield conductor

    def register(self) -> None:
        """Make our task types known, impatient ones."""
        tasks = [
            replace(each, response_timeout_s=RESPONSE_TIMEOUT_S) for each in task_definitions()
        ]
        with self.conductor() as conductor:
            conductor.register_tasks([each.to_json() for each in tasks])

    def kill(self) -> None:
        """SIGKILL the server."""
        pid = self.server.pid
        os.kill(pid, signal.SIGKILL)
        waited(lambda: find(self.folder) is None, 10)

    def up(self) -> None:
        """Start it again; a machine that others use takes its time."""
        try:
            up(self.folder)
        except RunFailed:
            with self.conductor() as conductor:
                waited(conductor.is_healthy, 120)

    def start(
        self,
        document: Mapping[str, JsonValue],
        inputs: Mapping[str, JsonValue],
        *,
        domains: Mapping[str, str] | None = None,
        base: Path = ROOT,
        is_campaign: bool = False,
    ) -> str:
        """Start a pipeline, or a campaign of it, as a rendered workflow; answers its id."""
        pipeline = Pipeline.parse(dict(document))
        services = resolve_services(pipeline, base=base)
        defaults: Document = {"base": str(base)}
        phases = shape(pipeline, services)
        write = campaign_definition if is_campaign else workflow_definition
        definition = write(pipeline, phases, defaults=defaults)
        definition.pop("failureWorkflow", None)
        with self.conductor() as conductor:
            return conductor.start(
                str(definition["name"]), dict(inputs), definition=definition, domains=domains
            )

    def workflow(self, identity: str) -> Document:
        """A workflow with its tasks."""
        with self.conductor() as conductor:
            return conductor.workflow(identity)

    def tasks(self, identity: str, task_type: str = "pesto_process") -> list[Document]:
        """Every attempt at the tasks of a type, in a workflow."""
        found = self.workflow(identity)["tasks"]
        assert isinstance(found, list)
        every = [each for each in found if isinstance(each, dict)]
        return [each for each in every if each.get("taskType") == task_type]

    def ended(self, identity: str, timeout_s: float = 60) -> Document:
        """A workflow once it is over; only workers ask the server to go on with it."""
        deadline = time.monotonic() + timeout_s
        with self.conductor() as conductor:
            while True:
                workflow = conductor.workflow(identity)
                if is_over(workflow):
                    return workflow
                assert time.monotonic() < deadline, _standing(workflow)
                time.sleep(0.1)

    def retried(self, identity: str, timeout_s: float = 60, *, times: int = 5) -> Document:
        """A failed workflow after a retry of it; again where the server failed it by itself.

        Conductor 3.32 may evaluate a JOIN with the tasks of before the retry, and then fails the
        workflow although no task has failed since; an operator then retries the workflow. It says
        that a workflow has failed before it cancels the other tasks, so that a retry at once loses
        its new tasks: they are cancelled too, and the workflow is TERMINATED. Now and then it
        leaves a task of a failed workflow open for ever, which does not hinder the retry.
        """
        with suppress(AssertionError):
            waited(lambda: not _open_tasks(self.workflow(identity)), timeout_s=15)
        if self.workflow(identity)["status"] == "TERMINATED":  # on a busy machine, seconds later
            time.sleep(3)
        failures = _failed_tasks(self.workflow(identity))
        with self.conductor() as conductor:
            conductor.retry(identity)
        workflow = self.ended(identity, timeout_s)
        is_ours = workflow["status"] == "FAILED" and _failed_tasks(workflow) != failures
        if is_ours or workflow["status"] == "COMPLETED" or times == 1:
            return workflow
        return self.retried(identity, timeout_s, times=times - 1)


def _open_tasks(workflow: Document) -> list[str]:
    """Names of the tasks that wait or are at work."""
    is_open = ("SCHEDULED", "IN_PROGRESS")
    return [str(e["referenceTaskName"]) for e in tasks_of(workflow) if e["status"] in is_open]


def _failed_tasks(workflow: Document) -> set[str]:
    """Ids of the attempts that a worker reported as failed."""
    return {
        str(task["taskId"])
        for task in tasks_of(workflow)
        if str(task["status"]).startswith("FAILED") and str(task["taskType"]).startswith("pesto_")
    }


def made_up_run(
    definition: Document,
    inputs: Document,
    outputs: Mapping[str, Document],
    *,
    children: Mapping[str, Document] | None = None,
) -> Document:
    """Return a request of `POST /workflow/test`, which runs a definition without workers.

    Args:
        definition: The workflow.
        inputs: Its input.
        outputs: Task reference -> the output that the server uses for the task.
        children: Reference of a SUB_WORKFLOW -> the same request for its own definition.
    """
    mocks: Document = {
        reference: [{"status": "COMPLETED", "output": output}]
        for reference, output in outputs.items()
    }
    return {
        "name": definition["name"],
        "version": definition.get("version", 1),
        "input": inputs,
        "workflowDef": definition,
        "taskRefToMockOutput": mocks,
        "subWorkflowTestRequest": dict(children or {}),
    }


@dataclass(frozen=True)
class Worker:
    """A worker of ours, and the process that supervises it.

    Attributes:
        process: The supervisor.
        log: What both wrote.
    """

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def family(self) -> set[int]:
        """Pids of the supervisor and of all below it."""
        return {self.process.pid, *descendants(self.process.pid)}

    @property
    def child(self) -> int:
        """Pid of the worker process itself."""
        (found,) = descendants(self.process.pid)
        return found

    @property
    def said(self) -> str:
        """Its log."""
        return self.log.read_text()


@contextmanager
def conductor_worker(
    url: str,
    folder: Path,
    *options: object,
    at_once: int = 2,
    machine: Callable[[list[str]], list[str]] = lambda command: command,
    env: Mapping[str, str] = {},
) -> Iterator[Worker]:
    """A worker while the block runs, once it polls.

    Args:
        url: Base of Conductor's REST interface.
        folder: For its log.
        options: Of the command.
        at_once: Tasks at once.
        machine: Returns the command that runs a command on another machine.
        env: Variables of it alone.
    """
    log = folder / f"worker-{time.monotonic_ns()}.log"
    words = ["conductor", "worker", "--url", url, "--concurrency", at_once, *options]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            machine([*PESTO, *map(str, words)]), cwd=ROOT, stdout=output, stderr=output,
            start_new_session=True,
            # A worker awaits its open polls when it ends: 5 s for long ones.
            env={"CONDUCTOR_WORKER_ALL_POLL_TIMEOUT": "100", **os.environ, **env},
        ) as process,
    ):  # fmt: skip
        worker = Worker(process, log)
        try:
            waited(lambda: "working on" in worker.said or process.poll() is not None)
            assert process.poll() is None, worker.said
            yield worker
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)


def windows(log: Path) -> list[str]:
    """Windows that `paced` was asked for, in order; one line per call."""
    return log.read_text().splitlines() if log.exists() else []


def repeated(calls: Sequence[str]) -> int:
    """How many calls were not the first of their window."""
    return len(calls) - len(set(calls))


def _standing(workflow: Document) -> str:
    tasks = workflow.get("tasks")
    told = [
        f"{each.get('referenceTaskName')} {each.get('status')} {each.get('reasonForIncompletion')}"
        for each in (tasks if isinstance(tasks, list) else [])
        if isinstance(each, dict)
    ]
    return "\n".join([f"workflow is {workflow.get('status')}", *told])
