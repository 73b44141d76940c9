"""Render `report.html`: the sections of the page in order, with its tables, in one HTML file.

The page fetches nothing, and runs only the script of its viewer: its content security policy
forbids all else.
"""

from __future__ import annotations

import json
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import StoreFailed
from pesto_runtime.places import RemotePath
from pesto_runtime.raster.place import place_of
from pesto_runtime.report import markup
from pesto_runtime.report.facts import PortText, RunFacts, read_holes
from pesto_runtime.report.features_drawing import vector_figures
from pesto_runtime.report.graph import kinds_of
from pesto_runtime.report.location import place_facts
from pesto_runtime.report.markup import fact_list, section, text
from pesto_runtime.report.pictures import gallery, pictures_of
from pesto_runtime.report.pipeline_drawing import pipeline_svg
from pesto_runtime.report.tables import (
    FileLinks,
    holes_table,
    inputs_table,
    outputs_table,
    phases_table,
    stages_table,
)
from pesto_runtime.report.tilemap import PhaseTiles, layers_of, tile_maps
from pesto_runtime.report.viewer import POLICY, SCRIPT, viewer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from pesto_runtime.places import AnyPath
    from pesto_runtime.raster.place import Place
    from pesto_runtime.report.facts import HoleFacts, ReportData
    from pesto_runtime.report.pictures import Picture

# Images are data URLs, the style sheet is inline, and the script has a hash. All else is forbidden:
# even a text that is not escaped by mistake could neither run a script nor fetch anything.
_POLICY = (
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {POLICY}; base-uri 'none'; "
    "form-action 'none'"
)
_LONGEST_SHORT_VALUE = 24
_MOST_VALUE_CHARS = 4_000


def write_report(path: AnyPath, data: ReportData) -> None:
    """Write a run's report; whole, or not at all.

    Raises:
        StoreFailed: disk full, or not writable.
    """
    write_page(path, render(data))


def write_page(path: AnyPath, page: str) -> None:
    """Write a page; whole, or not at all.

    Raises:
        StoreFailed: disk full, or not writable.
    """
    if isinstance(path, RemotePath):
        path.write_text(page)
        return
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


def render(data: ReportData) -> str:
    """Return the report of a run as one HTML document."""
    run = RunFacts.model_validate(dict(data.result))
    kinds = kinds_of(Pipeline.parse(data.pipeline), run)
    links = FileLinks(data.folder, data.embeds)
    holes = read_holes(data.folder) if run.tiles.holes else []
    pictures = pictures_of(data.images)
    place = _place(pictures)
    phases = _phases_of_tiles(run, data)
    shown = viewer(
        [each for each in pictures if each.image.is_on_grid],
        data.size,
        place=place,
        tiles=[each[:2] for each in phases if each.is_on_grid],
        holes=[each for each in holes if each.stage not in data.elsewhere],
    )
    parts = [
        _header(run, data),
        _attention(run, holes, links),
        section("Results", _values(run, data), anchor="results"),
        section("Place", place_facts(place, data.size) if place else "", anchor="place"),
        section("Images", shown + gallery(pictures, of=len(data.images)), anchor="images"),
        section("Features", _vectors(run, data, pictures), anchor="features"),
        section("Pipeline", pipeline_svg(data.pipeline, run), anchor="pipeline"),
        section("Tiles", tile_maps(phases, data.size), anchor="tiles"),
        section("Computing time", stages_table(run, kinds) + phases_table(run), anchor="time"),
        section("Files", outputs_table(run.outputs, links) + inputs_table(run), anchor="files"),
    ]
    body = "".join(parts)
    script = f'<script type="module">{SCRIPT}</script>' if shown else ""
    return html_page(f"{run.pipeline}: {run.status}", body, _footer(run) + script)


def _place(pictures: Sequence[Picture]) -> Place | None:
    """Return the place of the first scene that can be read."""
    subjects = (each.subject for each in pictures if each.image.role == "Scene")
    return next((place_of(subject.scene) for subject in subjects if subject), None)


def html_page(title: str, body: str, footer: str) -> str:
    """Return a page with the style and the policy of reports.

    Args:
        title: Text of the title.
        body: HTML of the main part.
        footer: HTML after it.
    """
    style = files("pesto_runtime.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title>'
        f"<style>\n{style}</style></head><body><main>{body}</main>{footer}</body></html>\n"
    )


def _header(run: RunFacts, data: ReportData) -> str:
    mood = "complete" if run.is_complete else "partial"
    description = data.pipeline.get("description")
    lead = f'<p class="lead">{text(description)}</p>' if description else ""
    return (
        f'<header><p class="status {mood}">{text(run.status)}</p>'
        f"<h1>{text(run.pipeline)}</h1>{lead}{_key_facts(run, data)}</header>"
    )


def _key_facts(run: RunFacts, data: ReportData) -> str:
    pairs = [("Duration", markup.seconds(run.seconds), _start_time(run.started))]
    if data.tiles:
        pairs.append(("Tiles computed", markup.count(run.tiles.computed), _other_tiles(run)))
    if all(data.size):
        width, height = (markup.count(side) for side in data.size)
        read = f"{markup.size(run.bytes_read)} of pixels read" if run.bytes_read else ""
        size = f'<span class="whole">{width}\u00a0×\u00a0{height}</span>'
        pairs.append(("Scene, px", size, read))
    engine = {name: value for name, value in run.engine.items() if name not in ("name", "run")}
    if isinstance(workers := engine.pop("workers", None), int):
        executor = text(engine.pop("executor", ""))
        pairs.append(("Workers", markup.count(workers), executor))
    settings = ", ".join(f"{name} {markup.value(value)}" for name, value in engine.items())
    pairs.append(("Engine", text(run.engine.get("name", "–")), text(settings)))
    return fact_list(pairs)


def _other_tiles(run: RunFacts) -> str:
    holes = markup.plural(run.tiles.holes, "hole")
    marked = f'<b class="bad">{holes}</b>' if run.tiles.holes else "no holes"
    return f"{markup.count(run.tiles.reused)} reused, {marked}"


def _start_time(started: str) -> str:
    try:
        when = datetime.fromisoformat(started)
    except ValueError:
        return text(started)
    zone = when.tzname() or ""
    return f'<time datetime="{text(started)}">{when:%Y-%m-%d %H:%M} {text(zone)}</time>'


def _attention(run: RunFacts, holes: Sequence[HoleFacts], links: FileLinks) -> str:
    """Return the section of warnings, skipped outputs and holes; empty if there are none."""
    points = [text(warning) for warning in run.warnings]
    points += [
        f"Output <b>{text(name)}</b> was skipped: its inputs have holes." for name in run.skipped
    ]
    points += [
        f"Output <b>{text(name)}</b> has {markup.plural(output.blocks_with_holes, 'block')} "
        f"with holes{', filled with nodata' if output.is_image else ': features are missing'}."
        for name, output in run.outputs.items()
        if output.blocks_with_holes
    ]
    if run.tiles.holes:
        found = markup.plural(run.tiles.holes, "tile")
        points.insert(
            0,
            f"{found} could not be computed. Run the same command again to retry them.",
        )
    listed = f"<ul>{''.join(f'<li>{point}</li>' for point in points)}</ul>" if points else ""
    body = listed + holes_table(holes, run.tiles.holes, links)
    shown = section("Needs attention", body, anchor="attention")
    return f'<div class="attention">{shown}</div>' if shown else ""


def _values(run: RunFacts, data: ReportData) -> str:
    short, long_ = [], []
    for name, output in run.outputs.items():
        words_of = data.texts.get(name, PortText())
        remark = text(" ".join(words_of.text.partition("\n\n")[0].split()))
        if output.features is not None:
            counted = f"features. {remark}" if remark else "features"
            short.append((name, markup.count(output.features), counted))
        if not output.is_value:
            continue
        words = markup.value(output.value)
        if len(words) <= _LONGEST_SHORT_VALUE:
            exact = text(json.dumps(output.value, ensure_ascii=False))
            unit = f" <small>{text(words_of.unit)}</small>" if words_of.unit else ""
            shown = f'<data value="{exact}" title="{exact}">{text(words)}</data>{unit}'
            short.append((name, shown, remark))
        else:
            long_.append(_long_value(name, output.value, remark))
    listed = f'<div class="values">{fact_list(short)}</div>' if short else ""
    return listed + "".join(long_)


def _long_value(name: str, value: JsonValue, remark: str) -> str:
    words = markup.lines(value)
    cut = words if len(words) <= _MOST_VALUE_CHARS else words[:_MOST_VALUE_CHARS] + "\n…"
    quiet = f'<p class="quiet">{remark}</p>' if remark else ""
    return f'<h3>{text(name)}</h3>{quiet}<pre tabindex="0">{text(cut)}</pre>'


def _vectors(run: RunFacts, data: ReportData, pictures: Sequence[Picture]) -> str:
    found = {
        name: data.folder / output.path
        for name, output in run.outputs.items()
        if output.features is not None
    }
    return vector_figures(found, next((p for p in pictures if p.image.role == "Scene"), None))


def _phases_of_tiles(run: RunFacts, data: ReportData) -> list[PhaseTiles]:
    """Return the tiles of each phase that has tiles."""
    layers = layers_of(data.tiles)
    phases = [phase for phase in run.phases if phase.chunks]
    titles = ["Seconds per tile"] * len(layers)
    if len(layers) > 1 and len(layers) == len(phases):
        titles = [f"Seconds per tile: {', '.join(phase.stages)}" for phase in phases]
    elif len(layers) > 1:
        titles = [f"Seconds per tile: phase {n}" for n in range(1, len(layers) + 1)]
    is_on_grid = [True] * len(layers)
    if len(layers) == len(phases):
        is_on_grid = [data.elsewhere.isdisjoint(phase.stages) for phase in phases]
    return [PhaseTiles(*each) for each in zip(titles, layers, is_on_grid, strict=True)]


def _footer(run: RunFacts) -> str:
    engine = ""
    if run.engine.get("run"):
        name, number = text(run.engine.get("name", "engine")), text(run.engine["run"])
        engine = f", {name} <code>{number}</code>"
    versions = [f"{text(name)} {text(version)}" for name, version in run.versions.items()]
    lines = "".join(
        f"<p>{title}: {', '.join(items)}.</p>"
        for title, items in (("Versions", versions), ("CPU", [text(each) for each in run.cpu]))
        if items
    )
    return f"<footer><p>Run <code>{text(run.run)}</code>{engine}.</p>{lines}</footer>"
