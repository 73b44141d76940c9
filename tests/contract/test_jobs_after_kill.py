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

RUNNING, QUEUED = 4, 50


def submitted(server: Server, path: Path, name: str, seconds: float) -> str:
    """Submit an errand under a key of its own; the id of its job."""
    document = {"path": str(path), "name": name, "seconds": seconds}
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
    path, names = tmp_path / "told", [f"{n:02}" for n in range(RUNNING + QUEUED + 6)]
    options = ("--workers", str(RUNNING), "--jobs", str(tmp_path / "jobs"))
    with served(ERRANDS + "errand", *options) as server:
        jobs = {name: submitted(server, path, name, 0.1) for name in names[:6]}
        until(lambda: len(finished(server, jobs)) == 6)
        jobs |= {name: submitted(server, path, name, 1.0) for name in names[6:]}
        until(lambda: len(lines_of(path)) == 2 * 6 + RUNNING)
        before = finished(server, jobs)
        server.process.kill()
        server.process.wait()
        told = lines_of(path)
    assert before == set(names[:6])
    caught = {line[6:] for line in told if line.startswith("begin")} - before
    assert len(caught) == RUNNING
    time.sleep(2)
    assert lines_of(path) == told  # the work died with its service
    with served(ERRANDS + "errand", *options, "--workers", str(RUNNING)) as server:
        until(lambda: len(finished(server, jobs)) == len(jobs), within_s=150)
        for name, job_id in jobs.items():
            assert server("GET", f"/jobs/{job_id}/results/name").text == name
            assert submitted(server, path, name, 0.1 if name < "06" else 1.0) == job_id
    counts = Counter(lines_of(path))
    assert {name: counts[f"end {name}"] for name in names} == dict.fromkeys(names, 1)
    assert {name for name in names if counts[f"begin {name}"] == 2} == caught
    assert {name for name in names if counts[f"begin {name}"] > 2} == set()


def test_interrupted_jobs_fail_where_that_is_asked_for(tmp_path: Path) -> None:
    """Those that ran say so, retryable, and let go of their key; those that waited run."""
    path = tmp_path / "told"
    options = ("--workers", "1", "--jobs", str(tmp_path / "jobs"), "--interrupted", "fail")
    with served(ERRANDS + "errand", *options) as server:
        ran = submitted(server, path, "ran", 60)
        waited = submitted(server, path, "waited", 0)
        until(lambda: lines_of(path) == ["begin ran"])
        server.process.kill()
        server.process.wait()
    with served(ERRANDS + "errand", *options) as server:
        assert server.over(waited)["state"] == "successful"
        job = server.job(ran)
        assert job["state"] == "failed"
        assert job["error"]["type"] == "urn:pesto:error:job-interrupted"  # type: ignore[index]  # a problem
        assert job["error"]["retryable"] is True  # type: ignore[index]  # a problem
        assert submitted(server, path, "ran", 0) != ran
    assert lines_of(path)[:3] == ["begin ran", "begin waited", "end waited"]


def test_a_service_that_is_stopped_hands_its_jobs_on(tmp_path: Path) -> None:
    """SIGTERM lets what runs end, starts nothing more, and the next one goes on with the rest."""
    path = tmp_path / "told"
    options = ("--workers", "1", "--jobs", str(tmp_path / "jobs"))
    with served(ERRANDS + "errand", *options) as server:
        ran = submitted(server, path, "ran", 1)
        waited = submitted(server, path, "waited", 0)
        until(lambda: lines_of(path) == ["begin ran"])
        server.process.terminate()
        server.process.wait(20)
    assert lines_of(path) == ["begin ran", "end ran"]
    with served(ERRANDS + "errand", *options) as server:
        assert server.job(ran)["state"] == "successful"
        assert server.over(waited)["state"] == "successful"
    assert lines_of(path) == ["begin ran", "end ran", "begin waited", "end waited"]


def test_two_services_never_share_their_jobs(tmp_path: Path) -> None:
    """The second does not start, and says why."""
    options = ("--workers", "1", "--jobs", str(tmp_path / "jobs"))
    refused = pytest.raises(AssertionError, match="keeps the jobs of another service")
    with served(ERRANDS + "errand", *options), refused, served(ERRANDS + "errand", *options):
        pass
