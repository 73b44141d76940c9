"""Run pipelines on Spark: on the cluster of `PESTO_SPARK_MASTER`, or on this machine.

A chunk is a job of one task. It does not use data frames: chunks read scenes and store blocks.
"""

from __future__ import annotations

import os
import socket
import sys
import uuid
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError

from pesto_runtime.clusters.chunk_jobs import ClusterWorkers, performed
from pesto_runtime.errors import InvalidInput, RunFailed, Unreachable
from pesto_runtime.run.local import DriverEngine

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.engines import RunRequest

MASTER = "PESTO_SPARK_MASTER"
_JAVA = "Spark needs Java 17 or 21 (Debian: apt-get install openjdk-17-jre-headless), by JAVA_HOME"
_CONNECT_S = 10.0
_DETAIL_CHARS = 1500
_LOCAL = [
    ("spark.driver.bindAddress", "127.0.0.1"),
    # Java only passes chunks on; without its second compiler it takes 11 s of CPU time, not 20.
    ("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"),
    ("spark.driver.host", "127.0.0.1"),
    ("spark.log.level", "OFF"),  # a chunk that fails is an exception here
    ("spark.ui.enabled", "false"),
]


class SparkCluster:
    """A Spark context: the one of this process, or else a new one."""

    def __init__(self, request: RunRequest) -> None:
        """Connect to the master of the environment, or start Spark on this machine.

        Raises:
            InvalidInput: Java is missing, or not one of Spark's; the master is not a URL of Spark,
                or not that of the context of this process.
            Unreachable: the master does not respond.
        """
        self._tag = f"pesto-{uuid.uuid4().hex[:12]}"
        active = SparkContext._active_spark_context
        self._is_own = active is None
        self._context = _new_context(request) if active is None else _required(active)
        self.facts: dict[str, JsonValue] = {
            "master": self._context.master,
            "workers": self._context.defaultParallelism,
        }

    def perform(self, chunk: str) -> str:
        """Run a chunk as a job of one task.

        Raises:
            BrokenExecutor: the worker has died, on a cluster as often as Spark permits.
            RunFailed: a worker cannot import this package.
        """
        # Both are settings of the calling thread.
        self._context.addJobTag(self._tag)
        self._context.setInterruptOnCancel(True)
        try:
            (outcome,) = self._context.parallelize([chunk], 1).map(performed).collect()
        except Py4JError as error:
            text = str(error)
            if "stopped SparkContext" in text or isinstance(error, Py4JNetworkError):
                raise RunFailed("Spark has ended; the same command resumes the run") from error
            if "PythonException" not in text:
                raise BrokenExecutor(text[:_DETAIL_CHARS]) from error
            reason = text[text.index("PythonException") :][:_DETAIL_CHARS]
            raise RunFailed(
                f"a worker of Spark cannot run chunks: {reason}\n  install this version of "
                "pesto-workflows, and what the processes import, on every worker"
            ) from error
        return str(outcome)

    def stop(self) -> None:
        """Cancel all chunks; Spark kills their Python processes, and stored blocks stay."""
        self._context.cancelJobsWithTag(self._tag)

    def close(self) -> None:
        """End Spark if it was started for this run."""
        if self._is_own:
            self._context.stop()


def _required(active: SparkContext) -> SparkContext:
    """Require that the context of this process is of the master of the environment."""
    master = os.environ.get(MASTER, active.master)
    if master != active.master:
        raise InvalidInput(
            f"{MASTER}={master}, but this process uses Spark with {active.master}: stop that "
            "context, or unset the variable"
        )
    return active


def _new_context(request: RunRequest) -> SparkContext:
    master = os.environ.get(MASTER) or f"local[{request.workers},1]"
    if master.startswith("sc:"):
        raise InvalidInput(
            f"{MASTER}={master}: Spark Connect does not run chunks; give the URL of the master, as "
            "spark://HOST:7077"
        )
    if master.startswith("spark://"):
        _require_master(master)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    conf = SparkConf().setMaster(master).setAppName(f"pesto {request.pipeline.name}")
    conf.set("spark.ui.showConsoleProgress", "false")  # a run has its own
    if master == "local" or master.startswith("local["):
        conf.setAll(_LOCAL)
    try:
        return SparkContext(conf=conf)
    except PySparkRuntimeError as error:
        raise InvalidInput(f"Spark did not start: {error}\n  {_JAVA}") from error
    except Py4JError as error:
        raise InvalidInput(f"{MASTER}={master}: {str(error)[:_DETAIL_CHARS]}") from error


def _require_master(master: str) -> None:
    """Require that a master listens: Spark itself tries for a minute, and then stops its context.

    Raises:
        InvalidInput: the URL has no port.
        Unreachable: none of the masters listens.
    """
    for each in master.removeprefix("spark://").split(","):
        host, _, port = each.rpartition(":")
        if not port.isdigit():
            raise InvalidInput(f"{MASTER}={master} is not a URL of Spark: as spark://HOST:7077")
        with suppress(OSError), socket.create_connection((host, int(port)), _CONNECT_S):
            return
    raise Unreachable(
        f"{MASTER}={master}: no master of Spark responds: start one (sbin/start-master.sh), or "
        "unset the variable for a Spark of this machine"
    )


engine = DriverEngine("spark", lambda request: ClusterWorkers(SparkCluster(request)))
