"""`pesto render PIPELINE --engine conductor`: a pipeline as a workflow definition, in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pesto_conductor.taskdefs import GPU_DOMAIN
from pesto_conductor.workflows import Rendered
from pesto_runtime.activities import resolve_services, shape

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.activities import Discovered, Services
    from pesto_runtime.contract import Pipeline
    from pesto_runtime.engines import RenderRequest

_USUAL_TASKS = 64


class ConductorRenderer:
    """Writes pipelines down for Conductor."""

    def render(self, request: RenderRequest) -> str:
        """Answer the definition's text; asks no service that a catalog describes.

        Raises:
            InvalidPipeline: the pipeline does not check.
            PestoError: a service does not say what it is.
        """
        return json.dumps(render(request), indent=2) + "\n"


renderer = ConductorRenderer()


def render(request: RenderRequest) -> dict[str, JsonValue]:
    """Answer the definition; see `ConductorRenderer.render`."""
    pipeline, base = request.pipeline, request.path.parent
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
    if request.max_tasks != _USUAL_TASKS:
        defaults["max_tasks"] = request.max_tasks
    if request.tile is not None:
        defaults["tile"] = request.tile
    wants_gpu = any(found.description.known.resources.gpu for found in services.found.values())
    domains = {"pesto_process": GPU_DOMAIN} if wants_gpu else {}
    return Rendered(pipeline, shape(pipeline, services), defaults, domains).definition()


def chosen_services(pipeline: Pipeline, services: Services, *, base: Path) -> dict[str, JsonValue]:
    """Services that are not those the pipeline itself names: of options or a catalog."""
    return {
        name: _catalogued(found)
        for name, found in services.found.items()
        if found.service.targets != _own_targets(pipeline, name, base)
        or found.description != found.said
    }


def _own_targets(pipeline: Pipeline, name: str, base: Path) -> tuple[str, ...]:
    """As they are once found: paths absolute."""
    own = pipeline.services.get(name, ())
    targets = (own,) if isinstance(own, str) else tuple(own)
    return tuple(_absolute(target, base) for target in targets)


def _absolute(target: str, base: Path) -> str:
    place, colon, function = target.rpartition(":")
    path = base / (place if colon else target)
    return f"{path.resolve()}{colon}{function if colon else ''}" if path.exists() else target


def _catalogued(found: Discovered) -> JsonValue:
    """As a catalog's JSON names a service."""
    targets = list(found.service.targets)
    if found.description == found.said:
        return targets[0] if len(targets) == 1 else [*targets]
    overlay = _patch(found.said.to_json(), found.description.to_json())
    return {"url": [*targets], "overlay": overlay}


def _patch(before: dict[str, JsonValue], after: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The merge patch (RFC 7396) that makes one document of the other."""
    patch: dict[str, JsonValue] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if old != value:
                patch[key] = _patch(old, value)
        elif key not in before or old != value:
            patch[key] = value
    return patch
