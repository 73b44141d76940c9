"""What a service owes after kill -9: all that it has accepted, and nothing twice."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.contract.serving import ERRANDS, Server, lines_of, served, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]

ENDED, RUNNING, QUEUED = 6, 4, 50


def submitted(server: Server, path: Path, name: str, **inputs: object) -> str:
    """Submit an errand under a key of its own; the id of its job."""
    document = {"path": str(path), "name": name, **inputs}
    answer = server.submit(document, Idempotency_Key=f"key {name}")
    assert answer.status_code == 201
    return str(answer.json()["id"])


def finished(server: Server, jobs: dict[str, str]) -> set[str]:
    """Names of the jobs that the service says have ended well."""
    return {name for name, each in jobs.items() if server.job(each)["state"] == "successful"}


@pytest.mark.timeout(240)
def test_a_killed_service_answers_for_all_jobs_and_runs_none_again(tmp_path: Path) -> None:
    """50 queued and 4 running: all are answered, none that had ended runs twice.

    The controls: some had ended before the kill, and those that ran then did begin twice.
    """
    path, gate = tmp_path / "told", tmp_path / "gate"
    names = [f"{number:02}" for number in range(ENDED + RUNNING + QUEUED)]
    options = ("--workers", str(RUNNING), "--jobs", str(tmp_path / "jobs"))
    with served(ERRANDS + "errand", *options) as server:
        ended = {name: submitted(server, path, name) for name in names[:ENDED]}
        until(lambda: len(finished(server, ended)) == ENDED)
        held = {name: submitted(server, path, name, gate=str(gate)) for name in names[ENDED:]}
        until(lambda: len(lines_of(path)) == 2 * ENDED + RUNNING)
        server.process.kill()
        server.process.wait()
    gate.touch()
    time.sleep(1)
    told = lines_of(path)
    assert len(told) == 2 * ENDED + RUNNING  # the work died with its service
    caught = {line.removeprefix("begin ") for line in told if line.startswith("begin")} - {*ended}
    with served(ERRANDS + "errand", *options) as server:
        until(lambda: len(finished(server, held)) == len(held), within_s=100)
        for name, job_id in (ended | held).items():
            assert server("GET", f"/jobs/{job_id}/results/name").text == name
            inputs = {} if name in ended else {"gate": str(gate)}
            assert submitted(server, path, name, **inputs) == job_id
        time.sleep(0.5)
    counts = Counter(lines_of(path))
    assert {name: counts[f"end {name}"] for name in names} == dict.fromkeys(names, 1)
    assert {name: counts[f"begin {name}"] for name in names} == {
        name: 1 + (name in caught) for name in names
    }
    assert len(caught) == RUNNING


def test_interrupted_jobs_fail_where_that_is_asked_for(tmp_path: Path) -> None:
    """Those that ran say so, retryable, and let go of their key; those that waited run."""
    path = tmp_path / "told"
    options = ("--workers", "1", "--jobs", str(tmp_path / "jobs"), "--interrupted", "fail")
    with served(ERRANDS + "errand", *options) as server:
        ran = submitted(server, path, "ran", seconds=60)
        waited = submitted(server, path, "waited")
        until(lambda: lines_of(path) == ["begin ran"])
        server.process.kill()
        server.process.wait()
    with served(ERRANDS + "errand", *options) as server:
        assert server.over(waited)["state"] == "successful"
        job = server.job(ran)
        assert job["state"] == "failed"
        assert job["error"]["type"] == "urn:pesto:error:job-interrupted"  # type: ignore[index]  # a problem
        assert job["error"]["retryable"] is True  # type: ignore[index]  # a problem
        assert submitted(server, path, "ran") != ran
    assert lines_of(path)[:3] == ["begin ran", "begin waited", "end waited"]


def test_a_service_that_is_stopped_hands_its_jobs_on(tmp_path: Path) -> None:
    """SIGTERM lets what runs end, starts nothing more, and the next one goes on with the rest."""
    path = tmp_path / "told"
    options = ("--workers", "1", "--jobs", str(tmp_path / "jobs"))
    with served(ERRANDS + "errand", *options) as server:
        ran = submitted(server, path, "ran", seconds=1)
        waited = submitted(server, path, "waited")
        until(lambda: lines_of(path) == ["begin ran"])
        server.process.terminate()
        server.process.wait(60)
    assert lines_of(path) == ["begin ran", "end ran"]
    with served(ERRANDS + "errand", *options) as server:
        assert server.job(ran)["state"] == "successful"
        assert server.over(waited)["state"] == "successful"
    assert lines_of(path) == ["begin ran", "end ran", "begin waited", "end waited"]


def test_two_services_never_share_their_jobs(tmp_path: Path) -> None:
    """The second does not start, and says why."""
    options = ("--workers", "1", "--jobs", str(tmp_path / "jobs"))
    refused = pytest.raises(AssertionError, match="has the jobs of another service")
    with served(ERRANDS + "errand", *options), refused, served(ERRANDS + "errand", *options):
        pass
