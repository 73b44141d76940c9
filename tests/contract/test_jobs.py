"""Jobs of a running service: asked for once or often, cancelled, left alone, and fetched."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.contract import Job
from pesto_runtime.raster.codec import decode_image
from tests.contract.serving import ERRANDS, PROJECT, Server, lines_of, served, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def errands() -> Iterator[Server]:
    """A synchronous process on two workers."""
    with served(ERRANDS + "errand", "--workers", "2") as server:
        yield server


@pytest.fixture(scope="module")
def lone() -> Iterator[Server]:
    """The same on one worker."""
    with served(ERRANDS + "errand", "--workers", "1") as server:
        yield server


@pytest.fixture(scope="module")
def project() -> Iterator[Server]:
    """A PESTO project that is `asynchronous`, with a short grace."""
    with served(PROJECT, "--workers", "2", "--grace", "0.5") as server:
        yield server


def order(path: Path, name: str = "a", seconds: float = 0.0) -> dict[str, object]:
    """An errand."""
    return {"path": str(path), "name": name, "seconds": seconds}


def test_a_job_is_answered_at_once_and_fetched_later(errands: Server, tmp_path: Path) -> None:
    """201 and a Location before the work is done; then the job tells all, in OGC's words too."""
    path = tmp_path / "told"
    answer = errands.submit(order(path, "a", 0.5), Idempotency_Key="later")
    assert answer.status_code == 201
    assert answer.headers["Preference-Applied"] == "respond-async"
    job = Job.model_validate(answer.json())
    assert answer.headers["Location"] == f"{errands.url}/jobs/{job.id}"
    assert (job.state, job.key, job.is_over) == ("accepted", "later", False)
    early = errands("GET", f"/jobs/{job.id}/results")
    assert (early.status_code, early.json()["retryable"]) == (404, True)
    done = Job.model_validate(errands.over(job.id))
    assert (done.state, done.progress, done.error) == ("successful", 100, None)
    assert (done.job_id, done.status, done.type, done.process_id) == (
        job.id, "successful", "process", "errand",
    )  # fmt: skip
    assert done.created is not None
    assert done.started is not None
    assert done.finished is not None
    assert done.expires is not None
    assert done.created <= done.started < done.finished < done.expires
    link = f"{errands.url}/jobs/{job.id}/results/name"
    assert done.outputs == {"name": link} == errands("GET", f"/jobs/{job.id}/results").json()
    assert errands.http.get(link).text == "a"
    assert errands.http.get(link, headers={"Accept": "application/json"}).json() == "a"
    assert lines_of(path) == ["begin a", "end a"]


def test_a_question_may_wait_for_the_end(errands: Server, tmp_path: Path) -> None:
    """`Prefer: wait=` answers as soon as the job is over, or after that time."""
    job_id = errands.submit(order(tmp_path / "told", "a", 1.0)).json()["id"]
    began = time.monotonic()
    early = errands("GET", f"/jobs/{job_id}", headers={"Prefer": "wait=0.2"})
    assert early.json()["state"] != "successful"
    late = errands("GET", f"/jobs/{job_id}", headers={"Prefer": "wait=100"})
    assert late.json()["state"] == "successful"
    assert 0.2 < time.monotonic() - began < 60


@pytest.mark.parametrize("headers", [{"Prefer": "respond-async"}, {}], ids=["job", "call"])
def test_twenty_at_once_with_one_key_are_one_execution(
    errands: Server, tmp_path: Path, headers: dict[str, str]
) -> None:
    """All get the same job, or the same answer; asking again after its end runs nothing."""
    path, key = tmp_path / "told", f"twenty {len(headers)}"

    def submit(_: int) -> str:
        sent = {"Idempotency-Key": key, **headers}
        answer = errands("POST", "/process", json=order(path, "a", 0.3), headers=sent)
        assert answer.is_success
        return str(answer.json().get("id") or answer.json())

    with ThreadPoolExecutor(20) as threads:
        told = set(threads.map(submit, range(20)))
    assert len(told) == 1
    until(lambda: len(lines_of(path)) == 2)
    assert submit(0) in told
    time.sleep(0.3)
    assert lines_of(path) == ["begin a", "end a"]


def test_without_a_key_each_call_is_an_execution(errands: Server, tmp_path: Path) -> None:
    """The control of keys: the same request twice runs twice."""
    path = tmp_path / "told"
    ids = [errands.submit(order(path)).json()["id"] for _ in range(2)]
    assert len(set(ids)) == 2
    for job_id in ids:
        errands.over(job_id)
    assert Counter(lines_of(path)) == {"begin a": 2, "end a": 2}


def test_a_key_stands_for_one_request(errands: Server, tmp_path: Path) -> None:
    """Another one under the same key is 409, and nothing of it runs."""
    path = tmp_path / "told"
    job_id = errands.submit(order(path), Idempotency_Key="one").json()["id"]
    for _ in range(2):  # while it runs, and once it is over
        other = errands.submit(order(path, "b"), Idempotency_Key="one")
        assert (other.status_code, other.headers["Content-Type"]) == (409, PROBLEM)
        assert job_id in other.json()["detail"]
        errands.over(job_id)
    assert "begin b" not in lines_of(path)


def test_a_key_finds_its_job(errands: Server, tmp_path: Path) -> None:
    """For who has lost the id; an unknown key finds none."""
    job_id = errands.submit(order(tmp_path / "told"), Idempotency_Key="mine").json()["id"]
    found = errands("GET", "/jobs", params={"key": "mine"}).json()
    assert found == {job_id: {"link": f"{errands.url}/jobs/{job_id}/status"}}
    assert errands("GET", "/jobs", params={"key": "yours"}).json() == {}
    assert job_id in errands("GET", "/jobs").json()


def test_cancelling_reaches_running_work_and_frees_its_slot(lone: Server, tmp_path: Path) -> None:
    """It never ends, the next job runs in its place, and its key may run anew."""
    path = tmp_path / "told"
    long = lone.submit(order(path, "long", 3.0), Idempotency_Key="long").json()["id"]
    until(lambda: lines_of(path) == ["begin long"])
    waits = lone.submit(order(path, "waits")).json()["id"]
    dropped = lone.submit(order(path, "dropped")).json()["id"]
    assert lone("DELETE", f"/jobs/{dropped}").json()["state"] == "dismissed"
    began = time.monotonic()
    cancelled = lone("DELETE", f"/jobs/{long}")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "dismissed")
    assert lone("DELETE", f"/jobs/{long}").json()["state"] == "dismissed"
    assert lone.over(waits)["state"] == "successful"
    time.sleep(max(0.0, began + 3.5 - time.monotonic()))
    assert lines_of(path) == ["begin long", "begin waits", "end waits"]
    again = lone.submit(order(path, "long", 0.0), Idempotency_Key="long").json()["id"]
    assert again != long
    assert lone.over(again)["state"] == "successful"


def test_a_lease_is_lost_by_an_owner_who_is_away(lone: Server, tmp_path: Path) -> None:
    """By header or in the request; one who asks keeps it, which is the control."""
    path = tmp_path / "told"
    kept = lone.submit(order(path, "kept", 2.0), X_Pesto_Lease="0.6").json()
    assert kept["lease_until"] is not None
    until(lambda: lone.job(kept["id"])["state"] == "successful")
    lost = lone.submit(order(path, "lost", 3.0), X_Pesto_Lease="0.6").json()["id"]
    leased = order(path, "waits") | {"pesto": {"lease_s": 0.6}}
    waits = lone.submit(leased).json()["id"]
    time.sleep(2)
    for job_id in (lost, waits):
        job = lone.job(job_id)
        assert job["state"] == "dismissed"
        assert "no request for it within its lease of 0.6 s" in str(job["error"])
    assert lone.submit(order(path, "next")).status_code == 201
    until(lambda: "end next" in lines_of(path))
    assert lines_of(path) == ["begin kept", "end kept", "begin lost", "begin next", "end next"]


def test_a_lease_is_kept_by_an_owner_who_waits(lone: Server, tmp_path: Path) -> None:
    """In a call that is answered once it is done, and in long polls of a job."""
    headers = {"Idempotency-Key": "waits", "X-Pesto-Lease": "1"}
    path = tmp_path / "told"
    called = lone("POST", "/process", json=order(path, "called", 2.2), headers=headers)
    assert (called.status_code, called.json()) == (200, {"name": "called"})
    job_id = lone.submit(order(path, "polled", 2.2), X_Pesto_Lease="1").json()["id"]
    wait = {"Prefer": "wait=20"}
    until(lambda: lone("GET", f"/jobs/{job_id}", headers=wait).json()["state"] == "successful")


def test_a_long_poll_is_never_longer_than_the_lease(lone: Server, tmp_path: Path) -> None:
    """A client that dies while it waits would otherwise keep the job for the whole wait."""
    job_id = lone.submit(order(tmp_path / "told", "a", 9.0), X_Pesto_Lease="3").json()["id"]
    job = lone("GET", f"/jobs/{job_id}", headers={"Prefer": "wait=20"}).json()
    assert job["state"] in ("accepted", "running"), "answered before the job is over"
    lone("DELETE", f"/jobs/{job_id}")


def test_progress_and_lines_are_told_while_it_runs(tmp_path: Path) -> None:
    """As the algorithm goes on, not at its end."""
    path = tmp_path / "go"
    with served(ERRANDS + "steps", "--workers", "1") as server:
        job_id = server.submit({"path": str(path)}).json()["id"]
        for number in range(1, 4):
            time.sleep(0.1)  # progress is told at most 20 times a second
            path.with_name(f"go{number}").touch()
            until(lambda done=20 * number: server.job(job_id)["progress"] == done)  # type: ignore[misc]  # bound now
            job = server.job(job_id)
            assert (job["state"], job["message"]) == ("running", f"step {number}")
            assert server("GET", f"/jobs/{job_id}/status").json() == {
                "status": "RUNNING", "progress": 20 * number,
            }  # fmt: skip
        path.with_name("go4").touch()
        assert server.over(job_id)["progress"] == 100
        lines = server("GET", f"/jobs/{job_id}/log").text.splitlines()
        assert lines == [f"step {number}" for number in range(1, 5)]


def test_pesto_sees_running_done_and_failed(project: Server) -> None:
    """A short job reads DONE, a long one RUNNING first; one that fails says FAILED, and why."""

    def link_of(document: object, **headers: str) -> str:
        answer = project("POST", "/process", json=document, headers=headers)
        assert (answer.status_code, list(answer.json())) == (200, ["link"])
        return str(answer.json()["link"])

    short = link_of({"action": "x"})
    job = short.removesuffix("/status")
    assert project.http.get(short).json() == {
        "status": "DONE", "progress": 100, "link": f"{job}/results",
    }  # fmt: skip
    results = project.http.get(f"{job}/results").json()
    assert results == {name: f"{job}/results/{name}" for name in ("band1", "text", "count")}
    answers = {name: project.http.get(link) for name, link in results.items()}
    kinds = {name: (a.headers["Content-Type"][:10], a.text) for name, a in answers.items()}
    assert kinds == {
        "band1": ("text/plain", "7.0"), "text": ("text/plain", "x"),
        "count": ("applicatio", "3"),
    }  # fmt: skip
    long = link_of({"action": "x", "seconds": 1.5})
    assert project.http.get(long).json() == {"status": "RUNNING", "progress": 0}
    until(lambda: project.http.get(long).json()["status"] == "DONE")
    late = link_of({"action": "fail", "seconds": 1.0})
    until(lambda: project.http.get(late).json()["status"] == "FAILED")
    assert "no errand today" in project.http.get(late).json()["error"]["detail"]


def test_an_asynchronous_call_that_fails_in_its_grace_says_so_itself(project: Server) -> None:
    """As PESTO does; also where the request is wrong."""
    failed = project("POST", "/process", json={"action": "fail"})
    assert (failed.status_code, failed.json()["retryable"]) == (500, False)
    assert "no errand today" in failed.json()["detail"]
    wrong = project("POST", "/process", json={"seconds": "x"})
    assert wrong.status_code == 422
    assert {each["pointer"] for each in wrong.json()["errors"]} == {"/action", "/seconds"}


def test_twelve_images_come_in_their_order_and_keep_their_dtype(project: Server) -> None:
    """PESTO 1.7.2 gives 0, 1, 10, 11, 2 modulo 256."""
    job_id = project.submit({"action": "images"}).json()["id"]
    assert project.over(job_id)["state"] == "successful"
    links = project("GET", f"/jobs/{job_id}/results").json()["images"]
    images = [decode_image(project.http.get(link).content) for link in links]
    assert [int(each.pixels.max()) for each in images] == [1000 * n for n in range(12)]
    assert {each.pixels.dtype.name for each in images} == {"uint16"}
    job_id = project.submit({"action": "float"}).json()["id"]
    project.over(job_id)
    answer = project("GET", f"/jobs/{job_id}/results/image")
    assert answer.headers["Content-Type"] == "image/tiff"
    assert decode_image(answer.content).pixels.dtype == "float32"


def test_a_deleted_result_is_gone_and_the_job_still_done(project: Server) -> None:
    """As PESTO's clients delete what they have fetched, one by one."""
    job_id = project.submit({"action": "x"}).json()["id"]
    project.over(job_id)
    for name in ("band1", "text", "count"):
        where = f"/jobs/{job_id}/results/{name}"
        assert project("DELETE", where).json() == {}
        assert project("GET", where).status_code == 410
    assert project("GET", f"/jobs/{job_id}/status").json()["status"] == "DONE"
    assert project("GET", f"/jobs/{job_id}/results").json() == {}
    assert project("DELETE", f"/jobs/{job_id}/results").status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/jobs/none", 404),
        ("DELETE", "/jobs/none", 404),
        ("GET", "/jobs/none/status", 404),
        ("GET", "/jobs/none/results", 404),
        ("GET", "/jobs/none/log", 404),
        ("GET", "/jobs/{done}/results/other", 404),
        ("GET", "/jobs/{done}/results/..%2f..%2frequest", 404),
        ("DELETE", "/jobs/{done}/results/other", 404),
        ("GET", "/jobs/{gone}/results", 410),
        ("GET", "/jobs/{gone}/results/text", 410),
        ("PUT", "/jobs/{done}", 405),
        ("PUT", "/jobs", 405),
    ],
)
def test_what_is_not_there_is_a_problem(
    project: Server, method: str, path: str, status: int
) -> None:
    """With the reason, and never retryable."""
    done, gone = (project.submit({"action": "x"}).json()["id"] for _ in range(2))
    project.over(done)
    project("DELETE", f"/jobs/{gone}")
    answer = project(method, path.format(done=done, gone=gone))
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, PROBLEM)
    assert answer.json()["retryable"] is False


def test_a_failed_job_gives_its_error_for_its_results(tmp_path: Path) -> None:
    """The one that the call would have been answered with; the same key gives the same one."""
    with served(ERRANDS + "fails", "--workers", "1") as server:
        answer = server.submit({"why": "no such thing"}, Idempotency_Key="k")
        job = server.over(answer.json()["id"])
        assert (job["state"], job["progress"]) == ("failed", 0)
        results = server("GET", f"/jobs/{job['id']}/results")
        called = server("POST", "/process", json={"why": "no such thing"})
        assert results.status_code == called.status_code == 500
        assert results.json() == called.json() == job["error"]
        assert server.submit({"why": "no such thing"}, Idempotency_Key="k").json() == job
        wrong = server.over(server.submit({"why": 3}).json()["id"])
        assert wrong["error"]["status"] == 422  # type: ignore[index]  # a problem
        bad = server.submit({"why": "x"}, X_Pesto_Lease="soon")
        assert (bad.status_code, bad.headers["Content-Type"]) == (422, PROBLEM)


def test_results_go_after_their_time_and_their_key_is_free(tmp_path: Path) -> None:
    """410 then, with the files deleted; asked for again, the job runs again."""
    path = tmp_path / "told"
    with served(ERRANDS + "errand", "--ttl", "3", "--jobs", str(tmp_path / "jobs")) as server:
        job_id = server.submit(order(path), Idempotency_Key="k").json()["id"]
        server.over(job_id)
        assert server("GET", f"/jobs/{job_id}/results/name").text == "a"
        until(lambda: server("GET", f"/jobs/{job_id}/results").status_code == 410)
        until(lambda: not list((tmp_path / "jobs" / "files").iterdir()))
        assert (server.job(job_id)["state"], server("GET", "/jobs").json()) == ("successful", {})
        again = server.submit(order(path), Idempotency_Key="k").json()["id"]
        assert server.over(again)["state"] == "successful"
    assert Counter(lines_of(path)) == {"begin a": 2, "end a": 2}
