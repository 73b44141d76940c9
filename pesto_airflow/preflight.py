"""Find what tasks on other machines cannot reach, before a run computes its first tile.

It reads the plan and Airflow's configuration. What a worker really reaches is seen there only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from airflow.sdk import conf

from pesto_runtime.errors import BadField, InvalidInput
from pesto_runtime.hrefs import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import Plan

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_S3_ENDPOINT")


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
    faults = [*_places(plan), *_services(plan), *_endpoint(plan)]
    if faults and kind == "refuse":
        raise InvalidInput.of(
            "tasks may run on other machines, which reach only what all of them share: buckets and "
            "services by their name in the network; if they share the places below, for example by "
            'a mounted disk, set preflight="warn"',
            faults,
        )
    return tuple(f"{each}; tasks on other machines may not reach it" for each in faults)


def _places(plan: Plan) -> Iterator[BadField]:
    places = {"/folder": plan.folder}
    if not plan.store.startswith(f"{plan.folder}/"):
        places["/store"] = plan.store
    places |= {f"/inputs/{name}": scene.href for name, scene in plan.scenes.items()}
    for pointer, href in places.items():
        if _is_of_this_machine(href):
            yield BadField(pointer, f"{href} is on this machine")


def _services(plan: Plan) -> Iterator[BadField]:
    for name, service in plan.services.items():
        for target in service.targets:
            if service.is_remote and _is_of_this_machine(target):
                yield BadField(f"/services/{name}", f"{target} is a service of this machine")
            elif target.startswith("/"):
                yield BadField(f"/services/{name}", f"{target} is outside the DAG bundle")


def _endpoint(plan: Plan) -> Iterator[BadField]:
    places = (plan.folder, plan.store, *(scene.href for scene in plan.scenes.values()))
    endpoint = next((url for name in _ENDPOINTS if (url := os.environ.get(name))), "")
    url = endpoint if "://" in endpoint else f"https://{endpoint}"
    if any(each.startswith("s3://") for each in places) and _is_of_this_machine(url):
        yield BadField("/store_conn_id", f"{endpoint} is an endpoint of this machine")


def _is_of_this_machine(href: str) -> bool:
    """Whether an href is that of a file, or of a server of this machine."""
    parts = urlsplit(href)
    if parts.scheme in ("http", "https"):
        return is_loopback(parts.hostname or "")
    return parts.scheme == "file" or href.startswith("/")
