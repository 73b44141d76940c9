"""A pipeline as it is known when a DAG file is read: from its file and saved descriptions alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidInput, shortened
from pesto_runtime.hrefs import looks_like_href

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.pipeline import Sizing
    from pesto_runtime.run.planning import PhaseShape


def next_chunks(plan: str, *, after: int) -> list[int]:
    """Indices of the chunks of the first phase after one that has any; empty where none has.

    Airflow maps over what a task returns, and over nothing else it leaves: so whoever comes
    before a fan-out answers its indices. 256 of them are 1.2 KB.

    Args:
        plan: Href of the plan.
        after: Number of a phase; -1 for the beginning.

    Raises:
        NotFound: there is no such plan.
    """
    from pesto_runtime.run.context import chunks_of, load_context

    count = len(load_context(plan).plan.phases)
    found = (chunks_of(plan, number) for number in range(after + 1, count))
    return [chunk.start for chunk in next(filter(None, found), [])]


def holes_of_chunk(plan: str, phase: int, index: int) -> list[str]:
    """Why each tile of a chunk that failed for good did so; empty where none did.

    Raises:
        NotFound: there is no such plan, or the chunk has not run.
    """
    from pesto_runtime.contract import Hole
    from pesto_runtime.run.context import load_context, manifest_name

    context = load_context(plan)
    manifest = context.store.get_json(manifest_name(context, phase, index, index + 1))
    holes = manifest["holes"] if isinstance(manifest, dict) else []
    found = (Hole.model_validate(each) for each in (holes if isinstance(holes, list) else []))
    return [str(hole.error["detail"]) for hole in found]


def name_of_chunk(plan: str, phase: int, index: int) -> str:
    """What the grid shows of a chunk: its window (col_off, row_off, width, height).

    Raises:
        NotFound: there is no such plan.
    """
    from pesto_runtime.run.context import load_context

    window = load_context(plan).plan.phases[phase].chunks[index]
    return f"{index}: col {window.col_off} row {window.row_off}, {window.width} x {window.height}"


def require_absolute_path(name: str, path: str | Path) -> Path:
    """A path that a task may write to.

    Raises:
        InvalidInput: it is relative; names it, and the way out.
    """
    if not Path(path).is_absolute():
        raise _refused([f"{name} {shortened(str(path))}"], "an absolute path")
    return Path(path)


def require_absolute_images(images: Mapping[str, str]) -> None:
    """Hold images that a task reads to the same; an href is as good as a path.

    Args:
        images: Input name -> path or href.

    Raises:
        InvalidInput: some are relative; names each, and the way out.
    """
    relative = [
        f"input {name!r} {shortened(image)}"
        for name, image in images.items()
        if not looks_like_href(image) and not Path(image).is_absolute()
    ]
    if relative:
        raise _refused(relative, "an absolute path or an href")


def _refused(relative: list[str], wanted: str) -> InvalidInput:
    verb = "is a relative path" if len(relative) == 1 else "are relative paths"
    return InvalidInput(
        f"{', '.join(relative)} {verb}, and would be looked for in the working directory of "
        f"whatever worker runs the task; give {wanted}"
    )


TASK_COST_S = 0.3
"""Of a mapped task beside its work: 1.3 to 3.5 of them a second were measured on two cores."""
_LEAST_PER_WORKER = 4


def sizing_for_airflow(*, workers: int, tile: int | None, max_tasks: int) -> Sizing:
    """Cut a run up for so many mapped tasks at once on one machine.

    Short work is one task for each, where engines with cheap tasks make four to keep level.
    """
    from pesto_runtime.run.local import sizing_of

    sizing = sizing_of(workers=workers, tile=tile, max_tasks=max_tasks)
    few = max(1, workers // _LEAST_PER_WORKER)
    memory = sizing.memory_bytes * few // workers
    return replace(sizing, workers=few, memory_bytes=memory, task_cost_s=TASK_COST_S)


MOST_BYTES = 4096


def stage_values(plan: str, stage: str) -> dict[str, JsonValue]:
    """The JSON outputs of a finished stage, by name; those over 4 KB in all are left out.

    Raises:
        NotFound: it has not finished.
    """
    from pesto_runtime.contract import Reference
    from pesto_runtime.pipeline import JsonType
    from pesto_runtime.run.context import load_context

    context = load_context(plan)
    found: dict[str, JsonValue] = {}
    for port, made in context.stages[stage].makes.items():
        if isinstance(made, JsonType):
            value = context.value(Reference(owner=stage, port=port))
            if len(json.dumps({**found, port: value})) <= MOST_BYTES:
                found[port] = value
    return found


@dataclass(frozen=True)
class KnownPipeline:
    """A pipeline that checks.

    Attributes:
        pipeline: It.
        phases: In the order in which they run.
        descriptions: Process name -> what was saved of it.
    """

    pipeline: Pipeline
    phases: tuple[PhaseShape, ...]
    descriptions: Mapping[str, Description]


def read_pipeline(
    pipeline: str | Path | Mapping[str, JsonValue] | Pipeline, base: str | Path | None = None
) -> tuple[Pipeline, Path]:
    """Read a pipeline's file, or its JSON; answers what its relative targets are relative to, too.

    Raises:
        InvalidInput: the file is not there, or not JSON.
        InvalidPipeline: it does not fit the schema.
    """
    from pesto_runtime.run.planning import load_pipeline

    if isinstance(pipeline, (str, Path)):
        path = Path(pipeline)
        return load_pipeline(path), Path(base) if base else path.resolve().parent
    model = pipeline if isinstance(pipeline, Pipeline) else Pipeline.parse(pipeline)
    return model, Path(base) if base else Path.cwd()


def know_pipeline(
    pipeline: str | Path | Mapping[str, JsonValue] | Pipeline,
    services: str | Path,
    base: str | Path | None = None,
) -> KnownPipeline:
    """Check a pipeline against a catalog: nobody is asked, no process is loaded.

    Args:
        pipeline: Its file, or its JSON.
        services: Folder of saved descriptions, one of each process.
        base: What its own targets are relative to.

    Raises:
        InvalidInput: the catalog describes not every process; says how to save what is missing.
        InvalidPipeline: the pipeline does not check; with every error.
    """
    from pesto_runtime.run.planning import shape
    from pesto_runtime.run.services import resolve_services

    model, place = read_pipeline(pipeline, base)
    _require_all(model, Path(services))
    found = resolve_services(model, base=place, catalog=Path(services), ask=False)
    return KnownPipeline(model, shape(model, found), found.descriptions)


def map_task_id(stages: Sequence[str], reduces: Sequence[str]) -> str:
    """What the mapped task of a phase is called: after its stages."""
    return "_".join(("map", *(stages or reduces)))


def _require_all(pipeline: Pipeline, folder: Path) -> None:
    """A process without a saved description would be asked, or loaded, at every parse."""
    saved = {path.name.rpartition("@")[0] for path in folder.glob("*@*.json")}
    missing = sorted({stage.process for stage in pipeline.stages} - saved)
    if missing:
        raise InvalidInput(
            f"{folder} has no description of {', '.join(missing)}: a DAG file asks no service; "
            f"save them by `pesto discover URL… --save {folder}`"
        )
