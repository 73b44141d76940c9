"""Find what tasks on other machines cannot reach, before a run computes its first tile.

It reads the plan and Airflow's configuration. What a worker really reaches is seen there only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from airflow.sdk import conf

from pesto_runtime.errors import BadField, InvalidInput
from pesto_runtime.run.local_places import local_places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import Plan


def has_remote_workers() -> bool:
    """Whether tasks may run on other machines: any executor but the local one is configured."""
    # The Helm chart configures the LocalExecutor inside pods of the KubernetesExecutor.
    if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
        return True
    executors = conf.get_mandatory_value("core", "executor").replace(";", ",").split(",")
    return any(not each.strip().endswith("LocalExecutor") for each in executors)


def preflight(plan: Plan, *, kind: Literal["refuse", "warn"]) -> tuple[str, ...]:
    """Return a warning for each place of a plan that only this machine reaches.

    Raises:
        InvalidInput: there are some, and `kind` is `refuse`; with each, and the ways out.
    """
    if not has_remote_workers():
        return ()
    faults = [*local_places(plan, endpoint="/store_conn_id"), *_code(plan)]
    if faults and kind == "refuse":
        raise InvalidInput.of(
            "tasks may run on other machines, which reach only what all of them share: buckets and "
            "services by their name in the network; if they share the places below, for example by "
            'a mounted disk, set preflight="warn"',
            faults,
        )
    return tuple(f"{each}; tasks on other machines may not reach it" for each in faults)


def _code(plan: Plan) -> Iterator[BadField]:
    for name, service in plan.services.items():
        for target in service.targets:
            if target.startswith("/"):
                yield BadField(f"/services/{name}", f"{target} is outside the DAG bundle")
