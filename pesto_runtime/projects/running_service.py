"""Start a service of a target in a process of its own, and stop it at the end."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.client.client import Client
from pesto_runtime.contract.pipeline import PROFILES
from pesto_runtime.errors import AlgorithmFailed, Unreachable
from pesto_runtime.projects.recorded_cases import resources_of
from pesto_runtime.projects.running_image import is_image, running_image
from pesto_runtime.run.builds import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO

_PESTO = "from pesto_runtime.cli import main; main()"
_READY_S = 600.0
_STOP_S = 30.0
_MOST_LINES = 200


@contextmanager
def running_service(target: str, profiles: Sequence[str] = ()) -> Iterator[str]:
    """Return the URL of a service: the given one, or that of a target or image which this starts.

    The service listens on a free port of this machine, with one worker, until the block ends.

    Raises:
        AlgorithmFailed: the target cannot be served; with the last lines of its log.
        PestoError: an image cannot be run.
    """
    if is_url(target):
        yield target
        return
    if is_image(target):
        with running_image(target) as url:
            _wait_until_ready(url, lambda: True, ())
            yield url
        return
    words = ["serve", target, "--port", "0", "--workers", "1"]
    words += [word for profile in profiles for word in ("-p", profile)]
    with subprocess.Popen(  # noqa: S603  # this package, with words of the user as arguments
        [sys.executable, "-c", _PESTO, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        if process.stderr is None:
            raise TypeError("a process without stderr")
        try:
            url = _announced(process.stderr, target)
            log = _Log(process.stderr)
            _wait_until_ready(url, lambda: process.poll() is None, log.lines)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def cases_folder(target: str) -> Path | None:
    """Return the folder of the recorded cases of a target; None for a service or an image.

    Raises:
        NotFound: the target has no folder.
    """
    if is_url(target) or is_image(target):
        return None
    target = target.partition(PROFILES)[0]
    place, colon, _ = target.rpartition(":")
    path = Path(place if colon else target)
    return resources_of(path.parent if path.suffix == ".py" else path)


class _Log:
    """The last lines of a service's log; read by a thread, so that the service never waits."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[str] = []
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        try:
            for line in stream:
                self.lines.append(line)
                del self.lines[:-_MOST_LINES]
        except ValueError:  # the stream is closed with its process
            return


def _announced(stream: IO[str], target: str) -> str:
    """Return the URL that the service prints first."""
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        found = re.search(r"http://\S+/api/v1", line)
        if found:
            return found[0]
    raise AlgorithmFailed(f"{target} cannot be served: {''.join(lines[-20:]).strip()}")


def _wait_until_ready(url: str, is_alive: Callable[[], bool], lines: Sequence[str]) -> None:
    deadline = time.monotonic() + _READY_S
    with Client(url, retries=0, patience_s=0) as client:
        while time.monotonic() < deadline and is_alive():
            try:
                state = client.health()
            except Unreachable:
                state = "STARTING"
            if state == "OK":
                return
            if state == "FAILED":
                break
            time.sleep(0.05)
    raise AlgorithmFailed(f"the service does not become ready: {''.join(lines[-20:]).strip()}")
