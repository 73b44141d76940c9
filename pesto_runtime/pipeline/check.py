"""Type-check a pipeline from descriptions alone: every error in one report, before a pixel is read.

Pure: what services say, and the facts of scenes where they are known, are given to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pesto_runtime.contract import Description, Pipeline, Reference, Scene, parse_binding
from pesto_runtime.errors import BadField, InvalidPipeline, json_pointer, shortened
from pesto_runtime.pipeline.bindings import PER_TILE, bind_stage, nobody_makes
from pesto_runtime.pipeline.types import BoundStage, JsonType, RasterType, ValueType, scene_type
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

_NO_SCENES: Mapping[str, Scene] = {}


@dataclass(frozen=True)
class KnownFacts:
    """What is known beside the pipeline itself.

    Attributes:
        descriptions: Process name -> description, overlay merged in.
        digests: Process name -> digest of what the service itself said; for pins.
        plain: Processes whose service takes and gives PESTO's own images only (no `Accept-Post`).
        scenes: Image input -> its scene, where the scene is known.
        parameters: Other input -> its value; None where values are not known yet.
        offered: Further processes that have a service; for hints.
    """

    descriptions: Mapping[str, Description]
    digests: Mapping[str, str] = field(default_factory=dict)
    plain: frozenset[str] = frozenset()
    scenes: Mapping[str, Scene] = field(default_factory=dict)
    parameters: Mapping[str, JsonValue] | None = None
    offered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        stages: Stages in order; those with errors are absent.
        types: `$owner.port` -> the type of the value.
        errors: Everything that keeps the pipeline from running.
        warnings: What will run, but deserves a look.
    """

    stages: tuple[BoundStage, ...]
    types: Mapping[str, ValueType]
    errors: tuple[BadField, ...]
    warnings: tuple[BadField, ...]

    def require(self, name: str) -> None:
        """Raise what was found.

        Raises:
            InvalidPipeline: there are errors.
        """
        if self.errors:
            raise InvalidPipeline.of(f"pipeline {name!r}", self.errors)


def check(pipeline: Pipeline, facts: KnownFacts) -> Checked:
    """Check every stage, binding, literal, output and pin of a pipeline."""
    types = _input_types(pipeline, facts)
    errors = [*_id_faults(pipeline), *_order_faults(pipeline), *_pin_faults(pipeline, facts)]
    errors += _parameter_faults(pipeline, facts)
    warnings: list[BadField] = list(_scene_warnings(facts))
    stages: list[BoundStage] = []
    failed: set[str] = set()
    for index, stage in enumerate(pipeline.stages):
        where = f"/stages/{index}"
        description = facts.descriptions.get(stage.process)
        if description is None:
            errors.append(_unknown_process(stage.process, facts, f"{where}/process"))
            failed.add(stage.id)
            continue
        untyped = failed | {later.id for later in pipeline.stages[index:]}
        bound = bind_stage(stage, description, types, where=where, failed=untyped)
        plain = stage.process in facts.plain
        found = [*bound.errors, *(_plain_faults(bound.stage, where) if plain else ())]
        errors += found
        warnings += bound.warnings
        types.update({bound.stage.reference(port): t for port, t in bound.stage.makes.items()})
        if not found:
            stages.append(bound.stage)
    errors += _output_faults(pipeline, types, failed)
    return Checked(tuple(stages), types, tuple(_unique(errors)), tuple(_unique(warnings)))


def _input_types(pipeline: Pipeline, facts: KnownFacts) -> dict[str, ValueType]:
    types: dict[str, ValueType] = {}
    for name, kind in pipeline.inputs.items():
        reference = str(Reference(owner="inputs", port=name))
        if kind == "image":
            scene = facts.scenes.get(name)
            types[reference] = scene_type(scene) if scene else RasterType()
        else:
            types[reference] = JsonType({"type": kind})
    return types


def _id_faults(pipeline: Pipeline) -> Iterator[BadField]:
    seen: set[str] = set()
    for index, stage in enumerate(pipeline.stages):
        where = f"/stages/{index}/id"
        if stage.id == "inputs":
            yield BadField(where, "`inputs` names the pipeline's inputs; choose another id")
        if stage.id in seen:
            yield BadField(where, f"{stage.id!r} is the id of an earlier stage; choose another")
        seen.add(stage.id)


def _order_faults(pipeline: Pipeline) -> Iterator[BadField]:
    """References to a stage that is not earlier: a cycle, or the wrong order."""
    order = {stage.id: n for n, stage in reversed(list(enumerate(pipeline.stages)))}
    needs = {stage.id: set(_owners(stage.inputs.values())) for stage in pipeline.stages}
    for index, stage in enumerate(pipeline.stages):
        for port, value in stage.inputs.items():
            reference = _reference(value)
            if reference is None or reference.is_input or order.get(reference.owner, -1) < index:
                continue
            path = _path(reference.owner, stage.id, needs)
            where = json_pointer("stages", index, "inputs", port)
            if path:
                circle = " -> ".join([stage.id, *path])
                yield BadField(where, f"cycle: {circle}; break it", str(reference))
            else:
                yield BadField(
                    where, f"{reference} is made by a later stage; move it before {stage.id!r}"
                )


def _path(start: str, goal: str, needs: Mapping[str, set[str]]) -> list[str]:
    """A way from a stage to one that it needs, directly or not; empty where there is none."""
    ways, seen = [[start]], {start}
    while ways:
        way = ways.pop()
        if way[-1] == goal:
            return way
        for owner in sorted(needs.get(way[-1], set()) - seen):
            seen.add(owner)
            ways.append([*way, owner])
    return []


def _owners(values: Iterable[JsonValue]) -> Iterator[str]:
    for value in values:
        reference = _reference(value)
        if reference is not None:
            yield reference.owner


def _reference(value: JsonValue) -> Reference | None:
    try:
        return parse_binding(value)
    except InvalidPipeline:  # reported where the stage is bound
        return None


def _pin_faults(pipeline: Pipeline, facts: KnownFacts) -> Iterator[BadField]:
    for process, pinned in pipeline.pins.items():
        if all(stage.process != process for stage in pipeline.stages):
            yield BadField(json_pointer("pins", process), f"no stage runs {process!r}")
        live = facts.digests.get(process)
        if live is not None and live != pinned:
            yield BadField(
                json_pointer("pins", process),
                f"the service now says {live}; `pesto describe` shows what it says: "
                "check the change, then pin the new digest",
                pinned,
            )


def _parameter_faults(pipeline: Pipeline, facts: KnownFacts) -> Iterator[BadField]:
    if facts.parameters is None:
        return
    given = {*facts.parameters, *facts.scenes}
    for name in sorted(given - set(pipeline.inputs)):
        known = ", ".join(pipeline.inputs) or "none"
        yield BadField(f"/inputs/{name}", f"the pipeline has no such input; it has {known}")
    for name, kind in pipeline.inputs.items():
        if name not in given:
            yield BadField(f"/inputs/{name}", f"needs a value: -i {name}=…")
        elif kind != "image":
            value = facts.parameters.get(name)
            yield from schema_faults({"type": kind}, value, pointer=f"/inputs/{name}")


def _scene_warnings(facts: KnownFacts) -> Iterator[BadField]:
    for name, scene in facts.scenes.items():
        if scene.crs is None:
            yield BadField(f"/inputs/{name}", f"{scene.href} has no CRS; neither will the outputs")


def _unknown_process(name: str, facts: KnownFacts, where: str) -> BadField:
    known = {*facts.descriptions, *facts.offered}
    close = get_close_matches(name, known, n=1)
    hint = (
        f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"
    )
    way_out = f"give it a service: -s {name}=TARGET_OR_URL, --services, or the pipeline's services"
    return BadField(where, f"no service runs {name!r} ({hint}); {way_out}", name)


def _plain_faults(stage: BoundStage, where: str) -> Iterator[BadField]:
    """PESTO 1.7.2 gives PNG up to three bands, which holds uint8 and uint16 only."""
    for port, made in stage.makes.items():
        if not isinstance(made, RasterType) or not made.dtype:
            continue
        few = made.bands is not None and len(made.bands) <= 3
        if few and not set(made.dtype) <= {"uint8", "uint16"}:
            yield BadField(
                f"{where}/process",
                f"output {port!r} is {' or '.join(made.dtype)} with {len(made.bands or ())} bands; "
                "this service's images are uint8 or uint16, or have more than 3 bands",
                shortened(stage.description.name),
            )


def _output_faults(
    pipeline: Pipeline, types: Mapping[str, ValueType], failed: set[str]
) -> Iterator[BadField]:
    for name, value in pipeline.outputs.items():
        where = f"/outputs/{name}"
        reference = _reference(value)
        if reference is None or reference.is_input:
            yield BadField(where, "an output is $STAGE.OUTPUT", shortened(value))
        elif str(reference) not in types and reference.owner not in failed:
            yield BadField(where, nobody_makes(reference, types), value)
        else:
            yield from _product_faults(types.get(str(reference)), reference, where)
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or name in ("result", "report", "holes"):
            yield BadField(where, f"{name!r} is the name of a file that a run writes itself")


def _product_faults(made: ValueType | None, reference: Reference, where: str) -> Iterator[BadField]:
    if isinstance(made, JsonType) and made.per_tile:
        yield BadField(where, f"{reference} {PER_TILE}", str(reference))
    elif isinstance(made, RasterType) and len(made.dtype) > 1:
        yield BadField(
            where, f"{reference} may be {' or '.join(made.dtype)}; a product has one dtype"
        )


def _unique(faults: Iterable[BadField]) -> Iterator[BadField]:
    return iter(dict.fromkeys(faults))
