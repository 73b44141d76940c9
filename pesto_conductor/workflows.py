"""Render a pipeline as a workflow definition, for `pesto render --engine conductor`.

The definitions themselves are written by `definitions.py` and `campaign_definitions.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_conductor.campaign_definitions import campaign_definition
from pesto_conductor.definitions import workflow_definition
from pesto_conductor.taskdefs import GPU_DOMAIN
from pesto_runtime.contract.pipeline import PROFILES
from pesto_runtime.run.planning import shape
from pesto_runtime.run.services import resolve_services

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.contract import Pipeline
    from pesto_runtime.engines import RenderRequest
    from pesto_runtime.run.services import Discovered, Services

_DEFAULT_MAX_TASKS = 64


class ConductorRenderer:
    """Renders pipelines for `pesto render --engine conductor`."""

    def render(self, request: RenderRequest) -> str:
        """Return the text of the definition; no service is contacted that a catalog describes.

        Raises:
            InvalidPipeline: the pipeline has errors; names each.
            PestoError: the description of a service cannot be requested.
        """
        return json.dumps(render(request), indent=2) + "\n"


renderer = ConductorRenderer()


def render(request: RenderRequest) -> dict[str, JsonValue]:
    """Return the workflow definition of a pipeline; raises the errors of `ConductorRenderer`."""
    # Code is not loaded from a bucket: targets are then relative to the folder of each worker.
    pipeline = request.pipeline
    base = request.path.parent if isinstance(request.path, Path) else Path()
    services = resolve_services(
        pipeline,
        base=base.resolve(),
        options=request.services,
        catalog=request.catalog,
        ask=False,
    )
    defaults: dict[str, JsonValue] = {"base": base.as_posix()}
    if chosen := chosen_services(pipeline, services, base=base.resolve()):
        defaults["services"] = chosen
    if request.max_tasks != _DEFAULT_MAX_TASKS:
        defaults["max_tasks"] = request.max_tasks
    if request.tile is not None:
        defaults["tile"] = request.tile
    requires_gpu = any(found.description.known.resources.gpu for found in services.found.values())
    is_campaign = request.workflow.is_campaign
    chunks = "pesto_process_scenes" if is_campaign else "pesto_process"
    write = campaign_definition if is_campaign else workflow_definition
    return write(
        pipeline,
        shape(pipeline, services),
        descriptions=services.descriptions,
        defaults=defaults,
        domains={chunks: GPU_DOMAIN} if requires_gpu else {},
        settings=request.workflow,
    )


def chosen_services(pipeline: Pipeline, services: Services, *, base: Path) -> dict[str, JsonValue]:
    """Return the services that differ from the pipeline's own: those of options or a catalog."""
    return {
        name: _catalog_entry(found)
        for name, found in services.found.items()
        if found.service.targets != _own_targets(pipeline, name, base)
        or found.description != found.said
    }


def _own_targets(pipeline: Pipeline, name: str, base: Path) -> tuple[str, ...]:
    """Return the pipeline's own targets of a process, with absolute paths."""
    own = pipeline.services.get(name, ())
    targets = (own,) if isinstance(own, str) else tuple(own)
    return tuple(_absolute(target, base) for target in targets)


def _absolute(target: str, base: Path) -> str:
    code, mark, profiles = target.partition(PROFILES)
    place, colon, function = code.rpartition(":")
    path = base / (place if colon else code)
    if not path.exists():
        return target
    return f"{path.resolve()}{colon}{function if colon else ''}{mark}{profiles}"


def _catalog_entry(found: Discovered) -> JsonValue:
    """Return a service in the JSON form of a catalog."""
    targets = list(found.service.targets)
    if found.description == found.said:
        return targets[0] if len(targets) == 1 else [*targets]
    overlay = _patch(found.said.to_json(), found.description.to_json())
    return {"url": [*targets], "overlay": overlay}


def _patch(before: dict[str, JsonValue], after: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the merge patch (RFC 7396) that converts one document to the other."""
    patch: dict[str, JsonValue] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if old != value:
                patch[key] = _patch(old, value)
        elif key not in before or old != value:
            patch[key] = value
    return patch
