"""A process tied to another: it dies with it, and tells how it ended."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time

from pesto_runtime.errors import AlgorithmFailed

_PR_SET_PDEATHSIG = 1
_LOOK_S = 1.0


def die_with(parent: int) -> None:
    """Have this process killed as soon as its parent is gone, whatever it does then.

    The kernel does it on Linux, so that code which holds the interpreter's lock dies too.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def limit_memory(more_bytes: int) -> None:
    """Let this process take that much address space on top of what it has; then `MemoryError`."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # no file system
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def told(code: int) -> str:
    """How a process ended, from its return code.

    >>> told(-11)
    'was ended by SIGSEGV'
    >>> told(3)
    'ended itself with exit status 3'
    """
    if code >= 0:
        return f"ended itself with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (the system does so when memory runs out)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


def died(name: str, code: int) -> AlgorithmFailed:
    """The error of a call, or a set-up, whose process died under it."""
    return AlgorithmFailed(f"{name}: its worker process {told(code)}")


class NotBegun(Exception):  # it never leaves the pool
    """A worker died before it began the call that it was handed; another one may perform it."""


def not_begun(name: str, code: int) -> NotBegun:
    """What to say of a call whose worker died in the instant it was handed over."""
    return NotBegun(f"{name}: its worker process {told(code)} before it began this call")


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
