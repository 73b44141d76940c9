"""Define `pesto render`: a pipeline as a file of an orchestrator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pesto_runtime.cli.options import (
    Catalog,
    Credentials,
    MaxTasks,
    PipelineFile,
    ServiceTexts,
    Tile,
)
from pesto_runtime.credentials import use_credentials
from pesto_runtime.errors import StoreFailed


def render(
    pipeline: PipelineFile,
    engine: Annotated[str, typer.Option(help="Orchestrator: airflow or conductor.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="File to write; default: standard output.")
    ] = None,
    service: ServiceTexts = None,
    services: Catalog = None,
    tile: Tile = None,
    max_tasks: MaxTasks = 64,
    owner: Annotated[
        str | None, typer.Option(help="Conductor: email address of the workflow's owner.")
    ] = None,
    version: Annotated[int, typer.Option(min=1, help="Conductor: version of the workflow.")] = 1,
    failure_workflow: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Conductor: workflow that starts after a failure; '' for none.",
            show_default="pesto_failure",
        ),
    ] = None,
    timeout: Annotated[
        int, typer.Option(min=0, help="Conductor: seconds until the workflow is ended; 0: never.")
    ] = 0,
    campaign: Annotated[
        bool, typer.Option("--campaign", help="Conductor: run it over a list of scenes.")
    ] = False,
    credentials: Credentials = None,
) -> None:
    """Write a pipeline for an orchestrator, as a DAG file or as workflow JSON."""
    from pesto_runtime.engines import RenderRequest, WorkflowSettings, load_renderer
    from pesto_runtime.places import place_of
    from pesto_runtime.run.planning import load_pipeline

    use_credentials(credentials)
    place = place_of(pipeline)
    request = RenderRequest(
        pipeline=load_pipeline(place),
        path=place,
        services=tuple(service or ()),
        catalog=place_of(services) if services else None,
        max_tasks=max_tasks,
        tile=tile,
        out=out,
        workflow=WorkflowSettings(owner, version, failure_workflow, timeout, campaign),
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
