"""A pipeline as it is known when a DAG file is read: from its file and saved descriptions alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.activities import PhaseShape
    from pesto_runtime.contract import Description


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
    from pesto_runtime.activities import load_pipeline

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
    from pesto_runtime.activities import resolve_services, shape

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
