"""Check a whole pipeline from descriptions alone, and report all errors at once.

Pure: the caller passes descriptions and, if known, the facts of scenes. No pixel is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pesto_runtime.contract import Description, Pipeline, Reference, Scene, parse_binding
from pesto_runtime.contract.image_lists import counts_of, list_of
from pesto_runtime.errors import BadField, InvalidPipeline, json_pointer, shortened
from pesto_runtime.pipeline.bindings import PER_TILE, bind_stage, unknown_reference
from pesto_runtime.pipeline.grids import Grids, input_grids
from pesto_runtime.pipeline.list_bindings import spread_pipeline
from pesto_runtime.pipeline.parameters import completed, fed_ports, input_faults, type_schema
from pesto_runtime.pipeline.scene_warnings import scene_warnings
from pesto_runtime.pipeline.types import (
    BoundStage,
    JsonType,
    RasterType,
    ValueType,
    scene_type,
)
from pesto_runtime.tiling import scaled_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

_NO_VERSION = "0.0.0"
OWN_FILES = ("result", "report", "holes")
"""Stems of the files that a run writes beside its outputs."""


_DECLARED_BY = {
    "`nodata` (None for none)": {"nodata"},
    "`values`": {"scale", "offset", "unit"},
}
"""How an output declares facts -> these facts."""


@dataclass(frozen=True)
class KnownFacts:
    """Descriptions and facts that a pipeline is checked against.

    Attributes:
        descriptions: Process name -> description, overlay merged in.
        digests: Process name -> digest of the service's own description; for pins.
        plain: Processes whose service supports only PESTO's own images (no `Accept-Post`).
        scenes: Image input -> its scene, if the scene is known.
        unreadable: Image input -> why its scene cannot be read.
        parameters: Other input -> its value; None if the values are not known yet.
        offered: Further processes that have a service; for hints.
    """

    descriptions: Mapping[str, Description]
    digests: Mapping[str, str] = field(default_factory=dict)
    plain: frozenset[str] = frozenset()
    scenes: Mapping[str, Scene] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, JsonValue] | None = None
    offered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
        stages: Stages in order, without those that have errors.
        types: `$owner.port` -> the type of the value.
        errors: Errors that prevent a run.
        warnings: Possible mistakes that do not prevent a run.
    """

    stages: tuple[BoundStage, ...]
    types: Mapping[str, ValueType]
    errors: tuple[BadField, ...]
    warnings: tuple[BadField, ...]

    def require(self, name: str) -> None:
        """Do nothing if there are no errors.

        Raises:
            InvalidPipeline: there are errors; it lists all of them.
        """
        if self.errors:
            raise InvalidPipeline.of(f"pipeline {name!r}", self.errors)


def check(pipeline: Pipeline, facts: KnownFacts) -> Checked:
    """Check every stage, binding, literal, output and pin of a pipeline; errors are returned."""
    pipeline = completed(pipeline, facts.descriptions, given=_given(facts))
    spread = spread_pipeline(
        pipeline, facts.descriptions, counts_of({**facts.scenes, **facts.unreadable})
    )
    errors = [*_faults_of_inputs(pipeline, facts), *_order_faults(spread.pipeline), *spread.faults]
    pipeline, grids = spread.pipeline, input_grids(spread, facts.descriptions)
    types = _input_types(pipeline, facts, grids)
    warnings: list[BadField] = []
    stages: list[BoundStage] = []
    failed: set[str] = set()
    for index, stage in enumerate(pipeline.stages):
        where = f"/stages/{index}"
        description = facts.descriptions.get(stage.process)
        if description is None:
            errors.append(_unknown_process(stage.process, facts, f"{where}/process"))
            failed.add(stage.id)
            continue
        # A reference to a failed or later stage is reported once, there or by `_order_faults`.
        untyped = failed | {later.id for later in pipeline.stages[index:]}
        warnings += _version_warnings(stage.process, description, f"{where}/process")
        own = spread.descriptions.get(stage.id, description)
        place = grids.place(f"${stage.id}.image") if own.is_warp else None
        bound = bind_stage(stage, own, types, where=where, failed=untyped, place=place)
        stage_errors = [*bound.errors, *_empty_outputs(bound.stage, facts, types, where)]
        stage_errors += _plain_faults(bound.stage, where) if stage.process in facts.plain else ()
        errors += stage_errors
        warnings += bound.warnings
        types.update({bound.stage.reference(port): t for port, t in bound.stage.makes.items()})
        if not stage_errors:
            stages.append(bound.stage)
    warnings += scene_warnings(stages, facts.scenes)
    errors += _output_faults(pipeline, types, failed)
    warnings += _lost_facts(pipeline, types)
    return Checked(tuple(stages), types, tuple(_unique(errors)), tuple(_unique(warnings)))


def _version_warnings(process: str, description: Description, where: str) -> Iterator[BadField]:
    if description.version == _NO_VERSION:
        detail = f"{process} has no version, which names it in catalogs and results: "
        yield BadField(where, detail + '@process(version="1.0.0")')


def _faults_of_inputs(pipeline: Pipeline, facts: KnownFacts) -> Iterator[BadField]:
    yield from _id_faults(pipeline)
    yield from _pin_faults(pipeline, facts)
    yield from _untyped_faults(pipeline, facts)
    yield from _parameter_faults(pipeline, facts)


def _input_types(pipeline: Pipeline, facts: KnownFacts, grids: Grids) -> dict[str, ValueType]:
    types: dict[str, ValueType] = {}
    fed = fed_ports(pipeline, facts.descriptions)
    for name, kind in pipeline.inputs.items():
        reference = str(Reference(owner="inputs", port=name))
        if kind == "image":
            scene = facts.scenes.get(name)
            grid, scale = grids.place(reference)
            types[reference] = (
                scene_type(name, scene, scale=scale, grid=grid)
                if scene
                else RasterType(scale=scale, grid=grid)
            )
        else:
            inherited = fed[name][0].port.schema if kind == "inherit" and fed[name] else {}
            types[reference] = JsonType(type_schema(kind) or inherited)
    return types


def _untyped_faults(pipeline: Pipeline, facts: KnownFacts) -> Iterator[BadField]:
    # A port of a process without a description is not known: that is an error of its own.
    if {stage.process for stage in pipeline.stages} <= facts.descriptions.keys():
        fed = fed_ports(pipeline, facts.descriptions)
        for name in (n for n, kind in pipeline.inputs.items() if kind == "inherit" and not fed[n]):
            detail = "feeds no port that it could inherit its type from: declare it, or bind it"
            yield BadField(json_pointer("inputs", name), detail)


def _given(facts: KnownFacts) -> set[str] | None:
    """Return the names of the inputs that have a value; None if they are not known yet."""
    if facts.parameters is None:
        return None
    return {*facts.parameters, *map(list_of, facts.scenes), *map(list_of, facts.unreadable)}


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
    """Yield an error per reference to a stage that is not earlier: a cycle, or the wrong order."""
    # Reversed, so that of two stages with one id the first counts.
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
                    where, f"{reference} is an output of a later stage; move it before {stage.id!r}"
                )


def _path(start: str, goal: str, needs: Mapping[str, set[str]]) -> list[str]:
    """Return a path from a stage to one that it needs, also indirectly; empty if there is none."""
    paths, seen = [[start]], {start}
    while paths:
        path = paths.pop()
        if path[-1] == goal:
            return path
        for owner in sorted(needs.get(path[-1], set()) - seen):
            seen.add(owner)
            paths.append([*path, owner])
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
            yield BadField(
                json_pointer("pins", process), f"process {process!r} is not part of a stage"
            )
        live = facts.digests.get(process)
        if live is not None and live != pinned:
            yield BadField(
                json_pointer("pins", process),
                f"the digest of the service's description is now {live}: check the change with "
                "`pesto describe`, then pin the new digest",
                pinned,
            )


def _parameter_faults(pipeline: Pipeline, facts: KnownFacts) -> Iterator[BadField]:
    for name, reason in facts.unreadable.items():
        detail = f"{reason}; correct -i {list_of(name)}=…"
        yield BadField(json_pointer("inputs", *name.split(".")), detail)
    given = _given(facts)
    if facts.parameters is not None and given is not None:
        yield from input_faults(pipeline, facts.descriptions, facts.parameters, given=given)


def _unknown_process(name: str, facts: KnownFacts, where: str) -> BadField:
    known = {*facts.descriptions, *facts.offered}
    close = get_close_matches(name, known, n=1)
    hint = (
        f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"
    )
    way_out = f"name one: -s {name}=TARGET_OR_URL, --services, or the pipeline's services"
    return BadField(where, f"no service runs {name!r} ({hint}); {way_out}", name)


def _empty_outputs(
    stage: BoundStage, facts: KnownFacts, types: Mapping[str, ValueType], where: str
) -> Iterator[BadField]:
    """Yield the errors of outputs that have no pixel over a scene of this size."""
    for port, made in stage.makes.items():
        scene = facts.scenes.get(made.scene) if isinstance(made, RasterType) else None
        if scene is None or not isinstance(made, RasterType):
            continue
        own = types[f"$inputs.{made.scene}"]
        if not isinstance(own, RasterType) or own.grid != made.grid:
            continue
        scale = made.scale / own.scale
        width, height = scaled_size((scene.width, scene.height), scale)
        if not width or not height:
            yield BadField(
                f"{where}/process",
                f"output {port!r} would have {width} x {height} pixels: at its scale of "
                f"{scale.to_json()}, {scene.href} of {scene.width} x {scene.height} pixels is "
                "too small; bind a larger scene",
                stage.description.name,
            )


def _plain_faults(stage: BoundStage, where: str) -> Iterator[BadField]:
    """Yield the errors of outputs that PESTO 1.7.2 cannot return.

    It returns images of up to three bands as PNG, which has only uint8 and uint16.
    """
    for port, output in stage.makes.items():
        if not isinstance(output, RasterType) or not output.dtype:
            continue
        few = output.bands is not None and len(output.bands) <= 3
        if few and not set(output.dtype) <= {"uint8", "uint16"}:
            yield BadField(
                f"{where}/process",
                f"output {port!r} is {' or '.join(output.dtype)} with "
                f"{len(output.bands or ())} bands; this service's images are "
                "uint8 or uint16, or have more than 3 bands",
                shortened(stage.description.name),
            )


def _output_faults(
    pipeline: Pipeline, types: Mapping[str, ValueType], failed: set[str]
) -> Iterator[BadField]:
    for name, value in pipeline.outputs.items():
        where = f"/outputs/{name}"
        reference = _reference(value)
        if reference is None or reference.is_input:
            yield BadField(where, "an output must be $STAGE.OUTPUT", shortened(value))
        elif str(reference) not in types and reference.owner not in failed:
            yield BadField(where, unknown_reference(reference, types), value)
        else:
            yield from _product_faults(types.get(str(reference)), reference, where)
        if name in OWN_FILES:
            detail = f"{name!r} is the name of a file that a run writes itself; choose another"
            yield BadField(where, detail)


def _product_faults(
    value: ValueType | None, reference: Reference, where: str
) -> Iterator[BadField]:
    if isinstance(value, JsonType) and value.per_tile:
        yield BadField(where, f"{reference} {PER_TILE}", str(reference))
    elif isinstance(value, RasterType) and len(value.dtype) > 1:
        detail = f"{reference} may be {' or '.join(value.dtype)}; a product has one dtype"
        yield BadField(where, detail)


def _lost_facts(pipeline: Pipeline, types: Mapping[str, ValueType]) -> Iterator[BadField]:
    """Yield a warning for each output that does not have facts of its scene, nor declares them."""
    for name, value in pipeline.outputs.items():
        made = types.get(str(value))
        if isinstance(made, RasterType) and made.lost:
            ways = [way for way, facts in _DECLARED_BY.items() if made.lost & facts]
            yield BadField(
                json_pointer("outputs", name),
                f"{value} does not keep {', '.join(sorted(made.lost))} of $inputs.{made.scene}, "
                f"because its bands or dtype differ: declare {' and '.join(ways)} at its port",
            )


def _unique(faults: Iterable[BadField]) -> Iterator[BadField]:
    return iter(dict.fromkeys(faults))
