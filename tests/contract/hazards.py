"""A process that harms whoever runs it, in the way that is asked for."""

import ctypes
import itertools
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from pesto_runtime import log, process, progress
from pesto_runtime.processor import Named

if TYPE_CHECKING:
    from collections.abc import Callable


def late(path: str, seconds: float) -> None:
    """Leave a mark, but not at once."""
    time.sleep(seconds)
    Path(path).touch()


def told(path: str) -> None:
    """Leave a mark, once a file says so."""
    while not Path(path + ".go").exists():
        time.sleep(0.05)
    Path(path).touch()


CHILD = "until [ -e {path}.go ]; do sleep 0.05; done; touch {path}"


def harm(how: str, path: str, seconds: float) -> None:
    """Do it."""
    harms: dict[str, Callable[[], object]] = {
        "segfault": lambda: ctypes.string_at(0),
        "exit": lambda: os._exit(3),
        "loop": lambda: all(itertools.repeat(True)),
        "hold": lambda: ctypes.PyDLL(None).sleep(int(seconds)),  # keeps the interpreter's lock
        "memory": lambda: np.ones(1 << 28),
        "child": lambda: subprocess.check_call(["/bin/sh", "-c", CHILD.format(path=path)]),
        "late": lambda: late(path, seconds),
        "told": lambda: told(path),
        "tell": lambda: None,
    }
    harms[how]()


@process(version="1")
def hazard(how: str, path: str = "", seconds: float = 0.0) -> Annotated[int, Named("worker")]:
    """Do harm, or tell which process runs this."""
    if path:
        Path(path + ".began").touch()
    harm(how, path, seconds)
    return os.getpid()


@process(version="1")
def chatter(lines: int = 1) -> Annotated[int, Named("told")]:
    """Tell how far it is and what it sees, in every way there is."""
    for index in range(lines):
        print(f"printed {index}")  # noqa: T201  # what authors do
    log("told\nin two")
    progress(1, 4)
    thread = threading.Thread(target=log, args=("from a thread",))
    thread.start()
    thread.join()
    progress(4, 4)
    return lines


@process(version="1")
def echo(text: str, times: int = 1) -> Annotated[str, Named("text")]:
    """Give a text back, several times."""
    return text * times
