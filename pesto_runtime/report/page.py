"""The page of a report: its parts in order, in one file that needs nothing else.

No script runs in it and nothing is fetched: a content security policy says so to the browser too.
"""

from __future__ import annotations

import json
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import StoreFailed
from pesto_runtime.report import markup, tables
from pesto_runtime.report.facts import RunFacts, read_holes
from pesto_runtime.report.graph import kinds_of
from pesto_runtime.report.markup import facts as fact_list
from pesto_runtime.report.markup import section, text
from pesto_runtime.report.pipeline_drawing import pipeline_svg
from pesto_runtime.report.previews import Subject, gallery, vector_figures
from pesto_runtime.report.tilemap import layers_of, tile_maps

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.report.facts import ReportData

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LONGEST_VALUE = 24
_MOST_CHARS = 4_000


def write_report(path: Path, data: ReportData) -> None:
    """Write a run's report; whole, or not at all.

    Raises:
        StoreFailed: disk full, or not writable.
    """
    page = render(data)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error


def render(data: ReportData) -> str:
    """The report of a run as one HTML document."""
    run = RunFacts.model_validate(dict(data.result))
    kinds = kinds_of(Pipeline.parse(data.pipeline), run)
    parts = [
        _header(run, data),
        _attention(run, data),
        section("Results", _values(run), anchor="results"),
        section("Images", gallery(_subjects(run, data)), anchor="images"),
        section("Features", _vectors(run, data), anchor="features"),
        section("Pipeline", pipeline_svg(data.pipeline, run), anchor="pipeline"),
        section("Tiles", _tiles(run, data), anchor="tiles"),
        section(
            "Where the time went",
            tables.stages_table(run, kinds) + tables.phases_table(run),
            anchor="time",
        ),
        section(
            "Files",
            tables.outputs_table(run.outputs) + tables.inputs_table(run),
            anchor="files",
        ),
    ]
    return _document(f"{run.pipeline}: {run.status}", "".join(parts), _footer(run))


def _document(title: str, body: str, footer: str) -> str:
    style = files("pesto_runtime.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>\n{style}</style></head>"
        f"<body><main>{body}</main>{footer}</body></html>\n"
    )


def _header(run: RunFacts, data: ReportData) -> str:
    mood = "complete" if run.is_complete else "partial"
    description = data.pipeline.get("description")
    said = f'<p class="lead">{text(description)}</p>' if description else ""
    return (
        f'<header><p class="status {mood}">{text(run.status)}</p>'
        f"<h1>{text(run.pipeline)}</h1>{said}{_key_facts(run, data)}</header>"
    )


def _key_facts(run: RunFacts, data: ReportData) -> str:
    pairs = [("Took", markup.seconds(run.seconds), _started(run.started))]
    if data.tiles:
        pairs.append(("Tiles computed", markup.count(run.tiles.computed), _others(run)))
    if all(data.size):
        width, height = (markup.count(side) for side in data.size)
        read = f"{markup.size(run.bytes_read)} of pixels read" if run.bytes_read else ""
        pairs.append(("Scene, px", f"{width}\u00a0×\u00a0{height}", read))
    engine = {name: value for name, value in run.engine.items() if name not in ("name", "run")}
    if isinstance(workers := engine.pop("workers", None), int):
        executor = text(engine.pop("executor", ""))
        pairs.append(("Workers", markup.count(workers), executor))
    settings = ", ".join(f"{name} {markup.value(value)}" for name, value in engine.items())
    pairs.append(("Engine", text(run.engine.get("name", "–")), text(settings)))
    return fact_list(pairs)


def _others(run: RunFacts) -> str:
    holes = markup.plural(run.tiles.holes, "hole")
    marked = f'<b class="bad">{holes}</b>' if run.tiles.holes else "no holes"
    return f"{markup.count(run.tiles.reused)} reused, {marked}"


def _started(written: str) -> str:
    try:
        when = datetime.fromisoformat(written)
    except ValueError:
        return text(written)
    zone = when.tzname() or ""
    return f'<time datetime="{text(written)}">{when:%Y-%m-%d %H:%M} {text(zone)}</time>'


def _attention(run: RunFacts, data: ReportData) -> str:
    """What deserves a look; nothing where all went well."""
    holes = read_holes(data.folder) if run.tiles.holes else []
    points = [text(warning) for warning in run.warnings]
    points += [
        f"Output <b>{text(name)}</b> was not made: what it needs has holes." for name in run.skipped
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
            f"{found} could not be computed. Running the same command again tries them once more.",
        )
    listed = f"<ul>{''.join(f'<li>{point}</li>' for point in points)}</ul>" if points else ""
    body = listed + tables.holes_table(holes, run.tiles.holes)
    shown = section("Needs a look", body, anchor="look")
    return f'<div class="attention">{shown}</div>' if shown else ""


def _values(run: RunFacts) -> str:
    short, long_ = [], []
    for name, output in run.outputs.items():
        if output.features is not None:
            short.append((name, markup.count(output.features), "features"))
        if not output.is_value:
            continue
        words = markup.value(output.value)
        if len(words) <= _LONGEST_VALUE:
            exact = text(json.dumps(output.value, ensure_ascii=False))
            short.append((name, f'<data value="{exact}" title="{exact}">{text(words)}</data>', ""))
        else:
            long_.append(_long_value(name, output.value))
    shown = f'<div class="values">{fact_list(short)}</div>' if short else ""
    return shown + "".join(long_)


def _long_value(name: str, value: JsonValue) -> str:
    words = markup.lines(value)
    cut = words if len(words) <= _MOST_CHARS else words[:_MOST_CHARS] + "\n…"
    return f'<h3>{text(name)}</h3><pre tabindex="0">{text(cut)}</pre>'


def _subjects(run: RunFacts, data: ReportData) -> list[Subject]:
    """Scenes in grey where they have one band, then outputs along a ramp of colours."""
    scenes = [Subject(name, "Scene", href, "grey") for name, href in data.scenes.items()]
    outputs = [
        Subject(name, "Output", data.folder / output.path, "viridis")
        for name, output in run.outputs.items()
        if output.is_image
    ]
    return [*scenes, *outputs]


def _vectors(run: RunFacts, data: ReportData) -> str:
    files = {
        name: data.folder / output.path
        for name, output in run.outputs.items()
        if output.features is not None
    }
    return vector_figures(files, next(iter(data.scenes.values()), ""))


def _tiles(run: RunFacts, data: ReportData) -> str:
    layers = layers_of(data.tiles)
    phases = [phase for phase in run.phases if phase.chunks]
    titles = ["Seconds per tile"] * len(layers)
    if len(layers) > 1 and len(layers) == len(phases):
        titles = [f"Seconds per tile: {', '.join(phase.stages)}" for phase in phases]
    elif len(layers) > 1:
        titles = [f"Seconds per tile: phase {n}" for n in range(1, len(layers) + 1)]
    return tile_maps(list(zip(titles, layers, strict=True)), data.size)


def _footer(run: RunFacts) -> str:
    told = f"<p>Run <code>{text(run.run)}</code>"
    if run.engine.get("run"):
        told += f", {text(run.engine.get('name', 'engine'))} <code>{text(run.engine['run'])}</code>"
    return f"<footer>{told}.</p>{tables.versions_line(run)}</footer>"
