"""Run pipelines on Dask: on the scheduler of `PESTO_DASK_ADDRESS`, or on a cluster of this machine.

A chunk is a task of Dask. It does not use Dask's arrays: chunks read scenes and store blocks.
"""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import BrokenExecutor
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, get_worker
from distributed.client import FutureCancelledError

from pesto_runtime.clusters.chunk_jobs import ClusterWorkers, performed
from pesto_runtime.errors import InvalidInput, RunFailed, Unreachable
from pesto_runtime.run.local import DriverEngine

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.engines import RunRequest

ADDRESS = "PESTO_DASK_ADDRESS"
_LEAST_WAIT_S = 1.0
_LOCAL = {
    # This process runs the chunk of a dead worker again; the scheduler need not do it, too.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.daemon": False,  # the author's code may start processes
}


class DaskCluster:
    """The connection to a scheduler."""

    def __init__(self, request: RunRequest) -> None:
        """Connect to the scheduler of the environment, or start one with workers.

        Raises:
            InvalidInput: the address is not one of Dask.
            Unreachable: the scheduler does not respond, or has no worker.
        """
        self._guard = threading.Lock()
        self._futures: set[Future[str]] = set()
        self._local: LocalCluster | None = None
        address = os.environ.get(ADDRESS)
        if address:
            self._client = _connected(address, request.patience_s)
        else:
            self._local = _local_cluster(request.workers)
            self._client = Client(self._local, set_as_default=False)
            self._client.wait_for_workers(request.workers)
        self.facts: dict[str, JsonValue] = {
            "scheduler": address or "local",
            "workers": sum(self._client.nthreads().values()),
        }

    def perform(self, chunk: str) -> str:
        """Run a chunk as a task.

        Raises:
            BrokenExecutor: the worker has died, on a scheduler of others as often as it permits.
            RunFailed: it was cancelled, the scheduler has ended, or a worker cannot import this
                package.
        """
        future = self._client.submit(_task, chunk, pure=False)
        with self._guard:
            self._futures.add(future)
        try:
            return str(future.result())
        except KilledWorker as error:
            raise BrokenExecutor(str(error)) from error
        except FutureCancelledError as error:
            raise RunFailed(f"Dask cancelled a chunk: {error}; the same command resumes") from error
        except Exception as error:
            raise RunFailed(
                f"a worker of Dask cannot run chunks: {error}; install this version of "
                "pesto-workflows, and what the processes import, on every worker"
            ) from error
        finally:
            with self._guard:
                self._futures.discard(future)

    def stop(self) -> None:
        """Cancel all chunks; a worker stops before its next tile."""
        with self._guard:
            futures = list(self._futures)
        self._client.cancel(futures, force=True)

    def close(self) -> None:
        """Close the connection, and end the workers that were started for this run."""
        self._client.close()
        if self._local is not None:
            self._local.close()


def _connected(address: str, patience_s: float) -> Client:
    wait_s = max(patience_s, _LEAST_WAIT_S)
    try:
        client = Client(address, set_as_default=False, timeout=wait_s)
    except ValueError as error:
        raise InvalidInput(f"{ADDRESS}={address}: {error}; as tcp://HOST:8786") from error
    except OSError as error:
        raise Unreachable(
            f"{ADDRESS}={address}: no scheduler of Dask responds: start one (dask scheduler), or "
            "unset the variable for a cluster of this machine"
        ) from error
    try:
        client.wait_for_workers(1, timeout=wait_s)
    except TimeoutError as error:
        client.close()
        raise Unreachable(
            f"{ADDRESS}={address}: the scheduler has no worker after {wait_s:g} s: start "
            f"workers (dask worker {address})"
        ) from error
    return client


def _local_cluster(workers: int) -> LocalCluster:
    # A terminal sends Ctrl-C to all processes of the group, and this one stops the workers. Dask's
    # thread and all workers that it starts, now and later, inherit the signals that are blocked.
    # Multiprocessing unblocks them when it starts its tracker, so the tracker is started first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with dask.config.set(_LOCAL):
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=0,  # the size of tiles limits the memory
                dashboard_address=None,
                silence_logs="CRITICAL",
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _task(chunk: str) -> str:
    """Run a chunk on a worker, until it is cancelled."""
    worker = get_worker()
    key = worker.get_current_task()

    def is_cancelled() -> bool:
        # The scheduler cancels the tasks of a client that has ended, too.
        found = worker.state.tasks.get(key)
        return found is None or found.state == "cancelled"

    return performed(chunk, is_cancelled)


engine = DriverEngine("dask", lambda request: ClusterWorkers(DaskCluster(request)))
