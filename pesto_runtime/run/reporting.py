"""Gather the facts of a run for its report: tiles, images with their samples, words of ports."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline, parse_binding
from pesto_runtime.places import href_of
from pesto_runtime.report import PortText, ReportData, ReportImage
from pesto_runtime.run.chunk import needed_bands
from pesto_runtime.run.context import declared_classes
from pesto_runtime.run.records import tile_records
from pesto_runtime.run.sampling import collected, sampled_rasters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Port
    from pesto_runtime.pipeline import BoundStage
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.sampling import SampledRaster


def report_data(
    context: RunContext, folder: AnyPath, result: Mapping[str, JsonValue]
) -> ReportData:
    """Return everything that the report of a run shows.

    Args:
        context: The run.
        folder: The output folder, with the outputs.
        result: Content of `result.json`.

    Raises:
        StoreFailed: the run store does not respond.
    """
    plan = context.plan
    sampled = {
        name: raster
        for number, phase in enumerate(context.phases)
        for name, raster in sampled_rasters(context, number, needed_bands(context, phase)).items()
    }
    images = [
        _image(
            context,
            sampled.get(f"$inputs.{name}"),
            ReportImage(
                name,
                "Scene",
                scene.href,
                selection=scene.selection,
                is_on_grid=not context.grid_type(f"$inputs.{name}").grid,
            ),
        )
        for name, scene in plan.scenes.items()
    ]
    texts = {}
    for name, binding in Pipeline.parse(plan.pipeline).outputs.items():
        stage, port = _source(context, binding)
        if stage is None or port is None:
            continue
        texts[name] = _words(stage, port)
        entry = _object(_object(result.get("outputs")).get(name))
        if port.kind == "image" and entry:
            image = ReportImage(
                name,
                "Output",
                href_of(folder / str(entry.get("path"))),
                classes=declared_classes(context, binding),
                is_on_grid=not context.grid_type(binding).grid,
            )
            images.append(_image(context, sampled.get(binding), image))
    return ReportData(
        result=result,
        pipeline=plan.pipeline,
        tiles=tuple(tile_records(context)),
        size=plan.phases[0].size,
        images=tuple(images),
        folder=folder,
        texts=texts,
        embeds=plan.report == "embed",
        elsewhere=frozenset(name for name, stage in context.stages.items() if stage.grid),
    )


def _image(context: RunContext, raster: SampledRaster | None, image: ReportImage) -> ReportImage:
    if raster is None:
        return image
    samples = collected(context, raster)
    return replace(image, samples=samples, numbers=raster.bands)


def _source(context: RunContext, binding: str) -> tuple[BoundStage | None, Port | None]:
    reference = parse_binding(binding)
    stage = context.stages.get(reference.owner) if reference else None
    if stage is None or reference is None:
        return None, None
    return stage, stage.description.output(reference.port)


def _words(stage: BoundStage, port: Port) -> PortText:
    known = stage.description.known
    text = port.schema.get("description") or known.description or ""
    return PortText(str(text), str(port.schema.get("unit") or ""))


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}
