"""Define `pesto run` and `verify`.

Commands import numpy and rasterio only when they run, to keep `pesto --help` quick.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pesto_runtime.cli.options import (
    AreaText,
    AsJson,
    Cache,
    Catalog,
    Compress,
    Credentials,
    Drivers,
    Executor,
    InputTexts,
    MaxTasks,
    PipelineText,
    PriceFile,
    Profiles,
    SceneList,
    ServiceTexts,
    Tile,
    WindowText,
    Workers,
    allow_drivers,
    input_values,
    profile_names,
    run_limits,
)
from pesto_runtime.cli.terminal import (
    author_output_on_stderr,
    show_campaign,
    show_result,
    show_warnings,
)
from pesto_runtime.credentials import use_credentials
from pesto_runtime.errors import InvalidInput, LimitReached

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.places import AnyPath

_FAILED, _REFUSED, _PARTIAL = 1, 2, 3
_MOST_BLOCKS = 20


class Form(StrEnum):
    """Form of image outputs."""

    tif = "tif"
    cog = "cog"


class ReportFiles(StrEnum):
    """What the report has of the products."""

    links = "links"
    embed = "embed"


def run(
    pipeline: PipelineText,
    out: Annotated[
        str,
        typer.Option("-o", "--out", metavar="PATH", help="Folder for the outputs; also s3://…."),
    ],
    profile: Profiles = None,
    inputs: InputTexts = None,
    scenes: SceneList = None,
    only_failed: Annotated[
        bool,
        typer.Option(
            "--only-failed",
            help="With --scenes: leave the scenes alone that campaign.json has as COMPLETE.",
        ),
    ] = False,
    service: ServiceTexts = None,
    services: Catalog = None,
    engine: Annotated[
        str, typer.Option(help="Engine: local, airflow, conductor, dask or spark.")
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
    overviews: Annotated[
        bool, typer.Option("--overviews", help="Write GeoTIFFs with overviews; a COG always has.")
    ] = False,
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
    window: WindowText = None,
    aoi: AreaText = None,
    verify: Annotated[
        int,
        typer.Option(
            "--verify",
            min=0,
            help="Random tiles to compute again, with other borders and doubled margins, before "
            "anything is published; local engine only.",
        ),
    ] = 0,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Stop before the command takes longer: 90s, 10m, 1h30m."
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Stop before it costs more, by --prices.")
    ] = None,
    prices: PriceFile = None,
    driver: Drivers = None,
    credentials: Credentials = None,
    report: Annotated[
        ReportFiles,
        typer.Option(
            help="What report.html has of the products: links, or small files themselves."
        ),
    ] = ReportFiles.links,
    compress: Compress = "deflate",
    cache: Cache = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.html.")] = False,
    stac: Annotated[
        bool, typer.Option("--stac", help="Describe the outputs as STAC, as pesto stac does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline or one process over a scene; the same command resumes an interrupted run.

    With --scenes, over many: each has a folder of its own, and one that fails stops no other.
    """
    from pesto_runtime.campaigns.local_campaign import CampaignEngine
    from pesto_runtime.contract import Compression
    from pesto_runtime.engines import RunRequest, load_engine
    from pesto_runtime.places import output_place, place_of
    from pesto_runtime.progress_display import terminal_progress
    from pesto_runtime.run.builds import profiled_target
    from pesto_runtime.run.restricting import restricted
    from pesto_runtime.run.services import resolve_services
    from pesto_runtime.run.targets import pipeline_of

    allow_drivers(driver)
    use_credentials(credentials)
    folder, catalog = output_place(out), place_of(services) if services else None
    of_one_scene = {
        "window": window, "aoi": aoi, "verify": verify, "engine": engine != "local",
    }  # fmt: skip
    listed = _scenes(scenes, of_one_scene, only_failed=only_failed)
    with author_output_on_stderr():
        source, given = (
            pipeline_of(profiled_target(pipeline, profile_names(profile))),
            input_values(inputs),
        )
        if window is not None or aoi is not None:
            found = resolve_services(
                source.pipeline, base=source.base, options=service or [], catalog=catalog
            )
            given = restricted(source.pipeline, found, given, window=window, area=aoi)
    request = RunRequest(
        pipeline=source.pipeline,
        base=source.base,
        inputs=given,
        folder=folder,
        services=tuple(service or ()),
        catalog=catalog,
        workers=workers or os.cpu_count() or 1,
        executor=executor.value,
        tile=tile,
        max_tasks=max_tasks,
        store=store,
        keep=keep,
        fresh=fresh,
        as_cog=form is Form.cog,
        overviews=overviews,
        patience_s=patience,
        replace=replace,
        take_over=take_over,
        verify_tiles=verify,
        report="none" if no_report else report.value,
        compress=str(Compression.parse(compress)),
        cache=_cache_href(cache),
        limits=run_limits(deadline, budget, prices),
    )
    show_warnings(source.remarks)
    with (
        _stop_as_json(request.pipeline.name, wanted=as_json),
        author_output_on_stderr(),
        terminal_progress(
            request.pipeline.name, hidden=as_json or not sys.stderr.isatty()
        ) as watcher,
    ):
        chosen = CampaignEngine(listed, only_failed) if listed else load_engine(engine)
        result = chosen.run(request, watcher=watcher)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        (show_campaign if listed else show_result)(result, place_of(out))
    _end(result, place_of(out), stac=stac)


@contextmanager
def _stop_as_json(pipeline: str, *, wanted: bool) -> Iterator[None]:
    """Print the result of a run that is stopped at a limit: PARTIAL, without outputs yet."""
    try:
        yield
    except LimitReached as error:
        if wanted:
            stopped = {**(error.stopped or {}), "detail": error.detail}
            document = {"status": "PARTIAL", "pipeline": pipeline, "outputs": {}}
            typer.echo(json.dumps({**document, "stopped": stopped}, indent=2))
        raise


def _cache_href(text: str | None) -> str | None:
    """Return the href of a cache that can be opened."""
    from pesto_runtime.run.cache_store import cache_base

    return None if text is None else cache_base(text)


def _end(result: Mapping[str, JsonValue], folder: AnyPath, *, stac: bool) -> None:
    if stac:
        _write_stac(folder, None)
    if result["status"] != "COMPLETE":
        raise typer.Exit(_PARTIAL)


def _scenes(
    text: str | None, options: Mapping[str, object], *, only_failed: bool
) -> list[JsonValue] | None:
    """Read a list of scenes, which has no options of a run of one scene; None if there is none."""
    from pesto_runtime.campaigns.scene_lists import listed_scenes

    if text is None:
        if only_failed:
            raise InvalidInput("--only-failed is for a campaign: give --scenes, too")
        return None
    given = ", ".join(f"--{name}" for name, value in options.items() if value)
    if given:
        raise InvalidInput(f"--scenes has no {given}: run a scene alone for it")
    return listed_scenes(text)


def stac(
    folder: Annotated[
        str,
        typer.Argument(metavar="FOLDER", help="Output folder of a run or campaign; also s3://…."),
    ],
    datetime: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Time of the acquisition (RFC 3339), or START/END; by default that of the STAC "
            "items that the run has read.",
        ),
    ] = None,
    credentials: Credentials = None,
) -> None:
    """Describe the outputs of a finished run as STAC: item.json, items.json of a campaign."""
    from pesto_runtime.places import place_of

    use_credentials(credentials)
    typer.echo(_write_stac(place_of(folder), datetime))


def _write_stac(folder: AnyPath, time: str | None) -> AnyPath:
    from pesto_runtime.campaigns import CAMPAIGN
    from pesto_runtime.run.stac_output import write_item, write_items

    campaign = folder / CAMPAIGN
    if campaign.is_file():
        place, remarks = write_items(folder, json.loads(campaign.read_bytes())["scenes"], time=time)
    else:
        place, remarks = write_item(folder, time=time)
    show_warnings(remarks)
    return place


def verify(
    folder: Annotated[
        str,
        typer.Argument(metavar="FOLDER", help="Output folder of a finished run; also s3://…."),
    ],
    credentials: Credentials = None,
    as_json: AsJson = False,
) -> None:
    """Compare the outputs of a finished run with its result.json, images block by block."""
    from pesto_runtime.places import place_of
    from pesto_runtime.run.product_check import verify_result

    use_credentials(credentials)
    checks = verify_result(place_of(folder))
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
