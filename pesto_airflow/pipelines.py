"""Read pipelines while Airflow parses a DAG file, and read plans while its tasks run.

Parsing uses only the pipeline's file and saved descriptions: no service is contacted, and no
process is loaded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import BadField, InvalidInput, InvalidPipeline, shortened
from pesto_runtime.hrefs import image_reference
from pesto_runtime.places import output_place

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from airflow.sdk import Context
    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.pipeline import Sizing
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.planning import PhaseShape


TASK_COST_S = 0.3
"""Cost of a mapped task beside its work: 1.3 to 3.5 tasks per second were measured on two cores."""
MOST_BYTES = 4096
"""Of the JSON values that a task returns; Airflow stores them in its database."""
_CHUNKS_PER_WORKER = 4


@dataclass(frozen=True)
class KnownPipeline:
    """A pipeline without errors.

    Attributes:
        pipeline: The pipeline.
        phases: Its phases, in the order in which they run.
        descriptions: Process name -> its saved description.
    """

    pipeline: Pipeline
    phases: tuple[PhaseShape, ...]
    descriptions: Mapping[str, Description]


def know_pipeline(
    pipeline: str | Path | Mapping[str, JsonValue] | Pipeline,
    services: str | Path,
    base: str | Path | None = None,
    *,
    inputs: Mapping[str, JsonValue] | None = None,
    connected: Collection[str] | None = (),
) -> KnownPipeline:
    """Check a pipeline against a catalog; no service is contacted, no process is loaded.

    Args:
        pipeline: Its file, or its JSON.
        services: Folder of saved descriptions, one of each process.
        base: Folder to which the pipeline's own targets are relative.
        inputs: Input name -> value, or a template, which the plan task checks; None to check the
            pipeline alone.
        connected: Processes whose URL a connection has; None for all.

    Raises:
        InvalidInput: the catalog has no description of a process; with the command that saves it.
        InvalidPipeline: the pipeline or an input is wrong; with every error.
    """
    from pesto_runtime.pipeline import completed
    from pesto_runtime.run.planning import check_pipeline, shape
    from pesto_runtime.run.services import resolve_services

    model, folder = read_pipeline(pipeline, base)
    _require_descriptions(model, Path(services))
    later = [stage.process for stage in model.stages] if connected is None else connected
    found = resolve_services(model, base=folder, catalog=Path(services), ask=False, later=later)
    faults = [] if inputs is None else _input_faults(model, found.descriptions, inputs)
    if faults:
        errors = (*faults, *check_pipeline(model, found).errors)
        raise InvalidPipeline.of(f"pipeline {model.name!r}", errors)
    typed = completed(model, found.descriptions)
    return KnownPipeline(typed, shape(model, found), found.descriptions)


def _input_faults(
    pipeline: Pipeline, descriptions: Mapping[str, Description], values: Mapping[str, JsonValue]
) -> list[BadField]:
    """Return an error for each missing, unknown and wrong input; templated values are unknown."""
    from pesto_runtime.pipeline import completed, input_defaults, input_faults
    from pesto_runtime.run.pipeline_inputs import read_values

    pipeline = completed(pipeline, descriptions)
    given = {name: value for name, value in values.items() if value is not None}
    fixed = {name: value for name, value in given.items() if not _is_templated(value)}
    names = {*given, *input_defaults(pipeline, descriptions)}
    read = read_values(pipeline, descriptions, fixed)
    return [*input_faults(pipeline, descriptions, read, given=names)]


def _is_templated(value: JsonValue) -> bool:
    # As text, an XCom of another task is a template, too.
    return re.search(r"\{[{%#]", json.dumps(value, default=str)) is not None


def read_pipeline(
    pipeline: str | Path | Mapping[str, JsonValue] | Pipeline, base: str | Path | None = None
) -> tuple[Pipeline, Path]:
    """Read a pipeline's file or JSON; return it, and the folder to which targets are relative.

    Raises:
        InvalidInput: the file does not exist, or is not JSON.
        InvalidPipeline: it does not match the schema.
    """
    from pesto_runtime.run.planning import load_pipeline

    if isinstance(pipeline, (str, Path)):
        path = Path(pipeline)
        return load_pipeline(path), Path(base) if base else path.resolve().parent
    model = pipeline if isinstance(pipeline, Pipeline) else Pipeline.parse(pipeline)
    return model, Path(base) if base else Path.cwd()


def _require_descriptions(pipeline: Pipeline, folder: Path) -> None:
    from pesto_runtime.run.services import BUILT_IN

    # Airflow parses a DAG file again and again: without a saved description, every parse would
    # contact the service, or load the process.
    saved = {path.name.rpartition("@")[0] for path in folder.glob("*@*.json")}
    missing = sorted({stage.process for stage in pipeline.stages} - saved - BUILT_IN.keys())
    if missing:
        raise InvalidInput(
            f"{folder} has no description of {', '.join(missing)}: a DAG file contacts no service; "
            f"save them by `pesto discover URL… --save {folder}`"
        )


def map_task_id(stages: Sequence[str], reduces: Sequence[str]) -> str:
    """Return the id of a phase's mapped task, which has the names of its stages."""
    return "_".join(("map", *(stages or reduces)))


def closing_task_id(phase: PhaseShape) -> str:
    """Return the id of the task that closes a phase: what it does, and to which stages."""
    verb = "call" if not phase.fans_out else "reduce" if phase.reduces else "finish"
    return "_".join((verb, *(phase.reduces or phase.stages)))


def sizing_for_airflow(*, workers: int, tile: int | None, max_tasks: int) -> Sizing:
    """Return the sizes for mapped tasks, `workers` of which run at once on one machine.

    Short work becomes one task per worker, because a task is expensive on Airflow; engines with
    cheap tasks have four chunks per worker, which balance the load.
    """
    from pesto_runtime.run.local import sizing_of

    sizing = sizing_of(workers=workers, tile=tile, max_tasks=max_tasks)
    few = max(1, workers // _CHUNKS_PER_WORKER)
    memory = sizing.memory_bytes * few // workers
    return replace(sizing, workers=few, memory_bytes=memory, task_cost_s=TASK_COST_S)


def engine_of(context: Context) -> dict[str, JsonValue]:
    """Return name and ids of a DAG run, as `result.json` has them."""
    engine: dict[str, JsonValue] = {"name": "airflow"}
    run = context.get("dag_run")
    if run is not None:
        engine |= {"run": run.run_id, "dag": run.dag_id}
    return engine


def bundle_of(context: Context) -> Path | None:
    """Return the folder of the DAG bundle on this worker; None outside of a worker."""
    # A property of task instances on a worker, which their documented protocol does not have.
    bundle = getattr(context.get("ti"), "bundle_instance", None)
    return None if bundle is None else Path(bundle.path)


def next_chunks(plan: str, *, after: int) -> list[int]:
    """Return the chunk indices of the first phase after `after` that has chunks, or none.

    Args:
        plan: Href of the plan.
        after: Number of a phase; -1 for the start.

    Raises:
        NotFound: there is no such plan.
    """
    # Dynamic mapping expands only over return values, not over other XComs. So the task before a
    # fan-out returns the indices: 256 of them are 1.2 KB (docs/decisions/013).
    from pesto_runtime.run.context import chunks_of, load_context

    count = len(load_context(plan).plan.phases)
    found = (chunks_of(plan, number) for number in range(after + 1, count))
    return [chunk.start for chunk in next(filter(None, found), [])]


def name_of_chunk(plan: str, phase: int, index: int) -> str:
    """Return the label of a chunk in the grid: its window (col_off, row_off, width, height).

    Raises:
        NotFound: there is no such plan.
    """
    from pesto_runtime.run.context import load_context

    window = load_context(plan).plan.phases[phase].chunks[index]
    return f"{index}: col {window.col_off} row {window.row_off}, {window.width} x {window.height}"


def holes_of_chunk(plan: str, phase: int, index: int) -> list[str]:
    """Return the reason of each hole of a chunk.

    Raises:
        NotFound: there is no such plan, or the chunk has not run.
    """
    from pesto_runtime.contract import Hole
    from pesto_runtime.run.context import load_context, manifest_name

    context = load_context(plan)
    manifest = context.store.get_json(manifest_name(context, phase, index, index + 1))
    holes = manifest["holes"] if isinstance(manifest, dict) else []
    found = (Hole.model_validate(each) for each in (holes if isinstance(holes, list) else []))
    return [hole.reason for hole in found]


def stage_values(plan: str, stage: str) -> dict[str, JsonValue]:
    """Return the JSON outputs of a finished stage by name, without those beyond 4 KB in total.

    Raises:
        NotFound: the stage has not finished.
    """
    from pesto_runtime.contract import Reference
    from pesto_runtime.pipeline import JsonType
    from pesto_runtime.run.context import load_context

    context = load_context(plan)
    values: dict[str, JsonValue] = {}
    for port, kind in context.stages[stage].makes.items():
        if isinstance(kind, JsonType):
            value = context.value(Reference(owner=stage, port=port))
            if len(json.dumps({**values, port: value})) <= MOST_BYTES:
                values[port] = value
    return values


def require_absolute_folder(name: str, folder: str | Path) -> AnyPath:
    """Return an output folder: an absolute path, or the href of one, also in a bucket.

    Raises:
        InvalidInput: it is a relative path; with its name and the solution.
        StoreRefused: an href whose scheme cannot be written.
    """
    text = str(folder)
    return output_place(text) if "://" in text else require_absolute_path(name, text)


def require_absolute_path(name: str, path: str | Path) -> Path:
    """Return a path that a task may write to.

    Raises:
        InvalidInput: it is relative; with its name and the solution.
    """
    if not Path(path).is_absolute():
        raise _relative_error([f"{name} {shortened(str(path))}"], "an absolute path")
    return Path(path)


def require_absolute_images(images: Mapping[str, JsonValue]) -> None:
    """Reject relative paths of images; hrefs are accepted.

    Args:
        images: Input name -> path or href, or a reference with bands and a window, as text or as an
            object.

    Raises:
        InvalidInput: with the name of every relative path, and the solution; or a wrong reference.
    """
    nowhere = Path("/")
    relative = [
        f"input {name!r} {shortened(image)}"
        for name, image in images.items()
        if image_reference(image) != image_reference(image, base=nowhere)
    ]
    if relative:
        raise _relative_error(relative, "an absolute path or an href")


def _relative_error(relative: list[str], required: str) -> InvalidInput:
    verb = "is a relative path" if len(relative) == 1 else "are relative paths"
    return InvalidInput(
        f"{', '.join(relative)} {verb}, and would depend on the working directory of the Airflow "
        f"worker; give {required}"
    )
