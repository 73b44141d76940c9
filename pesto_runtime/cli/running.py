"""Define `pesto check`, `plan`, `render` and `run`, and their output on the terminal.

Commands import numpy and rasterio only when they run, to keep `pesto --help` quick.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

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
from pesto_runtime.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.engines import ProgressListener
    from pesto_runtime.run.planning import Planned


_FAILED, _REFUSED, _PARTIAL = 1, 2, 3
_MOST_BLOCKS = 20
_MIB = 1 << 20


class Executor(StrEnum):
    """Kind of the local engine's workers."""

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
    """Type-check a pipeline using only descriptions; report every error."""
    from pesto_runtime.run.planning import check_pipeline, load_pipeline, read_inputs
    from pesto_runtime.run.services import resolve_services

    model = load_pipeline(pipeline)
    found = resolve_services(
        model, base=pipeline.resolve().parent, options=service or [], catalog=services, ask=False
    )
    texts = pairs(inputs, option="-i")
    checked = check_pipeline(model, found, inputs=read_inputs(model, texts) if texts else None)
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
    from pesto_runtime.run.local import sizing_of
    from pesto_runtime.run.planning import load_pipeline, plan, read_inputs
    from pesto_runtime.run.services import resolve_services

    model = load_pipeline(pipeline)
    found = resolve_services(
        model, base=pipeline.resolve().parent, options=service or [], catalog=services
    )
    count = workers or os.cpu_count() or 1
    sizing = sizing_of(workers=count, tile=tile, max_tasks=max_tasks)
    values = read_inputs(model, pairs(inputs, option="-i"))
    planned = plan(model, found, values, store="file:///", sizing=sizing)
    if as_json:
        document = planned.plan.model_dump(mode="json")
        document["estimates"] = [asdict(each) for each in planned.estimates]
        typer.echo(json.dumps(document, indent=2))
    else:
        show_plan(planned, workers=count)


def render(
    pipeline: PipelineFile,
    engine: Annotated[str, typer.Option(help="Orchestrator: airflow or conductor.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write; default: standard output.")
    ] = None,
    service: ServiceTexts = None,
    services: CatalogPath = None,
    tile: Tile = None,
    max_tasks: MaxTasks = 64,
) -> None:
    """Write a pipeline for an orchestrator, as a DAG file or as workflow JSON."""
    from pesto_runtime.engines import RenderRequest, load_renderer
    from pesto_runtime.run.planning import load_pipeline

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
    engine: Annotated[str, typer.Option(help="Engine: local, airflow or conductor.")] = "local",
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
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the blocks of earlier runs first.")
    ] = False,
    patience: Annotated[
        float,
        typer.Option(min=0, help="Seconds that a call waits for a service that is away."),
    ] = 60.0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite a result of another pipeline or scene.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take the folder from a run that owns it.")
    ] = False,
    verify: Annotated[
        int,
        typer.Option(
            "--verify",
            min=0,
            help="Random tiles to compute again, with other borders and doubled margins, before "
            "anything is published; local engine only.",
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline over a scene; the same command resumes a run that was interrupted."""
    from pesto_runtime.engines import RunRequest, load_engine
    from pesto_runtime.run.planning import load_pipeline

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
        patience_s=patience,
        replace=replace,
        take_over=take_over,
        verify_tiles=verify,
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


def verify(
    folder: Annotated[Path, typer.Argument(help="Output folder of a finished run.")],
    as_json: AsJson = False,
) -> None:
    """Compare the outputs of a finished run with its result.json, images block by block."""
    from pesto_runtime.run.product_check import verify_result

    checks = verify_result(folder)
    if as_json:
        report = [
            {"output": each.name, "path": str(each.path), "intact": each.is_intact,
             "detail": each.detail, "blocks": [list(window) for window in each.blocks]}
            for each in checks
        ]  # fmt: skip
        typer.echo(json.dumps(report, indent=2))
    else:
        for each in checks:
            typer.echo(f"{each.name:<12} {each.path}  {each.detail or 'intact'}")
            for window in each.blocks[:_MOST_BLOCKS]:
                typer.echo(f"  block at column {window.col_off}, row {window.row_off}")
            if len(each.blocks) > _MOST_BLOCKS:
                typer.echo(f"  and {len(each.blocks) - _MOST_BLOCKS} more blocks")
    if not all(each.is_intact for each in checks):
        raise typer.Exit(_FAILED)


def show_warnings(warnings: Sequence[object]) -> None:
    """Print warnings on stderr."""
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def show_plan(planned: Planned, *, workers: int) -> None:
    """Print tiles, bytes, memory and seconds of every phase, as estimates."""
    show_warnings(planned.plan.warnings)
    seconds = memory = 0.0
    for number, (phase, cost) in enumerate(
        zip(planned.plan.phases, planned.estimates, strict=True), start=1
    ):
        names = " + ".join([*phase.stages, *phase.reduces])
        typer.echo(f"phase {number} ({phase.kind}): {names}")
        if phase.chunks:
            typer.echo(
                f"  {cost.tiles} tiles of {phase.tile[0]} x {phase.tile[1]} in {cost.chunks} chunks"
                f", {cost.bytes_read / _MIB:.1f} MiB in, {cost.bytes_made / _MIB:.1f} MiB out"
            )
        seconds += cost.seconds / max(1, min(workers, cost.chunks))
        memory = max(memory, cost.memory_bytes * workers)
    typer.echo(
        f"about {memory / _MIB:.0f} MiB and {seconds:.1f} s with {workers} workers "
        "(nominal: expect it within a factor of three)"
    )


def show_result(result: Mapping[str, JsonValue], folder: Path) -> None:
    """Print the status of a run and the paths of its outputs."""
    tiles, outputs = result["tiles"], result["outputs"]
    if not isinstance(tiles, dict) or not isinstance(outputs, dict):
        return
    typer.echo(
        f"{result['status']} in {result['seconds']} s: {tiles['computed']} tiles computed, "
        f"{tiles['reused']} reused, {tiles['holes']} holes"
        + (f", {result['verified_tiles']} verified" if result.get("verified_tiles") else "")
    )
    for name, output in outputs.items():
        if isinstance(output, dict):
            facts = output["value"] if "value" in output else f"sha256 {output['sha256']}"
            if "features" in output:
                facts = f"{output['features']} features, {facts}"
            typer.echo(f"  {name:<12} {folder / str(output['path'])}  {facts}")
    if result["status"] != "COMPLETE":
        names = result["skipped"]
        skipped = ", ".join(map(str, names)) if isinstance(names, list) and names else "none"
        typer.echo(f"  holes        {folder / 'holes.geojson'}; outputs skipped: {skipped}")
    typer.echo(f"  report       {folder / 'report.html'}")


@contextmanager
def progress(name: str, *, hidden: bool) -> Iterator[ProgressListener]:
    """Show a progress bar while the block runs; yield the listener that advances it."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tiles"),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
    ) as bar:
        yield _Bar(bar, name)


class _Bar:
    """A listener that shows the progress of an engine as a bar."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar = bar
        self._task = bar.add_task(name, total=None)

    def begin(self, tiles: int) -> None:
        """Set the total number of tiles."""
        self._bar.update(self._task, total=tiles)

    def advance(self, tiles: int) -> None:
        """Add finished tiles."""
        self._bar.advance(self._task, tiles)

    def warn(self, text: str) -> None:
        """Print a warning above the bar."""
        self._bar.console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    """Shows tiles per second."""

    def render(self, task: Task) -> Text:
        """Show the speed of the last tiles."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} tiles/s")
