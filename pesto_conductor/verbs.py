"""Bind each task type to an activity of the runtime, with the models of its input and output.

Every activity blocks, is idempotent, and runs in a thread of a worker. This file does not talk to
Conductor: `worker_loop.py` takes tasks and reports their results, `binding.py` validates them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from pesto_conductor import campaign_verbs, payloads
from pesto_conductor.binding import TaskBinding, TaskContext, Verb, engine_of
from pesto_conductor.planning import LOCK_WAIT_S, accept, note_versions, prepare
from pesto_conductor.taskdefs import PREFIX, task_definition
from pesto_runtime.contract.base import ClosedValue
from pesto_runtime.errors import InvalidInput, NotFound
from pesto_runtime.places import href_of, output_place, place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import JsonValue

    from pesto_runtime.contract import ChunkResult
    from pesto_runtime.places import AnyPath

T = TypeVar("T", bound=ClosedValue)


def binding_of(task_type: str) -> TaskBinding:
    """Return the activity of a task type; an unknown `pesto_…` type is that of a service.

    Raises:
        InvalidInput: the type does not begin with `pesto_`.
    """
    if not task_type.startswith(PREFIX):
        raise InvalidInput(
            f"{task_type!r} is not a task type of this project: these begin with {PREFIX!r}"
        )
    if task_type in _BINDINGS:
        return _BINDINGS[task_type]
    models = (payloads.ServiceChunkInput, payloads.CallInput)
    return TaskBinding(task_definition(task_type), cast("Verb", serve), models)


def discover(request: payloads.DiscoverInput, _task: TaskContext) -> payloads.DiscoverOutput:
    """Request the descriptions of services, and save them if a catalog is given."""
    from pesto_runtime.run.services import discover as save
    from pesto_runtime.run.services import find

    found = {url: find((url,)) for url in request.urls}
    if request.catalog is not None:
        save(request.urls, _folder(request.catalog))
    return payloads.DiscoverOutput(
        services={each.said.name: url for url, each in found.items()},
        digests={each.said.name: each.said.digest for each in found.values()},
    )


def plan(request: payloads.PlanInput, task: TaskContext) -> payloads.PlanOutput:
    """Check a pipeline against its inputs, divide it into chunks, and store the plan.

    Raises:
        InvalidPipeline: the pipeline, or its inputs, do not check; with every error.
        FolderInUse: another run owns the folder, or has finished in it.
        PestoError: a scene or a service cannot be read.
    """
    from pesto_runtime.run.context import begin_run, forget_run
    from pesto_runtime.run.ownership import claim
    from pesto_runtime.run.pipeline_inputs import read_inputs
    from pesto_runtime.run.planning import count_tiles, plan
    from pesto_runtime.run.result import member_of
    from pesto_runtime.run.workspace import locked_workspace, run_store

    started, folder = datetime.now(UTC), output_place(request.folder)
    pipeline, services, sizing = prepare(request)
    planned = plan(
        pipeline,
        services,
        read_inputs(pipeline, services, request.inputs),
        store=run_store(folder, request.store),
        sizing=sizing,
        folder=folder,
        patience_s=60.0 if request.patience is None else request.patience,
        report=request.report or "links",
        compress=request.compress or "deflate",
        cache=request.cache,
    )
    for warning in (*accept(request, task)(planned.plan), *planned.plan.warnings):
        task.log(warning)
    with locked_workspace(folder, run=planned.plan.run, patience_s=LOCK_WAIT_S):
        joins = claim(
            folder,
            planned.plan,
            member=member_of(task.engine),
            take_over=request.take_over or False,
            replace=request.replace or False,
        )
        if request.fresh:
            forget_run(planned.plan)
        href = begin_run(planned.plan, joins=joins)
    return payloads.PlanOutput(
        plan=href,
        run=planned.plan.run,
        started=started.isoformat(),
        tiles=sum(count_tiles(phase) for phase in planned.plan.phases),
        chunks=[_chunks(href, number, request) for number in range(len(planned.plan.phases))],
    )


def process(request: payloads.ChunkInput, task: TaskContext) -> ChunkResult:
    """Run the tiles of a chunk.

    Raises:
        TilesFailed: a tile failed, and holes are not permitted.
        Interrupted: the observer stopped the chunk; complete blocks are stored.
    """
    from pesto_runtime.contract import Chunk
    from pesto_runtime.run.chunk import process, tiles_at_once
    from pesto_runtime.run.context import load_context

    context = load_context(request.plan)
    chunk = Chunk(plan=request.plan, phase=request.phase, start=request.start, stop=request.stop)
    note_versions(context.plan, task)
    return process(
        chunk,
        watch=task.observer,
        threads=request.concurrency or tiles_at_once(context, request.phase),
        holes=request.holes or "fail",
    )


def close(request: payloads.CloseInput, _task: TaskContext) -> payloads.CloseOutput:
    """Finish a phase: mosaic its rasters, merge its vectors, fold its reduces."""
    from pesto_runtime.run.closing import close_phase

    return payloads.CloseOutput(unmade=list(close_phase(request.plan, request.phase)))


def mosaic(request: payloads.MosaicInput, _task: TaskContext) -> payloads.MosaicOutput:
    """Write a raster to a file."""
    from pesto_runtime.run.closing import mosaic as write

    path = output_place(request.path)
    written = write(request.plan, request.raster, path)
    return payloads.MosaicOutput(
        href=href_of(path), sha256=written.product.sha256, holes=len(written.holes)
    )


def merge(request: payloads.MergeInput, _task: TaskContext) -> payloads.MergeOutput:
    """Write a vector to a file."""
    from pesto_runtime.run.closing import merge as write

    path = output_place(request.path)
    written = write(request.plan, request.vector, path)
    return payloads.MergeOutput(
        href=href_of(path), sha256=written.sha256, features=written.features,
        holes=len(written.holes),
    )  # fmt: skip


def reduce(request: payloads.ReduceInput, _task: TaskContext) -> payloads.ReduceOutput:
    """Fold the partials of a stage."""
    from pesto_runtime.run.closing import reduce as fold

    return payloads.ReduceOutput(made=fold(request.plan, request.stage))


def call(request: payloads.CallInput, _task: TaskContext) -> payloads.CallOutput:
    """Call one process once."""
    from pesto_runtime.run.single_call import call_once

    files = {name: output_place(path) for name, path in (request.keep or {}).items()}
    outputs = call_once(request.service, request.values, keep=files, stays_open=True)
    return payloads.CallOutput(outputs=outputs)


def publish(request: payloads.PublishInput, task: TaskContext) -> payloads.PublishOutput:
    """End a run: write its outputs and its report into the output folder."""
    from pesto_runtime.contract import ProductForm
    from pesto_runtime.run.publishing import publish_run
    from pesto_runtime.run.result import RunRecord

    folder = output_place(request.folder)
    started = datetime.fromisoformat(request.started) if request.started else datetime.now(UTC)
    record = RunRecord(engine=task.engine, started=started)
    form = ProductForm.of(as_cog=bool(request.as_cog), overviews=bool(request.overviews))
    result = publish_run(request.plan, folder, record, form=form, keep=bool(request.keep))
    return payloads.PublishOutput.model_validate(
        {
            "status": result["status"],
            "result": href_of(folder / "result.json"),
            "outputs": _values_or_hrefs(result["outputs"], folder),
            "tiles": result["tiles"],
        }
    )


def cleanup(request: payloads.CleanupInput, task: TaskContext) -> payloads.CleanupOutput:
    """Delete what a failed run has stored, if requested; Conductor itself cancels open tasks."""
    from pesto_runtime.run.context import forget_run, load_context
    from pesto_runtime.run.ownership import release
    from pesto_runtime.run.result import member_of

    href = request.plan or _plan_of(task.server, request.workflow)
    if not request.forget:
        task.log(f"stored for `retry`: {href or 'nothing, the workflow failed before its plan'}")
        return payloads.CleanupOutput(forgotten=False)
    if href is not None:
        try:
            plan = load_context(href).plan
            member = member_of(engine_of(request.workflow))
            if not plan.folder or release(place_of(plan.folder), plan.run, member=member):
                forget_run(plan)
        except NotFound:
            task.log(f"{href} does not exist any more")
    return payloads.CleanupOutput(forgotten=True)


def serve(
    request: payloads.ServiceChunkInput | payloads.CallInput, task: TaskContext
) -> ChunkResult | payloads.CallOutput:
    """Run a task from the queue of one service: a chunk, or a call."""
    return (
        call(request, task) if isinstance(request, payloads.CallInput) else process(request, task)
    )


def _bound(name: str, verb: Callable[[T, TaskContext], ClosedValue], model: type[T]) -> TaskBinding:
    return TaskBinding(task_definition(PREFIX + name), cast("Verb", verb), (model,))


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
        _bound("plan_scenes", campaign_verbs.plan, payloads.PlanScenesInput),
        _bound("process_scenes", campaign_verbs.process, payloads.ScenesTaskInput),
        _bound("close_scenes", campaign_verbs.close, payloads.CloseScenesInput),
        _bound("publish_scenes", campaign_verbs.publish, payloads.PublishScenesInput),
    )
}


def _chunks(href: str, phase: int, request: payloads.PlanInput) -> list[payloads.ChunkInput]:
    from pesto_runtime.run.context import chunks_of

    return [
        payloads.ChunkInput(
            **each.model_dump(), holes=request.holes or "fail", concurrency=request.concurrency
        )
        for each in chunks_of(href, phase)
    ]


def _plan_of(server: str, workflow: str) -> str | None:
    """Return the plan of a workflow from the output of its plan task; None if it has none."""
    from pesto_conductor.client import Conductor
    from pesto_conductor.following import output_of, tasks_of

    with Conductor(server) as conductor:
        outputs = [output_of(task) for task in tasks_of(conductor.workflow(workflow))]
    return next((str(each["plan"]) for each in outputs if isinstance(each.get("plan"), str)), None)


def _folder(text: str) -> Path:
    place = place_of(text)
    if not isinstance(place, Path):
        raise InvalidInput(f"catalog {text}: a catalog is saved in a folder of this machine")
    return place


def _values_or_hrefs(outputs: JsonValue, folder: AnyPath) -> dict[str, JsonValue]:
    """Return output name -> its value, or the href of its file."""
    found: dict[str, JsonValue] = {}
    for name, output in outputs.items() if isinstance(outputs, dict) else ():
        if isinstance(output, dict):
            is_value = "value" in output
            found[name] = output["value"] if is_value else href_of(folder / str(output["path"]))
    return found
