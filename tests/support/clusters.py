"""Clusters of Dask and Spark on this machine, their worker processes, and runs on them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client

from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import RunRequest, SilentListener, load_engine
from tests.support.commands import descendants, waited
from tests.support.runs import ROOT, Done, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Unpack

DASK = str(Path(sys.executable).with_name("dask"))


def why_no_java() -> str:
    """Why Spark cannot run here; empty if it can."""
    if shutil.which("java") is None:
        return "no Java: apt-get install openjdk-17-jre-headless"
    listed = subprocess.run(["java", "--list-modules"], capture_output=True, text=True, check=False)  # noqa: S607
    has_module = "jdk.incubator.vector" in listed.stdout
    return "" if has_module else "Spark needs a Java with the module jdk.incubator.vector"


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, int]]:
    """A scheduler and two workers, each a process; gives the address, and the pid of the workers.

    The scheduler leaves the chunks of a dead worker to the run.
    """
    file = folder / "scheduler.json"
    settings = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    found = ["--scheduler-file", str(file)]
    scheduler = [DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", *found]
    workers = [DASK, "worker", "--nworkers", "2", "--nthreads", "1", "--no-dashboard", *found]
    with (
        (folder / "dask.log").open("w") as log,
        subprocess.Popen(scheduler, stdout=log, stderr=log, env=settings) as first,
        subprocess.Popen(workers, stdout=log, stderr=log) as second,
    ):
        try:
            waited(file.exists, timeout_s=60)
            address = json.loads(file.read_text())["address"]
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)  # a process is one only when it is known
            yield address, second.pid
        finally:
            for process in (second, first):
                process.terminate()
                process.wait(60)


def dask_workers(pid: int) -> list[int]:
    """The workers that a process has started; with setproctitle, Dask gives them a title."""
    marks = ("spawn_main", "dask worker [")
    return [e for e in sorted(descendants(pid)) if any(mark in _command(e) for mark in marks)]


def spark_workers(pid: int) -> list[int]:
    """The Python workers of the Spark that a process has started: forked by a daemon."""
    python = [each for each in sorted(descendants(pid)) if "pyspark.daemon" in _command(each)]
    return [each for each in python if any(each in descendants(other) for other in python)]


def run_on(
    engine: str,
    document: Mapping[str, object],
    folder: Path,
    given: Mapping[str, object],
    **settings: Unpack[Settings],
) -> Done:
    """Run a pipeline on an engine, by default in tiles of 200 pixels."""
    wanted: Settings = {"workers": 2, "tile": 200, **settings}
    request = RunRequest(
        pipeline=Pipeline.parse(document),
        base=ROOT,
        inputs={name: str(value) for name, value in given.items()},
        folder=folder,
        **wanted,
    )
    return Done(folder, load_engine(engine).run(request, watcher=SilentListener()))


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
