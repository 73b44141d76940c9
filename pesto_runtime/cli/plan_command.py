"""Define `pesto plan`.

It imports numpy and rasterio only when it runs, to keep `pesto --help` quick.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pesto_runtime.cli.options import (
    AreaText,
    AsJson,
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
    ServiceTexts,
    Tile,
    WindowText,
    Workers,
    allow_drivers,
    input_values,
    profile_names,
)
from pesto_runtime.cli.terminal import author_output_on_stderr, show_plan
from pesto_runtime.credentials import use_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan
    from pesto_runtime.run.costs import RunCost
    from pesto_runtime.run.planning import Planned


def plan(
    pipeline: PipelineText,
    profile: Profiles = None,
    inputs: InputTexts = None,
    service: ServiceTexts = None,
    services: Catalog = None,
    tile: Tile = None,
    workers: Workers = None,
    max_tasks: MaxTasks = 64,
    window: WindowText = None,
    aoi: AreaText = None,
    driver: Drivers = None,
    credentials: Credentials = None,
    compress: Compress = "deflate",
    prices: PriceFile = None,
    executor: Annotated[
        Executor, typer.Option(help="Workers of the local engine.")
    ] = Executor.threads,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="List the windows of every tile, one JSON line each.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show tiles, chunks, bytes, memory and seconds of a run, without running it.

    Memory and seconds are measured on small windows of the scenes, with the functions of this
    machine; services are not called.
    """
    from pesto_runtime.places import place_of
    from pesto_runtime.run.builds import profiled_target
    from pesto_runtime.run.local import sizing_of
    from pesto_runtime.run.pipeline_inputs import read_inputs
    from pesto_runtime.run.planning import plan
    from pesto_runtime.run.restricting import restricted
    from pesto_runtime.run.services import resolve_services
    from pesto_runtime.run.targets import pipeline_of

    allow_drivers(driver)
    use_credentials(credentials)
    catalog = place_of(services) if services else None
    count = workers or os.cpu_count() or 1
    sizing = sizing_of(workers=count, tile=tile, max_tasks=max_tasks)
    texts = input_values(inputs)
    with author_output_on_stderr():
        source = pipeline_of(profiled_target(pipeline, profile_names(profile)))
        model = source.pipeline
        found = resolve_services(model, base=source.base, options=service or [], catalog=catalog)
        given = restricted(model, found, texts, window=window, area=aoi)
        values = read_inputs(model, found, given)
        planned = plan(model, found, values, store="file:///", sizing=sizing, compress=compress)
    if tiles:
        _show_tiles(planned.plan)
    else:
        _show_cost(planned, count, executor, prices, as_json=as_json)


def _show_tiles(plan: Plan) -> None:
    from pesto_runtime.run.tile_windows import tile_windows

    for line in tile_windows(plan):
        typer.echo(json.dumps(line))


def _show_cost(
    planned: Planned, workers: int, executor: Executor, prices: str | None, *, as_json: bool
) -> None:
    from pesto_runtime.places import place_of
    from pesto_runtime.run.costs import run_costs
    from pesto_runtime.run.spending import read_prices

    listed = read_prices(place_of(prices)) if prices else None
    started = time.process_time()  # a run starts and plans as this command did
    with author_output_on_stderr():
        costs = run_costs(
            planned, workers=workers, executor=executor.value, prices=listed, start_s=started
        )
    if as_json:
        typer.echo(json.dumps(_plan_document(planned, costs), indent=2))
    else:
        currency = listed.currency if listed else None
        show_plan(planned, costs, executor=executor.value, currency=currency)


def _plan_document(planned: Planned, costs: Sequence[RunCost]) -> dict[str, JsonValue]:
    document: dict[str, JsonValue] = planned.plan.model_dump(mode="json")
    cost, *curve = (asdict(each) for each in costs)
    estimates: list[JsonValue] = [asdict(each) for each in planned.estimates]
    return {**document, "estimates": estimates, "cost": cost, "curve": [*curve]}
