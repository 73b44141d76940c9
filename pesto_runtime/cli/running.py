"""`pesto check`, `plan`, `render` and `run`: pipelines."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pesto_runtime.cli.options import (
    AsJson,
    CatalogPath,
    InputTexts,
    MaxTasks,
    PipelineFile,
    ServiceTexts,
    Tile,
    Workers,
    pairs,
)
from pesto_runtime.cli.showing import show_plan, show_result, show_warnings
from pesto_runtime.errors import StoreFailed

_REFUSED, _PARTIAL = 2, 3


class Executor(StrEnum):
    """What the embedded engine's workers are."""

    threads = "threads"
    processes = "processes"


class Form(StrEnum):
    """Form of image outputs."""

    tif = "tif"
    cog = "cog"


def check(
    pipeline: PipelineFile,
    inputs: InputTexts = None,
    service: ServiceTexts = None,
    services: CatalogPath = None,
    as_json: AsJson = False,
) -> None:
    """Type-check a pipeline from descriptions alone; every error in one report."""
    from pesto_runtime.activities import (
        check_pipeline,
        load_pipeline,
        read_inputs,
        resolve_services,
    )

    model = load_pipeline(pipeline)
    found = resolve_services(
        model, base=pipeline.resolve().parent, options=service or [], catalog=services, ask=False
    )
    given = pairs(inputs, option="-i")
    checked = check_pipeline(model, found, inputs=read_inputs(model, given) if given else None)
    if as_json:
        report = {
            "errors": [asdict(each) for each in checked.errors],
            "warnings": [asdict(each) for each in checked.warnings],
        }
        typer.echo(json.dumps(report, indent=2))
    else:
        show_warnings(checked.warnings)
        checked.require(str(pipeline))
        typer.echo(f"{pipeline}: {len(model.stages)} stages, no errors")
    if checked.errors:
        raise typer.Exit(_REFUSED)


def plan(
    pipeline: PipelineFile,
    inputs: InputTexts = None,
    service: ServiceTexts = None,
    services: CatalogPath = None,
    tile: Tile = None,
    workers: Workers = None,
    max_tasks: MaxTasks = 64,
    as_json: AsJson = False,
) -> None:
    """Show tiles, chunks, bytes, memory and seconds of a run, without running it."""
    from pesto_runtime.activities import load_pipeline, plan, read_inputs, resolve_services
    from pesto_runtime.local import sizing_of

    model = load_pipeline(pipeline)
    found = resolve_services(
        model, base=pipeline.resolve().parent, options=service or [], catalog=services
    )
    count = workers or os.cpu_count() or 1
    sizing = sizing_of(workers=count, tile=tile, max_tasks=max_tasks)
    given = read_inputs(model, pairs(inputs, option="-i"))
    planned = plan(model, found, given, store="file:///", sizing=sizing)
    if as_json:
        document = planned.plan.model_dump(mode="json")
        document["estimates"] = [asdict(each) for each in planned.estimates]
        typer.echo(json.dumps(document, indent=2))
    else:
        show_plan(planned, workers=count)


def render(
    pipeline: PipelineFile,
    engine: Annotated[str, typer.Option(help="Who is to read it: airflow or conductor.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write; standard output if absent.")
    ] = None,
    service: ServiceTexts = None,
    services: CatalogPath = None,
    tile: Tile = None,
    max_tasks: MaxTasks = 64,
) -> None:
    """Write a pipeline down for an orchestrator: a DAG file, or workflow JSON."""
    from pesto_runtime.activities import load_pipeline
    from pesto_runtime.engines import RenderRequest, load_renderer

    request = RenderRequest(
        pipeline=load_pipeline(pipeline),
        path=pipeline,
        services=tuple(service or ()),
        catalog=services,
        max_tasks=max_tasks,
        tile=tile,
        out=out,
    )
    text = load_renderer(engine).render(request)
    if out is None:
        typer.echo(text, nl=False)
    else:
        _write(out, text)


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


def run(
    pipeline: PipelineFile,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the outputs.")],
    inputs: InputTexts = None,
    service: ServiceTexts = None,
    services: CatalogPath = None,
    engine: Annotated[
        str, typer.Option(help="What runs it: local, airflow or conductor.")
    ] = "local",
    tile: Tile = None,
    workers: Workers = None,
    executor: Annotated[
        Executor, typer.Option(help="Workers of the local engine.")
    ] = Executor.threads,
    max_tasks: MaxTasks = 64,
    store: Annotated[
        str | None, typer.Option(help="Base href of the run store; the output folder by default.")
    ] = None,
    form: Annotated[Form, typer.Option("--as", help="Form of image outputs.")] = Form.tif,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the run store when complete.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier runs left.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline over a scene; the same command resumes a run that was interrupted."""
    from pesto_runtime.activities import load_pipeline
    from pesto_runtime.cli.progress import progress
    from pesto_runtime.engines import RunRequest, load_engine

    request = RunRequest(
        pipeline=load_pipeline(pipeline),
        base=pipeline.resolve().parent,
        inputs=pairs(inputs, option="-i"),
        folder=out,
        services=tuple(service or ()),
        catalog=services,
        workers=workers or os.cpu_count() or 1,
        executor=executor.value,
        tile=tile,
        max_tasks=max_tasks,
        store=store,
        keep=keep,
        fresh=fresh,
        as_cog=form is Form.cog,
    )
    hidden = as_json or not sys.stderr.isatty()
    with progress(request.pipeline.name, hidden=hidden) as watcher:
        result = load_engine(engine).run(request, watcher=watcher)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        show_result(result, out)
    if result["status"] != "COMPLETE":
        raise typer.Exit(_PARTIAL)
