"""wrk, told what to send, and what it found; a load generator that is not the bottleneck."""

from __future__ import annotations

import json
import resource
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.service.servers import machine_busy_s

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.service.bodies import Body
    from benchmarks.service.servers import Server

_SCRIPT = """
local file = io.open(%(file)s, "rb")
wrk.body = file:read("*a")
file:close()
wrk.method = %(method)s
%(headers)s
done = function(summary, latency, requests)
  local failed = summary.errors.status
  io.write(string.format('{"requests": %%d, "failed": %%d, "lost": %%d, "microseconds": %%d, ' ..
    '"p50": %%f, "p99": %%f, "most": %%f}\\n', summary.requests, failed,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    summary.duration, latency:percentile(50), latency:percentile(99), latency.max))
end
"""


@dataclass(frozen=True)
class Run:
    """What one run of wrk found.

    Attributes:
        successes: Answers of 2xx per second.
        failed: Answers of other statuses per second.
        lost: Requests without an answer.
        p50_ms: Median time of an answer, failed ones too.
        p99_ms: 99th percentile of it.
        others: Share of the machine that was busy with something else meanwhile.
    """

    successes: float
    failed: float
    lost: int
    p50_ms: float
    p99_ms: float
    others: float


def run(server: Server, body: Body, *, clients: int, seconds: float, folder: Path) -> Run:
    """Send a body over and over for some seconds.

    Raises:
        CalledProcessError: wrk failed.
    """
    script, content = folder / "wrk.lua", folder / "body.bin"
    content.write_bytes(body.content)
    headers = "\n".join(
        f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in body.headers.items()
    )
    script.write_text(
        _SCRIPT
        % {"file": json.dumps(str(content)), "method": json.dumps(body.method), "headers": headers}
    )
    command = ["wrk", "-t", "1", "-c", str(clients), "-d", f"{seconds:g}s", "--timeout", "30s",
               "-s", str(script), server.url + body.path]  # fmt: skip
    before = _spent(server)
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = _spent(server)
    told = json.loads(found.strip().splitlines()[-1])
    took_s = told["microseconds"] / 1e6
    busy_s, own_s = after[0] - before[0], after[1] - before[1]
    return Run(
        successes=(told["requests"] - told["failed"]) / took_s,
        failed=told["failed"] / took_s,
        lost=told["lost"],
        p50_ms=told["p50"] / 1e3,
        p99_ms=told["p99"] / 1e3,
        others=max(0.0, busy_s - own_s) / (took_s * _cores()),
    )


def _spent(server: Server) -> tuple[float, float]:
    """CPU seconds of the machine, and of the server and wrk."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return machine_busy_s(), server.cpu_s() + children.ru_utime + children.ru_stime


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))
