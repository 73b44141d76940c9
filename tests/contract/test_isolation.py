"""What one call does to others, to its worker and to the machine: nothing that outlives it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.contract,
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

HAZARDS = "tests/contract/hazards.py:"
SERVE = """
import json, sys
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.server import serve
serve(sys.argv[1], port=0, limits=Limits(**json.loads(sys.argv[2])))
"""


@dataclass(frozen=True)
class Service:
    """A service in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    http: httpx.Client

    def call(self, how: str, **inputs: object) -> httpx.Response:
        """Call `hazard`."""
        return self.post({"how": how, **inputs})

    def post(self, document: object) -> httpx.Response:
        """Call the process."""
        return self.http.post(self.url + "/process", json=document)

    def state(self) -> str:
        """What health says."""
        return self.http.get(self.url + "/health").text

    def workers(self) -> set[int]:
        """The processes that it has started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(text) for text in children.read_text().split()}


@contextmanager
def served(target: str = "hazard", **limits: object) -> Iterator[Service]:
    """Serve a hazard."""
    bounds = str({"workers": 2} | limits).replace("'", '"')
    command = [sys.executable, "-c", SERVE, HAZARDS + target, bounds]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            found = re.search(r"http://\S+/api/v1", process.stderr.readline())
            assert found is not None
            with httpx.Client(trust_env=False, timeout=30) as http:
                yield Service(found[0], process, http)
        finally:
            process.kill()
            process.stderr.read()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Two workers, two seconds, 1 GiB."""
    with served(timeout_s=2, memory_bytes=1 << 30) as found:
        yield found


def eventually(claim: Callable[[], bool], within_s: float = 60) -> None:
    """Wait until a claim holds."""
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(process_id: int) -> bool:
    """Whether a process runs, any thread of it, and is not merely unburied."""
    folder = Path(f"/proc/{process_id}")
    try:
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list((folder / "task").iterdir())) > 1
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("segfault", "ended by SIGSEGV"),
        ("exit", "exit status 3"),
        ("loop", "no response within 2 s"),
        ("memory", "MemoryError"),
    ],
)
def test_a_call_that_dies_costs_itself_alone(
    service: Service, how: str, told: str, tmp_path: Path
) -> None:
    """It says how it ended, is not retryable; its neighbour and its successors are answered."""
    with ThreadPoolExecutor(1) as threads:
        neighbour = threads.submit(service.call, "late", path=f"{tmp_path}/late", seconds=1)
        eventually((tmp_path / "late.began").exists)
        harmed = service.call(how)
        assert neighbour.result().status_code == 200
    problem = harmed.json()
    assert (harmed.status_code, problem["retryable"]) == (500, False)
    assert problem["type"].endswith("algorithm-failed")
    assert told in problem["detail"]
    for _ in range(4):
        assert service.call("tell").status_code == 200


def test_without_a_limit_the_same_memory_is_given() -> None:
    """Control: it was the limit that refused it."""
    with served(workers=1) as service:
        assert service.call("memory").status_code == 200


def test_a_worker_killed_at_work_is_told_and_replaced(service: Service, tmp_path: Path) -> None:
    """Its call names the signal; a new worker takes its place."""
    before = service.workers()
    with ThreadPoolExecutor(1) as threads:
        victims = {service.call("tell").json()["worker"]}
        call = threads.submit(service.call, "late", path=f"{tmp_path}/late", seconds=1.5)
        eventually((tmp_path / "late.began").exists)
        for each in before:
            os.kill(each, signal.SIGKILL)
        answer = call.result()
    assert victims <= before
    assert "SIGKILL" in answer.json()["detail"]
    assert service.call("tell").json()["worker"] not in before
    assert not (tmp_path / "late").exists()


def test_a_worker_killed_while_idle_is_replaced_unseen(service: Service) -> None:
    """No caller learns of it."""
    eventually(lambda: len(service.workers()) == 2)
    service.call("tell")
    before = service.workers()
    for each in before:
        os.kill(each, signal.SIGKILL)
    eventually(lambda: not any(lives(each) for each in before))
    answers = [service.call("tell") for _ in range(4)]
    assert [each.text for each in answers if each.status_code != 200] == []
    assert not {each.json()["worker"] for each in answers} & before


def leave(service: Service, document: str, *, after: Path, stays: bool) -> None:
    """Call, and hang up once the call has begun, or not at all."""
    host, port = service.url.split("/")[2].split(":")
    head = (
        f"POST /api/v1/process HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(document)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as caller:
        caller.sendall((head + document).encode())
        eventually(after.exists)
        if stays:
            assert caller.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("how", ["told", "child"])
def test_a_call_whose_client_has_gone_ends(how: str, tmp_path: Path) -> None:
    """It, or a program it started, would wait for ever: the only slot is free nonetheless.

    Nor does it write anything when it may. The control stays, and finds it written.
    """
    with served(workers=1) as service:
        for name in ("stays", "goes"):
            (tmp_path / "stays.go").touch()
            document = f'{{"how": "{how}", "path": "{tmp_path / name}"}}'
            leave(service, document, after=tmp_path / f"{name}.began", stays=name == "stays")
        assert service.call("tell").status_code == 200
        (tmp_path / "goes.go").touch()
        time.sleep(1)
    assert (tmp_path / "stays").exists()
    assert not (tmp_path / "goes").exists()


@pytest.mark.parametrize(("queue", "refused"), [(7, 0), (2, 5)])
def test_eight_clients_share_one_worker(queue: int, refused: int, tmp_path: Path) -> None:
    """All are answered, none is refused before the queue is full; its control has a shorter one."""
    with served(workers=1, queue=queue) as service, ThreadPoolExecutor(8) as threads:
        first = threads.submit(service.call, "late", path=f"{tmp_path}/a", seconds=1)
        eventually((tmp_path / "a.began").exists)
        others = [threads.submit(service.call, "tell") for _ in range(7)]
        answers = [each.result() for each in (first, *others)]
        statuses = [each.status_code for each in answers]
        assert statuses.count(503) == refused
        assert statuses.count(200) == 8 - refused
        assert all("retry-after" in each.headers for each in answers if each.status_code == 503)


def shared_memory() -> set[str]:
    """What has a name there."""
    return set(os.listdir("/dev/shm"))  # noqa: PTH208, S108  # names alone


def spools(process_id: int) -> list[int]:
    """Sizes of the memory without a name that a process holds."""
    held = Path(f"/proc/{process_id}/fd").iterdir()
    return [each.stat().st_size for each in held if "pesto-spool" in str(each.readlink())]


def test_nothing_is_left_of_a_service_that_is_killed() -> None:
    """Large bodies go through memory, and kill -9 leaves neither memory nor processes."""
    before = shared_memory()
    text = "0123456789abcdef" * (1 << 16)
    with served("echo", workers=2) as service:
        answer = service.post({"text": text, "times": 3})
        assert answer.json() == {"text": text * 3}
        workers = service.workers()
        assert len(workers) == 2
        assert all(lives(each) for each in workers)
        parts = urlsplit(service.url)
        with socket.create_connection((parts.hostname, parts.port)) as caller:
            head = f"POST /api/v1/process HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            # More than the body of the first call, whose memory is used again.
            caller.sendall(f"{head}Content-Length: {3 * len(text)}\r\n\r\n{2 * text}".encode())
            eventually(lambda: spools(service.process.pid) == [2 * len(text)])
            service.process.kill()
        eventually(lambda: not any(lives(each) for each in workers))
    assert shared_memory() <= before


def test_memory_with_a_name_would_be_seen() -> None:
    """Control: the listing shows what `multiprocessing.shared_memory` makes."""
    before = shared_memory()
    named = SharedMemory(create=True, size=1)
    try:
        assert shared_memory() - before
    finally:
        named.close()
        named.unlink()


@pytest.mark.parametrize("how", ["loop", "hold"])
def test_a_worker_at_work_dies_with_its_service(how: str, tmp_path: Path) -> None:
    """Also one that never returns, or lets no other Python run."""
    with served(workers=1) as service, ThreadPoolExecutor(1) as threads:
        (worker,) = service.workers()
        call = threads.submit(service.call, how, path=f"{tmp_path}/a", seconds=30)
        eventually((tmp_path / "a.began").exists)
        assert lives(worker)
        service.process.kill()
        eventually(lambda: not lives(worker))
        with pytest.raises(httpx.TransportError):
            call.result()


def test_a_service_told_to_stop_ends_what_runs(tmp_path: Path) -> None:
    """The call that runs and the one that waits are answered, new ones get 503; then it exits."""
    with served(workers=1) as service, ThreadPoolExecutor(2) as threads:
        (worker,) = service.workers()
        running = threads.submit(service.call, "told", path=f"{tmp_path}/a")
        eventually((tmp_path / "a.began").exists)
        waiting = threads.submit(service.call, "tell")
        time.sleep(0.2)
        service.process.terminate()
        eventually(lambda: service.state() == "STOPPING")
        refused = service.call("tell")
        assert (refused.status_code, refused.json()["retryable"]) == (503, True)
        assert "retry-after" in refused.headers
        (tmp_path / "a.go").touch()
        assert [running.result().status_code, waiting.result().status_code] == [200, 200]
        assert service.process.wait(60) == 0
        assert not lives(worker)
    assert (tmp_path / "a").exists()


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """Control: without draining, the call is lost."""
    with served(workers=1) as service, ThreadPoolExecutor(1) as threads:
        call = threads.submit(service.call, "late", path=f"{tmp_path}/a", seconds=100)
        eventually((tmp_path / "a.began").exists)
        service.process.terminate()
        eventually(lambda: service.state() == "STOPPING")
        service.process.terminate()
        service.process.wait(50)
        with pytest.raises(httpx.HTTPError):
            call.result().raise_for_status()
    assert not (tmp_path / "a").exists()


def test_killed_calls_leak_no_descriptor(service: Service, tmp_path: Path) -> None:
    """Ten calls that die leave the service with as many open files as before."""

    def open_files() -> int:
        return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))

    with ThreadPoolExecutor(2) as threads:
        eventually(lambda: len(service.workers()) == 2)
        naps = [
            threads.submit(service.call, "late", path=f"{tmp_path}/{name}", seconds=0.3)
            for name in "ab"
        ]
        assert {each.result().status_code for each in naps} == {200}  # over two connections
        before = open_files()
        assert {each.status_code for each in threads.map(service.call, ["exit"] * 10)} == {500}
    eventually(lambda: len(service.workers()) == 2 and open_files() <= before)
