"""Find errors in the pipeline of a `pesto_plan`, and in references of later tasks to its stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_conductor.expressions import expressions
from pesto_runtime.contract import Pipeline, parse_binding
from pesto_runtime.errors import BadField, InvalidPipeline, json_pointer
from pesto_runtime.pipeline import KnownFacts, check, input_defaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

    from pydantic import JsonValue

    from pesto_conductor.scopes import TaskPosition
    from pesto_runtime.contract import Description, Reference

    Describe = Callable[[Pipeline], Mapping[str, Description]]
    Faults = Iterator[tuple[str, BadField]]


def pipeline_faults(
    position: TaskPosition, plans: MutableMapping[str, Pipeline], describe: Describe
) -> Faults:
    """Yield the faults of the pipeline of a `pesto_plan`; add it to `plans` by task reference."""
    inputs, where = position.inputs, f"{position.pointer}/inputParameters/pipeline"
    document = inputs.get("pipeline")
    if position.task.get("name") != "pesto_plan" or not isinstance(document, dict):
        return
    if any(expressions(document)):  # Conductor writes values into it
        return
    try:
        pipeline = Pipeline.parse(_unescaped(document))
    except InvalidPipeline as error:
        for each in error.fields or (BadField("", error.detail),):
            yield "pipeline", BadField(where + each.pointer, each.detail)
        return
    plans[str(position.task.get("taskReferenceName"))] = pipeline
    descriptions = describe(pipeline)
    if descriptions:
        for each in check(pipeline, KnownFacts(descriptions)).errors:
            yield "pipeline", BadField(where + each.pointer, each.detail)
    else:
        yield from _reference_faults(pipeline, where)
    given = inputs.get("inputs")
    if isinstance(given, dict):
        yield from _given_faults(pipeline, given, descriptions, position)


def plan_reference_faults(
    position: TaskPosition, plans: Mapping[str, Pipeline], describe: Describe
) -> Faults:
    """Yield the fault of a raster, vector or stage that the pipeline of its plan does not have."""
    inputs = position.inputs
    owners = [each.owner for each in expressions(inputs.get("plan"))]
    pipeline = plans.get(owners[0]) if owners else None
    if pipeline is None:
        return
    stages = [stage.id for stage in pipeline.stages]
    where = f"{position.pointer}/inputParameters"
    for name in ("raster", "vector"):
        if isinstance(text := inputs.get(name), str) and "${" not in text:
            detail = _reference_fault(_parsed(text), pipeline, describe(pipeline))
            if detail:
                yield "pipeline", BadField(f"{where}/{name}", f"{text}: {detail}")
    if isinstance(stage := inputs.get("stage"), str) and "${" not in stage and stage not in stages:
        detail = f"the pipeline has no stage {stage!r}; there are: {', '.join(stages)}"
        yield "pipeline", BadField(f"{where}/stage", detail)


def _reference_faults(pipeline: Pipeline, where: str) -> Faults:
    """Yield the faults of references that are wrong whatever the processes are."""
    for index, stage in enumerate(pipeline.stages):
        for port, value in stage.inputs.items():
            detail = _reference_fault(parse_binding(value), pipeline, {})
            if detail:
                place = where + json_pointer("stages", index, "inputs", port)
                yield "pipeline", BadField(place, f"{value}: {detail}")
    for name, value in pipeline.outputs.items():
        if detail := _reference_fault(parse_binding(value), pipeline, {}):
            place = where + json_pointer("outputs", name)
            yield "pipeline", BadField(place, f"{value}: {detail}")


def _given_faults(
    pipeline: Pipeline,
    given: Mapping[str, JsonValue],
    descriptions: Mapping[str, Description],
    position: TaskPosition,
) -> Faults:
    defaults = input_defaults(pipeline, descriptions) if descriptions else {}
    where = f"{position.pointer}/inputParameters/inputs"
    for name, kind in pipeline.inputs.items():
        # Without descriptions, the default of a value is not known; images have none.
        if (
            name not in given
            and name not in defaults
            and (descriptions or kind in ("image", "images"))
        ):
            yield "pipeline", BadField(where, f"the pipeline requires {name}")


def _reference_fault(
    reference: Reference | None, pipeline: Pipeline, descriptions: Mapping[str, Description]
) -> str | None:
    if reference is None:
        return None
    if reference.is_input:
        known = ", ".join(pipeline.inputs) or "none"
        is_known = reference.port in pipeline.inputs
        return None if is_known else f"the pipeline has no such input; there are: {known}"
    stages = {stage.id: stage.process for stage in pipeline.stages}
    if reference.owner not in stages:
        return f"the pipeline has no such stage; there are: {', '.join(stages)}"
    description = descriptions.get(stages[reference.owner])
    ports = [port.name for port in description.outputs] if description else []
    if description and reference.port not in ports:
        return f"the stage has no such output; there are: {', '.join(ports)}"
    return None


def _parsed(text: str) -> Reference | None:
    try:
        return parse_binding(text)
    except InvalidPipeline:
        return None


def _unescaped(value: JsonValue) -> JsonValue:
    """Return a pipeline as Conductor gives it to the task: `$${` is a literal `${`."""
    if isinstance(value, str):
        return value.replace("$${", "${")
    if isinstance(value, list):
        return [_unescaped(each) for each in value]
    if isinstance(value, dict):
        return {key: _unescaped(each) for key, each in value.items()}
    return value
