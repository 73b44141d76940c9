"""What a worker does for a task of each type: the verbs of the runtime, bound to their payloads.

Every one blocks, is idempotent, and is called in a thread.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from pesto_conductor import payloads
from pesto_conductor.taskdefs import PREFIX, task_definition
from pesto_runtime.contract.raster import ClosedValue
from pesto_runtime.errors import BadField, ContractBroken, InvalidInput, NotFound, json_pointer
from pesto_runtime.hrefs import file_href, looks_like_href, path_of
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_conductor.taskdefs import TaskDefinition
    from pesto_runtime.contract import ChunkResult
    from pesto_runtime.run.records import TileObserver


TASK_COST_S = 0.015
"""What a task costs beside its work: 256 of them took 2.6 to 3.6 s."""


@dataclass(frozen=True)
class TaskContext:
    """What a verb knows of its task beside its input.

    Attributes:
        server: URL of the Conductor.
        workflow: Id of the workflow that the task belongs to.
        watch: Who looks on.
        say: Writes a line to the task's log.
    """

    server: str
    workflow: str
    watch: TileObserver
    say: Callable[[str], None]


Verb: TypeAlias = "Callable[[ClosedValue, TaskContext], ClosedValue]"


def discover(asked: payloads.DiscoverInput, _errand: TaskContext) -> payloads.DiscoverOutput:
    """Ask services what they are, and save their descriptions where a catalog is named."""
    from pesto_runtime.run.services import discover as save
    from pesto_runtime.run.services import find

    found = {url: find((url,)) for url in asked.urls}
    if asked.catalog is not None:
        save(asked.urls, _path(asked.catalog))
    return payloads.DiscoverOutput(
        services={each.said.name: url for url, each in found.items()},
        digests={each.said.name: each.said.digest for each in found.values()},
    )


def plan(asked: payloads.PlanInput, errand: TaskContext) -> payloads.PlanOutput:
    """Check a pipeline against its inputs, cut it up, and put the plan into the run store."""
    from pesto_runtime.contract import Pipeline
    from pesto_runtime.run.context import begin_run, forget_run
    from pesto_runtime.run.local import sizing_of
    from pesto_runtime.run.planning import count_tiles, plan, read_inputs
    from pesto_runtime.run.services import resolve_services
    from pesto_runtime.run.workspace import run_store

    _require_values(asked.inputs)
    started = datetime.now(UTC)
    pipeline, base = Pipeline.parse(asked.pipeline), Path(asked.base or ".").resolve()
    services = resolve_services(pipeline, base=base, chosen=asked.model_dump()["services"])
    sizing = sizing_of(
        workers=asked.workers or os.cpu_count() or 1,
        tile=asked.tile,
        max_tasks=asked.max_tasks or 64,
    )
    made = plan(
        pipeline,
        services,
        read_inputs(pipeline, _texts(asked.inputs)),
        store=run_store(_path(asked.folder), asked.store),
        sizing=replace(sizing, task_cost_s=TASK_COST_S),
    )
    for warning in made.plan.warnings:
        errand.say(warning)
    if asked.fresh:
        forget_run(made.plan)
    href = begin_run(made.plan)
    return payloads.PlanOutput(
        plan=href,
        run=made.plan.run,
        started=started.isoformat(),
        tiles=sum(count_tiles(phase) for phase in made.plan.phases),
        chunks=[_chunks(href, number, asked) for number in range(len(made.plan.phases))],
    )


def _require_values(inputs: Mapping[str, JsonValue]) -> None:
    """Refuse inputs that Conductor made null: an expression led nowhere, or nobody gave it one.

    Raises:
        InvalidInput: naming each.
    """
    faults = [
        BadField(json_pointer("inputs", name), f"input {name!r} is missing (null)")
        for name, value in inputs.items()
        if value is None
    ]
    if faults:
        raise InvalidInput.of("input of pesto_plan", faults)


def process(asked: payloads.ChunkInput, errand: TaskContext) -> ChunkResult:
    """Run the tiles of a chunk."""
    from pesto_runtime.contract import Chunk
    from pesto_runtime.run.chunk import process, tiles_at_once
    from pesto_runtime.run.context import load_context

    context = load_context(asked.plan)
    chunk = Chunk(plan=asked.plan, phase=asked.phase, start=asked.start, stop=asked.stop)
    return process(
        chunk,
        watch=errand.watch,
        threads=asked.concurrency or tiles_at_once(context, asked.phase),
        holes=asked.holes or "fail",
    )


def close(asked: payloads.CloseInput, _errand: TaskContext) -> payloads.CloseOutput:
    """Make what a phase owes once its chunks are done."""
    from pesto_runtime.run.closing import close_phase

    return payloads.CloseOutput(unmade=list(close_phase(asked.plan, asked.phase)))


def mosaic(asked: payloads.MosaicInput, _errand: TaskContext) -> payloads.MosaicOutput:
    """Write a raster to a file."""
    from pesto_runtime.run.closing import mosaic as write

    path = _path(asked.path)
    made = write(asked.plan, asked.raster, path)
    return payloads.MosaicOutput(
        href=file_href(path), sha256=made.product.sha256, holes=len(made.holes)
    )


def merge(asked: payloads.MergeInput, _errand: TaskContext) -> payloads.MergeOutput:
    """Write a vector to a file."""
    from pesto_runtime.run.closing import merge as write

    path = _path(asked.path)
    made = write(asked.plan, asked.vector, path)
    return payloads.MergeOutput(
        href=file_href(path), sha256=made.sha256, features=made.features, holes=len(made.holes)
    )


def reduce(asked: payloads.ReduceInput, _errand: TaskContext) -> payloads.ReduceOutput:
    """Fold the partials of a stage."""
    from pesto_runtime.run.closing import reduce as fold

    return payloads.ReduceOutput(made=fold(asked.plan, asked.stage))


def call(asked: payloads.CallInput, _errand: TaskContext) -> payloads.CallOutput:
    """Call one process once."""
    from pesto_runtime.run.single_call import call_once

    keep = {name: _path(path) for name, path in (asked.keep or {}).items()}
    outputs = call_once(asked.service, _texts(asked.values), keep=keep, stays_open=True)
    return payloads.CallOutput(outputs=outputs)


def publish(asked: payloads.PublishInput, errand: TaskContext) -> payloads.PublishOutput:
    """End a run: its outputs and its report where they were asked for."""
    from pesto_runtime.engines import SilentListener
    from pesto_runtime.run.publishing import RunRecord
    from pesto_runtime.run.workspace import publish_run

    folder = _path(asked.folder)
    started = datetime.fromisoformat(asked.started) if asked.started else datetime.now(UTC)
    record = RunRecord(engine={"name": "conductor", "run": errand.workflow}, started=started)
    result = publish_run(
        asked.plan, folder, record, watcher=SilentListener(),
        as_cog=asked.as_cog or False, keep=asked.keep or False,
    )  # fmt: skip
    return payloads.PublishOutput.model_validate(
        {
            "status": result["status"],
            "result": file_href(folder / "result.json"),
            "outputs": _told(result["outputs"], folder),
            "tiles": result["tiles"],
        }
    )


def cleanup(asked: payloads.CleanupInput, errand: TaskContext) -> payloads.CleanupOutput:
    """Forget a failed run where that was asked for; Conductor itself cancels what still ran."""
    from pesto_runtime.run.context import forget_run, load_context

    href = asked.plan or _plan_of(errand.server, asked.workflow)
    if not asked.forget:
        errand.say(f"kept for `retry`: {href or 'nothing was planned'}")
        return payloads.CleanupOutput(forgotten=False)
    if href is not None:
        try:
            forget_run(load_context(href).plan)
        except NotFound:
            errand.say(f"{href} is gone already")
    return payloads.CleanupOutput(forgotten=True)


def serve(
    asked: payloads.ServiceChunkInput | payloads.CallInput, errand: TaskContext
) -> ChunkResult | payloads.CallOutput:
    """What a task in the queue of one service asks for: a chunk, or a call."""
    return call(asked, errand) if isinstance(asked, payloads.CallInput) else process(asked, errand)


def _chunks(href: str, phase: int, asked: payloads.PlanInput) -> list[payloads.ChunkInput]:
    from pesto_runtime.run.context import chunks_of

    return [
        payloads.ChunkInput(
            **each.model_dump(), holes=asked.holes or "fail", concurrency=asked.concurrency
        )
        for each in chunks_of(href, phase)
    ]


def _plan_of(server: str, workflow: str) -> str | None:
    """The plan of a workflow, which its first task answered; None where it never did."""
    from pesto_conductor.client import Conductor

    with Conductor(server) as conductor:
        tasks = conductor.workflow(workflow).get("tasks")
    for task in tasks if isinstance(tasks, list) else []:
        output = task.get("outputData") if isinstance(task, dict) else None
        if isinstance(output, dict) and isinstance(output.get("plan"), str):
            return str(output["plan"])
    return None


def _texts(values: Mapping[str, JsonValue]) -> dict[str, str]:
    """Values as a command line has them: strings as they are, all else as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }


def _told(outputs: JsonValue, folder: Path) -> dict[str, JsonValue]:
    """Output -> href of its file, or its bare value."""
    told: dict[str, JsonValue] = {}
    for name, output in outputs.items() if isinstance(outputs, dict) else ():
        if isinstance(output, dict):
            is_value = "value" in output
            told[name] = output["value"] if is_value else file_href(folder / str(output["path"]))
    return told


def _path(text: str) -> Path:
    return path_of(text) if looks_like_href(text) else Path(text)


T = TypeVar("T", bound=ClosedValue)
_HEAVY = (
    "jsonschema.validators",
    "pesto_runtime.client.client",
    "pesto_runtime.run.local",
    "pesto_runtime.run.workspace",
)
_loading = Lock()


@dataclass(frozen=True)
class TaskBinding:
    """A task type and what serves it.

    Attributes:
        definition: With the schemas.
        verb: Serves it; blocks.
        models: What an input may be read as; the first that has all that the model requires.
    """

    definition: TaskDefinition
    verb: Verb
    models: tuple[type[ClosedValue], ...]

    def run(self, given: Mapping[str, JsonValue], errand: TaskContext) -> dict[str, JsonValue]:
        """Serve one task.

        Raises:
            InvalidInput: its input does not fit the schema; with every wrong field.
            ContractBroken: what the verb made does not.
            PestoError: what the verb raises.
        """
        _load_once()
        document = _plain(given)
        faults = list(schema_faults(self.definition.input_schema, document))
        if faults:
            raise InvalidInput.of(f"input of {self.definition.name}", faults)
        made = self.verb(self._read(document), errand)
        output: dict[str, JsonValue] = made.model_dump(mode="json", exclude_none=True)
        faults = list(schema_faults(self.definition.output_schema, output))
        if faults:
            raise ContractBroken.of(f"output of {self.definition.name}", faults)
        return output

    def _read(self, document: dict[str, JsonValue]) -> ClosedValue:
        fitting = (
            model
            for model in self.models
            if all(
                name in document
                for name, field in model.model_fields.items()
                if field.is_required()
            )
        )
        return next(fitting).model_validate(document)


def binding_of(task_type: str) -> TaskBinding:
    """What serves a task type.

    Raises:
        InvalidInput: nothing of ours does.
    """
    if not task_type.startswith(PREFIX):
        raise InvalidInput(f"{task_type!r} is no task type of ours: they begin with {PREFIX!r}")
    return _BINDINGS.get(task_type) or _service(task_type)


def _load_once() -> None:
    """Import what verbs import as they go: many threads that begin at once see half a module."""
    with _loading:
        for name in _HEAVY:
            import_module(name)


def _plain(given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """An input without what Conductor adds to it: `__index` of a fan-out, nulls of no value."""
    return {
        name: value
        for name, value in given.items()
        if value is not None and not name.startswith("_")
    }


def _bound(name: str, verb: Callable[[T, TaskContext], ClosedValue], model: type[T]) -> TaskBinding:
    return TaskBinding(task_definition(PREFIX + name), cast("Verb", verb), (model,))


def _service(task_type: str) -> TaskBinding:
    models = (payloads.ServiceChunkInput, payloads.CallInput)
    return TaskBinding(task_definition(task_type), cast("Verb", serve), models)


_BINDINGS = {
    each.definition.name: each
    for each in (
        _bound("discover", discover, payloads.DiscoverInput),
        _bound("plan", plan, payloads.PlanInput),
        _bound("process", process, payloads.ChunkInput),
        _bound("close", close, payloads.CloseInput),
        _bound("mosaic", mosaic, payloads.MosaicInput),
        _bound("merge", merge, payloads.MergeInput),
        _bound("reduce", reduce, payloads.ReduceInput),
        _bound("call", call, payloads.CallInput),
        _bound("publish", publish, payloads.PublishInput),
        _bound("cleanup", cleanup, payloads.CleanupInput),
    )
}
