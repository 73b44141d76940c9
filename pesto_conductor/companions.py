"""Workers that live as long as one run: started for it, stopped with it, however it ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Self

from pesto_runtime.errors import RunFailed

if TYPE_CHECKING:
    from types import TracebackType

_COMMAND = (sys.executable, "-c", "from pesto_runtime.cli import main; main()")
_DRAIN_S = 10.0
_LOG_CHARS = 1500


class RunWorkers:
    """Worker processes of one domain.

    Args:
        url: Conductor's REST interface.
        domain: They take tasks of this domain, and no others.
        processes: How many.
        at_once: Tasks at once in each.
    """

    def __init__(self, url: str, domain: str, *, processes: int, at_once: int) -> None:
        self._command = [
            *_COMMAND, "conductor", "worker", "--url", url, "--domain", domain,
            "--concurrency", str(at_once), "--until-stdin-closes",
        ]  # fmt: skip
        self.domain = domain
        self._count = processes
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with this
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._running = [self._start() for _ in range(self._count)]
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for each in self._running:
            if each.stdin is not None:
                each.stdin.close()  # it ends by itself, having put down what it holds
        for each in self._running:
            try:
                each.wait(_DRAIN_S)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
        self._log.close()

    def require(self) -> None:
        """Make sure that somebody works.

        Raises:
            RunFailed: every worker has ended; with what they said last.
        """
        codes = [each.poll() for each in self._running]
        if None not in codes:
            self._log.seek(0)
            raise RunFailed(
                f"all workers have ended, with {', '.join(map(str, codes))}:\n"
                f"{self._log.read()[-_LOG_CHARS:]}"
            )

    def _start(self) -> subprocess.Popen[bytes]:
        """In a session of its own: a Ctrl-C is for the run, which then stops its workers."""
        return subprocess.Popen(  # noqa: S603  # our own command
            self._command, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip
