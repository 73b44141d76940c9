"""What integration tests stand on: a bucket, and PESTO 1.7.2, installed beside the project."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import tests.support.airflow_home  # noqa: F401  # before any test imports Airflow
from tests.support.buckets import moto_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


DATA = Path(__file__).parents[1] / "data"
REQUIREMENTS = ("processing-factory==1.7.2", "setuptools<80", "six")


@pytest.fixture(scope="session")
def bucket_port() -> Iterator[int]:
    """Port of an S3 with an empty bucket."""
    with moto_server() as port:
        yield port


@pytest.fixture(scope="session")
def real_pesto(
    served_by_pesto: Callable[..., AbstractContextManager[str]],
) -> Iterator[str]:
    """URL of a PESTO 1.7.2 service of `tests/data/pesto_margin_project`."""
    with served_by_pesto(DATA / "pesto_margin_project") as url:
        yield url


@pytest.fixture(scope="session")
def served_by_pesto() -> Callable[..., AbstractContextManager[str]]:
    """Serves a project, with profiles, by PESTO 1.7.2: the URL of it."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None or shutil.which("mount") is None:
        pytest.skip("PESTO reads /etc/pesto: supplying it needs root, unshare and mount")
    python = _environment()

    @contextmanager
    def serve(project: Path, *profiles: str) -> Iterator[str]:
        with tempfile.TemporaryDirectory() as work:
            command = [
                unshare, "--mount", str(python), str(DATA / "real_pesto_server.py"),
                str(project), work, *profiles,
            ]  # fmt: skip
            with _server(command, Path(work) / "log") as url:
                yield url

    return serve


@contextmanager
def _server(command: list[str], log: Path) -> Iterator[str]:
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                pytest.skip(f"PESTO 1.7.2 does not start here: {log.read_text()[-300:]}")
            _wait_until_ready(url)
            yield url
        finally:
            process.terminate()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", trust_env=False).text == "OK":
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"{url} was not ready within 30 s")


def _environment() -> Path:
    """Python of an environment with PESTO 1.7.2; made on the first use, then kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = Path(cache) / "pesto-workflows" / "real-pesto"
    home.mkdir(parents=True, exist_ok=True)
    python, done = home / "venv" / "bin" / "python", home / "installed"
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done.exists() and done.read_text() == "\n".join(REQUIREMENTS)):
            shutil.rmtree(home / "venv", ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(home / "venv")], check=True)
            command = [str(python), "-m", "pip", "install", "-q", *REQUIREMENTS]
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"PESTO 1.7.2 cannot be installed: {made.stderr[-300:]}")
            done.write_text("\n".join(REQUIREMENTS))
    return python
