"""The bare peer: conductor-python's own async worker with nothing to do, in a process of its own.

`python -m benchmarks.conductor.noop URL TASK_TYPE` works until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from conductor.client.automator.async_task_runner import AsyncTaskRunner
from conductor.client.configuration.configuration import Configuration
from conductor.client.worker.worker import Worker

AT_ONCE = 64


async def _nothing() -> dict[str, object]:
    return {}


def main() -> None:
    """Work."""
    url, task_type = sys.argv[1:]
    worker = Worker(task_type, _nothing, poll_interval=100, thread_count=AT_ONCE)
    runner = AsyncTaskRunner(worker, Configuration(server_api_url=url))
    print("working", flush=True)
    asyncio.run(runner.run())


if __name__ == "__main__":
    main()
