"""Read what the tasks that plan have in common, and find places that other workers cannot reach."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_conductor.taskdefs import PREFIX
from pesto_conductor.taskqueue import host_of
from pesto_runtime.contract import package_version
from pesto_runtime.errors import InvalidInput, PestoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pesto_conductor import payloads
    from pesto_conductor.binding import TaskContext
    from pesto_runtime.contract import Pipeline, Plan
    from pesto_runtime.pipeline import Sizing
    from pesto_runtime.run.services import Services

TASK_COST_S = 0.015
"""Seconds that a task costs in addition to its work: 256 tasks took 2.6 to 3.6 s."""

LOCK_WAIT_S = 60.0
_RECENT_S = 60.0
"""A worker without a poll for so long has probably ended: long polls last 5 s."""
_MS = 1000.0


def prepare(request: payloads.PlanInput) -> tuple[Pipeline, Services, Sizing]:
    """Return the pipeline of a request, the services of its processes, and its limits.

    Raises:
        InvalidPipeline: it is not a pipeline.
        PestoError: a service cannot be read.
    """
    from pesto_runtime.contract import Pipeline
    from pesto_runtime.run.local import sizing_of
    from pesto_runtime.run.services import resolve_services

    pipeline, base = Pipeline.parse(request.pipeline), Path(request.base or ".").resolve()
    services = resolve_services(pipeline, base=base, chosen=request.model_dump()["services"])
    sizing = sizing_of(
        workers=request.workers or os.cpu_count() or 1,
        tile=request.tile,
        max_tasks=request.max_tasks or 64,
    )
    return pipeline, services, replace(sizing, task_cost_s=TASK_COST_S)


def accept(request: payloads.PlanInput, task: TaskContext) -> Callable[[Plan], Sequence[str]]:
    """Return a function of a plan that returns warnings, or refuses it.

    It raises `InvalidInput` if workers of another machine poll, and a place of the plan is on this
    machine; with `preflight: warn`, the places are warnings.
    """
    hosts: list[list[str]] = []  # looked up once, and only if a place is local

    def check(plan: Plan) -> Sequence[str]:
        from pesto_runtime.run.local_places import local_places

        faults = [*local_places(plan)]
        if not faults:
            return ()
        if not hosts:
            hosts.append(other_hosts(task))
        if not (others := ", ".join(hosts[0])):
            return ()
        if request.preflight == "warn":
            return [f"{each}; workers of {others} may not reach it" for each in faults]
        raise InvalidInput.of(
            f"workers of {others} poll too, and cannot reach places of this machine: use buckets, "
            "and names of services in the network; or set preflight=warn if they share them",
            faults,
        )

    return check


def note_versions(plan: Plan, task: TaskContext) -> None:
    """Log in a task that its worker has another version of this package than the plan."""
    if plan.package != package_version():
        task.log(f"planned by version {plan.package}; this worker has {package_version()}")


def other_hosts(task: TaskContext) -> list[str]:
    """Return the hosts, except this one, whose workers have polled for tasks like this one.

    The server stores only the last poll of each task type and domain, so all types are read. If it
    does not return them, there are none.
    """
    from pesto_conductor.client import Conductor

    try:
        with Conductor(task.server) as server:
            polls = server.last_polls()
    except PestoError:
        return []
    # A task without a domain may be followed by those of other domains, as `gpu`.
    domains = {task.domain} if task.domain else {"", "gpu"}
    since = (time.time() - _RECENT_S) * _MS
    found = {
        host_of(poll.worker)
        for poll in polls
        if poll.domain in domains and poll.at_ms > since and poll.type.startswith(PREFIX)
    }
    return sorted(found - {host_of(task.worker)})
