"""Inputs from a command line, and a workflow that is followed on a server with planned states."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pesto_conductor import run_commands
from pesto_conductor.client import Conductor
from pesto_conductor.deploy import domains_of, read_inputs
from pesto_conductor.following import UntakenTypes, failure_of, follow
from pesto_runtime.engines import SilentListener
from pesto_runtime.errors import InvalidInput, RunFailed
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    Document = dict[str, JsonValue]

RENDERED: Document = json.loads((ROOT / "workflows" / "conductor" / "cloud_cover.json").read_text())
BY_HAND: Document = json.loads((ROOT / "workflows" / "conductor" / "cloud_gate.json").read_text())


def test_paths_become_hrefs_and_numbers_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rendered workflow declares which of its inputs are paths."""
    monkeypatch.chdir(tmp_path)
    texts = {"scene": "s.tif", "folder": "s3://b/out", "tile": "256", "keep": "true"}
    assert read_inputs(RENDERED, texts) == {
        "scene": f"file://{tmp_path}/s.tif",
        "folder": "s3://b/out",
        "tile": 256,
        "keep": True,
    }


def test_a_base_becomes_absolute_and_so_does_its_default_where_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers run in other folders. A default that does not exist here may exist there."""
    monkeypatch.chdir(tmp_path)
    texts = {"scene": "/s.tif", "folder": "/out"}
    assert "base" not in read_inputs(RENDERED, texts)
    assert read_inputs(RENDERED, {**texts, "base": "mine"})["base"] == f"{tmp_path}/mine"
    assert read_inputs(RENDERED, {**texts, "base": "/theirs"})["base"] == "/theirs"
    (tmp_path / "workflows").mkdir()
    assert read_inputs(RENDERED, texts)["base"] == f"{tmp_path}/workflows"


def test_an_input_called_base_that_no_plan_reads_is_not_changed() -> None:
    """The control: in that workflow, `base` has another meaning."""
    other: Document = {"inputParameters": ["base"], "tasks": [{"name": "pesto_call"}]}
    assert read_inputs(other, {"base": "mine"}) == {"base": "mine"}


def test_one_error_names_every_wrong_input() -> None:
    """One unknown, one missing, one of the wrong type, one too large."""
    texts = {"scen": "s.tif", "folder": "out", "tile": "wide", "max_tasks": "257"}
    with pytest.raises(InvalidInput) as caught:
        read_inputs(RENDERED, texts)
    text = str(caught.value)
    assert "4 errors" in text
    for part in ("'scen'", "'scene' is a required", "/tile", "/max_tasks"):
        assert part in text


def test_a_workflow_without_a_schema_takes_the_inputs_that_it_names() -> None:
    """JSON where a text is JSON, else the text."""
    assert read_inputs(BY_HAND, {"scene": "s.tif", "limit": "0.5"}) == {
        "scene": "s.tif",
        "limit": 0.5,
    }
    with pytest.raises(InvalidInput, match="'limits'"):
        read_inputs(BY_HAND, {"limits": "0.5"})


def test_a_text_is_read_by_the_type_of_its_input() -> None:
    """A string stays one where it looks like a number."""
    properties: Document = {"word": {"type": "string"}, "level": {"type": "number"}}
    made: Document = {"inputSchema": {"data": {"properties": properties}}, "tasks": []}
    texts = {"word": "5", "level": "5"}
    assert read_inputs(made, texts) == {"word": "5", "level": 5}


def test_domains_are_in_the_metadata() -> None:
    """Rendering writes them if a pipeline requires a GPU; the committed pipeline does not."""
    domains: Document = {"taskToDomain": {"pesto_process": "gpu"}}
    assert domains_of({"metadata": domains}) == {"pesto_process": "gpu"}
    assert domains_of(RENDERED) == {}


def task(name: str, status: str, kind: str = "SIMPLE", **output: JsonValue) -> Document:
    return {"referenceTaskName": name, "taskDefName": f"pesto_{name}", "taskType": kind,
            "status": status, "outputData": output}  # fmt: skip


def workflow(status: str, *tasks: Document) -> Document:
    return {"workflowId": "w", "status": status, "tasks": [*tasks]}


@contextmanager
def playing(*moves: Document) -> Iterator[tuple[Conductor, list[str]]]:
    """Run a server that returns one state of a workflow after another.

    It returns the last state only after a request to decide. Yield a client, and the paths of all
    PUT requests.
    """
    shown = iter(moves[:-1])
    decided: list[str] = []

    class Play(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.respond(next(shown, moves[-1] if decided else moves[-2]))

        def do_PUT(self) -> None:
            decided.append(self.path)
            self.respond({})

        def respond(self, document: Document) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Write no log line."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Play) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Conductor(f"http://127.0.0.1:{server.server_port}/api") as conductor:
            yield conductor, decided
        server.shutdown()


class Counting(SilentListener):
    """Counts tiles."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def begin(self, tiles: int) -> None:
        """Receive the number of tiles."""
        self.total = tiles

    def advance(self, tiles: int) -> None:
        """Receive the number of further tiles that are done."""
        self.done += tiles


PLAN = task("plan", "COMPLETED", tiles=5)
JOIN = task("join", "IN_PROGRESS", "JOIN")


def chunk(status: str, tiles: int, reused: int = 0) -> Document:
    return task("process", status, manifest="m", tiles=tiles, reused=reused)


@pytest.mark.timeout(20)
def test_a_workflow_that_stalls_after_its_join_is_resumed() -> None:
    """All tasks are done and no task follows: the server receives a request to decide."""
    stalled = workflow("RUNNING", PLAN, chunk("COMPLETED", 5), JOIN)
    with playing(stalled, workflow("COMPLETED")) as (conductor, decided):
        assert follow(conductor, "w", SilentListener())["status"] == "COMPLETED"
    assert set(decided) == {"/api/workflow/decide/w"}


@pytest.mark.timeout(20)
def test_a_workflow_with_a_running_task_is_not_resumed() -> None:
    """The control: while a worker has a task, no such request is sent."""
    busy = [workflow("RUNNING", PLAN, chunk("IN_PROGRESS", 1), JOIN)] * 4
    with playing(*busy, workflow("COMPLETED"), workflow("COMPLETED")) as (conductor, decided):
        follow(conductor, "w", SilentListener())
    assert decided == []


@pytest.mark.timeout(20)
def test_tiles_are_reported_when_they_are_done() -> None:
    """Those of running chunks too, each once; reused ones count."""
    moves = (
        workflow("RUNNING", task("plan", "IN_PROGRESS")),
        workflow("RUNNING", PLAN, chunk("IN_PROGRESS", 1)),
        workflow("RUNNING", PLAN, chunk("COMPLETED", 2, 1), chunk("IN_PROGRESS", 1)),
        workflow("COMPLETED", PLAN, chunk("COMPLETED", 2, 1), chunk("COMPLETED", 2)),
    )
    watcher = Counting()
    with playing(*moves, moves[-1]) as (conductor, _):
        follow(conductor, "w", watcher)
    assert (watcher.total, watcher.done) == (5, 5)


@pytest.mark.timeout(20)
def test_an_error_of_the_check_before_a_poll_is_raised() -> None:
    """A run whose workers have ended does not wait for ever."""

    def before_poll() -> None:
        raise RunFailed("all workers have ended")

    with (
        playing(workflow("RUNNING", PLAN), workflow("RUNNING")) as (conductor, _),
        pytest.raises(RunFailed, match="all workers have ended"),
    ):
        follow(conductor, "w", SilentListener(), before_poll=before_poll)


def waiting(name: str, status: str = "SCHEDULED", polls: int = 0) -> Document:
    return {**task(name, status, f"pesto_{name}"), "pollCount": polls}


def test_a_type_that_no_worker_takes_is_reported_once() -> None:
    """Not immediately, and not again."""
    lines: list[str] = []
    usual, immediate = UntakenTypes(lines.append), UntakenTypes(lines.append, after_s=0)
    usual.check([waiting("plan")])
    assert lines == []
    for _ in range(2):
        immediate.check([waiting("plan")])
    assert lines == ["no worker has taken pesto_plan yet"]


def test_a_type_is_named_once_it_has_waited_long_enough_over_all_checks() -> None:
    """A follower checks more often than once per wait: the wait begins at the first check."""
    said: list[str] = []
    untaken = UntakenTypes(said.append, after_s=0.3)
    begun = time.monotonic()
    while not said and time.monotonic() - begun < 60:
        untaken.check([waiting("plan")])
        time.sleep(0.02)
    assert said == ["no worker has taken pesto_plan yet"]
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize(
    "tasks",
    [
        [waiting("process"), waiting("process", "IN_PROGRESS", 1)],
        [waiting("process"), waiting("process", "COMPLETED", 1)],
        [waiting("process", polls=1)],
        [task("http", "SCHEDULED", "HTTP")],
        [JOIN],
    ],
    ids=["its worker is busy", "one is done", "returned", "the server's own", "a join"],
)
def test_a_type_that_has_a_worker_is_not_reported(tasks: list[Document]) -> None:
    """The control: most tasks of a fan-out wait long for a free worker."""
    lines: list[str] = []
    UntakenTypes(lines.append, after_s=0).check(tasks)
    assert lines == []


@pytest.mark.timeout(20)
def test_an_interrupted_wait_reports_that_the_workflow_still_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It also names the command that stops it; the interrupt is raised again."""

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    clock = SimpleNamespace(sleep=interrupt, monotonic=time.monotonic)  # this module's alone
    monkeypatch.setattr("pesto_conductor.following.time", clock)
    busy = workflow("RUNNING", waiting("plan"))
    with playing(busy, busy) as (conductor, _), pytest.raises(KeyboardInterrupt):
        run_commands._follow(conductor, "w", as_json=True)
    printed = capsys.readouterr()
    assert printed.err == "w is still running; `pesto conductor stop w` ends it\n"
    assert printed.out == ""


def test_a_failure_names_the_reason_of_each_failed_task() -> None:
    """Not of attempts that were retried, nor of tasks that were cancelled for it."""

    def ended(name: str, status: str, reason: str, *, retried: bool = False) -> Document:
        return {**task(name, status), "reasonForIncompletion": reason, "retried": retried}

    failed = workflow(
        "FAILED",
        ended("a", "FAILED", "busy", retried=True),
        ended("b", "FAILED_WITH_TERMINAL_ERROR", "tile (0, 0): too bright"),
        ended("c", "CANCELED", "another failed"),
    )
    text = str(failure_of(failed))
    assert "b: tile (0, 0): too bright" in text
    assert "busy" not in text
    assert "another failed" not in text
