"""Plan the use of a cache: find the keys of a run in it, and report what is not cached.

Importing this file loads neither pixels nor network: see `planning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.pipeline import cache_place
from pesto_runtime.run.builds import load_planned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import CachePlace, Pipeline, Plan, Service
    from pesto_runtime.pipeline import Checked
    from pesto_runtime.run.services import Discovered, Services


def planned_cache(
    cache: str, plan: Plan, pipeline: Pipeline, checked: Checked, *, services: Services
) -> CachePlace:
    """Return the cache of a run, with its keys.

    Args:
        cache: Path or href of the cache.
        plan: The plan.
        pipeline: Its pipeline.
        checked: The check of the pipeline with the scenes of the plan.
        services: The services of its processes.

    Raises:
        StoreRefused: the cache cannot be opened.
        PestoError: its bucket cannot be read.
    """
    from pesto_runtime.run.cache_store import cache_base, content_digest

    return cache_place(
        cache_base(cache),
        plan,
        pipeline,
        checked,
        contents={name: content_digest(scene.href) for name, scene in plan.scenes.items()},
        placeless={
            name
            for name, each in plan.services.items()
            if _is_placeless(each, services.found.get(name))
        },
    )


def uncached_stages(plan: Plan) -> Iterator[str]:
    """Yield a warning for each service whose results are not cached."""
    for name, service in plan.services.items():
        if service.is_remote and not service.states_code:
            yield (
                f"process {name!r}: the service at {service.targets[0]} does not state its code in "
                "its responses: its results, and what follows from them, are not cached"
            )


def _is_placeless(service: Service, found: Discovered | None) -> bool:
    if service.is_remote:  # its build is compared in each response, so the statement holds
        return found is not None and found.is_placeless
    from pesto_runtime.processor.loading import is_placeless

    return is_placeless(load_planned(service))
