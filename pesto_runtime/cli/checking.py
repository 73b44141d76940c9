"""Define `pesto check`, which also proposes and inserts converters."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pesto_runtime.cli.listing_processes import process_lines
from pesto_runtime.cli.options import (
    AreaText,
    AsJson,
    Catalog,
    Credentials,
    Drivers,
    InputTexts,
    PipelineText,
    Profiles,
    ServiceTexts,
    WindowText,
    allow_drivers,
    input_values,
    profile_names,
)
from pesto_runtime.cli.terminal import author_output_on_stderr, show_warnings
from pesto_runtime.credentials import use_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pesto_runtime.contract import Pipeline
    from pesto_runtime.pipeline import Checked
    from pesto_runtime.pipeline.conversions import Conversion
    from pesto_runtime.run.listing import Listed

_REFUSED = 2


def check(
    pipeline: PipelineText,
    profile: Profiles = None,
    inputs: InputTexts = None,
    service: ServiceTexts = None,
    services: Catalog = None,
    window: WindowText = None,
    aoi: AreaText = None,
    driver: Drivers = None,
    credentials: Credentials = None,
    insert_converters: Annotated[
        bool,
        typer.Option(
            "--insert-converters", help="Write proposed converters into the file of the pipeline."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Type-check a pipeline using only descriptions; report every error.

    A stage that converts a raster without loss is proposed where an input does not fit.
    """
    from pesto_runtime.pipeline.conversions import conversions
    from pesto_runtime.places import place_of
    from pesto_runtime.run.builds import profiled_target
    from pesto_runtime.run.listing import others_for
    from pesto_runtime.run.pipeline_inputs import read_inputs
    from pesto_runtime.run.planning import check_pipeline, insert_conversions
    from pesto_runtime.run.restricting import restricted
    from pesto_runtime.run.services import resolve_services
    from pesto_runtime.run.targets import pipeline_of

    allow_drivers(driver)
    use_credentials(credentials)
    catalog = place_of(services) if services else None
    with author_output_on_stderr():
        source = pipeline_of(profiled_target(pipeline, profile_names(profile)))
        model = source.pipeline
        found = resolve_services(
            model, base=source.base, options=service or [], catalog=catalog, ask=False
        )
    texts = restricted(model, found, input_values(inputs), window=window, area=aoi)
    read = read_inputs(model, found, texts) if texts else None
    checked = check_pipeline(model, found, inputs=read)
    proposed = conversions(model, found.descriptions, checked.types)
    if proposed and insert_converters:
        insert_conversions(Path(pipeline), proposed)
        typer.echo("\n".join(f"inserted {each.id}" for each in proposed), err=True)
        check(pipeline, profile, inputs, service, services, window, aoi, driver, credentials,
              insert_converters, as_json)  # fmt: skip
        return
    others = others_for(model, checked.errors, read.scenes, catalog) if read and catalog else {}
    _show(
        pipeline, model, checked, proposed, others=others, remarks=source.remarks, as_json=as_json
    )
    if checked.errors:
        raise typer.Exit(_REFUSED)


def _show(
    name: str,
    pipeline: Pipeline,
    checked: Checked,
    proposed: Sequence[Conversion],
    *,
    others: Mapping[str, list[Listed]],
    remarks: Sequence[str],
    as_json: bool,
) -> None:
    if as_json:
        report: dict[str, list[object]] = {
            "errors": [asdict(each) for each in checked.errors],
            "warnings": [asdict(each) for each in checked.warnings],
        }
        report |= {"proposed": [str(each) for each in proposed]} if proposed else {}
        report |= (
            {
                "others": [
                    {"stage": stage, **each.to_json()}
                    for stage, several in others.items()
                    for each in several
                ]
            }
            if others
            else {}
        )
        typer.echo(json.dumps(report, indent=2))
        return
    show_warnings((*remarks, *checked.warnings))
    for each in proposed:
        typer.echo(f"proposed: {each}; --insert-converters", err=True)
    for stage, several in others.items():
        typer.echo(f"other processes for the scene of stage {stage!r}:", err=True)
        typer.echo("\n".join(process_lines(several)) or "none in the catalog", err=True)
    checked.require(name)
    count = len(pipeline.stages)
    typer.echo(f"{name}: {count} stage{'s' if count > 1 else ''}, no errors")
