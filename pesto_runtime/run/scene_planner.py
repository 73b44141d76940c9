"""Plan one pipeline over many scenes.

Importing this file loads neither pixels nor network: see `planning`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pesto_runtime.pipeline import run_key, value_keys
from pesto_runtime.places import href_of
from pesto_runtime.run.cache_planning import planned_cache
from pesto_runtime.run.pipeline_inputs import inputs_reader
from pesto_runtime.run.planning import Planned, plan
from pesto_runtime.run.warp_planning import require_warps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Pipeline, Plan, ReportForm, Scene
    from pesto_runtime.pipeline import Sizing
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.pipeline_inputs import PipelineInputs
    from pesto_runtime.run.services import Services

_MOST_KINDS = 64


@dataclass
class ScenePlanner:
    """Plans one pipeline over many scenes: those of equal facts are checked and divided once.

    Attributes:
        pipeline: The pipeline.
        services: The services of its processes.
        sizing: Limits for the sizes of tiles and chunks.
        patience_s: As for `plan`, as the next ones.
        report: What `report.html` has of the products.
        compress: Codec and level of blocks.
        cache: Path or href of a cache of blocks.
    """

    pipeline: Pipeline
    services: Services
    sizing: Sizing
    patience_s: float = 60.0
    report: ReportForm = "links"
    compress: str = "deflate"
    cache: str | None = None
    _planned: dict[str, Planned] = field(default_factory=dict)

    @cached_property
    def read_inputs(self) -> Callable[[Mapping[str, JsonValue]], PipelineInputs]:
        """Reads the inputs of a scene, as `read_inputs` of the pipeline and its services."""
        return inputs_reader(self.pipeline, self.services)

    def plan(self, inputs: PipelineInputs, *, store: str, folder: AnyPath) -> Planned:
        """Return the plan that `plan` makes.

        Args:
            inputs: Scenes and parameters.
            store: Base href of the run store.
            folder: The output folder that the run will own.

        Raises:
            PestoError: as `plan` does.
        """
        kind = _kind_of(inputs)
        template = self._planned.get(kind)
        if template is not None:
            return self._like(template, inputs, store=store, folder=folder)
        planned = plan(
            self.pipeline, self.services, inputs, store=store, sizing=self.sizing,
            patience_s=self.patience_s, folder=folder, report=self.report,
            compress=self.compress, cache=self.cache,
        )  # fmt: skip
        if _is_template(planned.plan):
            if len(self._planned) >= _MOST_KINDS:
                self._planned.clear()
            self._planned[kind] = planned
        return planned

    def _like(
        self, template: Planned, inputs: PipelineInputs, *, store: str, folder: AnyPath
    ) -> Planned:
        before = template.plan
        scenes = {**before.scenes, **inputs.scenes}
        require_warps(template.checked, scenes, before.grids)
        keys = value_keys(
            template.checked.stages,
            before.services,
            scenes=scenes,
            parameters=before.parameters,
            run_id="",  # all scenes have an identity
            compression=before.compression,
        )
        run = run_key(self.pipeline.outputs, keys)
        changes = {"scenes": scenes, "keys": keys, "run": run, "store": store}
        changes["warnings"] = tuple(_renamed(before, scenes))
        planned = before.model_copy(update={**changes, "folder": href_of(folder)})
        if self.cache:
            place = planned_cache(
                self.cache, planned, self.pipeline, template.checked, services=self.services
            )
            planned = planned.model_copy(update={"cache": place})
        return Planned(planned, template.checked, template.estimates)


def _is_template(plan: Plan) -> bool:
    """Whether a plan differs from that of a scene of the same kind by hrefs and keys alone.

    A grid that a warp makes follows from the place of the scene.
    """
    hrefs = [each.href for each in plan.scenes.values()]
    named = any(href in warning for href in hrefs for warning in plan.warnings)
    has_identities = all(each.identity for each in plan.scenes.values())
    return has_identities and not plan.grids and not (named and len(hrefs) > 1)


def _renamed(template: Plan, scenes: Mapping[str, Scene]) -> Iterator[str]:
    """Yield the warnings of a template, with the href of the scene of the plan."""
    hrefs = [(each.href, scenes[name].href) for name, each in template.scenes.items()]
    for warning in template.warnings:
        yield warning.replace(*hrefs[0]) if len(hrefs) == 1 else warning


def _kind_of(inputs: PipelineInputs) -> str:
    """Return a text of all facts of inputs on which a plan depends, beside its keys."""
    places = [each.transform for each in inputs.scenes.values() if each.transform]
    col, row = (places[0][2], places[0][5]) if places else (0.0, 0.0)
    facts = []
    for name, scene in inputs.scenes.items():
        rest = scene.model_dump_json(exclude={"href", "identity", "tags", "transform"})
        placed: tuple[float, ...] = ()
        if scene.transform:  # grids are compared with each other
            a, b, c, d, e, f = scene.transform
            placed = (a, b, c - col, d, e, f - row)
        facts.append((name, rest, placed, bool(scene.identity)))
    errors = sorted(inputs.unreadable)
    return repr((facts, json.dumps(inputs.parameters, sort_keys=True), errors))
