"""Render `report.html`: the sections of the page in order, with its tables, in one HTML file.

The page runs no script and fetches nothing; its content security policy also forbids both.
"""

from __future__ import annotations

import json
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import StoreFailed
from pesto_runtime.report import markup
from pesto_runtime.report.facts import RunFacts, read_holes
from pesto_runtime.report.graph import kinds_of
from pesto_runtime.report.markup import code, fact_list, section, table, text
from pesto_runtime.report.pipeline_drawing import pipeline_svg
from pesto_runtime.report.previews import Subject, gallery, vector_figures
from pesto_runtime.report.tilemap import layers_of, tile_maps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.report.facts import HoleFacts, OutputFacts, ReportData

# Images are data URLs and the style sheet is inline. All else is forbidden: even a text that is not
# escaped by mistake could neither run a script nor fetch anything.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LONGEST_SHORT_VALUE = 24
_MOST_VALUE_CHARS, _MOST_INPUT_CHARS = 4_000, 400
_MOST_HOLES = 50


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
    """Return the report of a run as one HTML document."""
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
            "Computing time",
            _stages_table(run, kinds) + _phases_table(run),
            anchor="time",
        ),
        section(
            "Files",
            _outputs_table(run.outputs) + _inputs_table(run),
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
        pairs.append(("Scene, px", f"{width}\u00a0×\u00a0{height}", read))
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


def _attention(run: RunFacts, data: ReportData) -> str:
    """Return the section of warnings, skipped outputs and holes; empty if there are none."""
    holes = read_holes(data.folder) if run.tiles.holes else []
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
    body = listed + _holes_table(holes, run.tiles.holes)
    shown = section("Needs attention", body, anchor="attention")
    return f'<div class="attention">{shown}</div>' if shown else ""


def _values(run: RunFacts) -> str:
    short, long_ = [], []
    for name, output in run.outputs.items():
        if output.features is not None:
            short.append((name, markup.count(output.features), "features"))
        if not output.is_value:
            continue
        words = markup.value(output.value)
        if len(words) <= _LONGEST_SHORT_VALUE:
            exact = text(json.dumps(output.value, ensure_ascii=False))
            short.append((name, f'<data value="{exact}" title="{exact}">{text(words)}</data>', ""))
        else:
            long_.append(_long_value(name, output.value))
    shown = f'<div class="values">{fact_list(short)}</div>' if short else ""
    return shown + "".join(long_)


def _long_value(name: str, value: JsonValue) -> str:
    words = markup.lines(value)
    cut = words if len(words) <= _MOST_VALUE_CHARS else words[:_MOST_VALUE_CHARS] + "\n…"
    return f'<h3>{text(name)}</h3><pre tabindex="0">{text(cut)}</pre>'


def _subjects(run: RunFacts, data: ReportData) -> list[Subject]:
    """Return the images to show: a single band is grey in scenes, coloured in outputs."""
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


def _stages_table(run: RunFacts, kinds: Mapping[str, str]) -> str:
    rows = [
        [
            text(name),
            text(kinds.get(name, "")),
            f"{text(stage.process)} {text(stage.version)}",
            "<br>".join(code(where) for where in stage.where),
            markup.count(stage.calls),
            f"{stage.seconds:.2f}",
            f"{stage.cpu_seconds:.2f}",
        ]
        for name, stage in run.stages.items()
    ]
    head = ("Stage", "Kind", "Process", "Ran at", "Calls", "Seconds", "CPU seconds")
    return table("Stages: summed over all workers", head, rows, numeric=3) if rows else ""


def _phases_table(run: RunFacts) -> str:
    rows = [
        [
            str(number),
            text(phase.kind),
            text(" → ".join(dict.fromkeys((*phase.stages, *phase.reduces)))),
            f"{phase.tile[0]} × {phase.tile[1]}" if phase.tile and phase.chunks else "–",
            markup.count(phase.chunks) if phase.chunks else "–",
            "not run" if phase.seconds is None else f"{phase.seconds:.2f}",
        ]
        for number, phase in enumerate(run.phases, start=1)
    ]
    head = ("Phase", "Kind", "Stages", "Tile, px", "Chunks", "Seconds")
    return table("Phases: stages that ran together", head, rows, numeric=3) if rows else ""


def _holes_table(holes: Sequence[HoleFacts], total: int) -> str:
    rows = [[text(hole.place), text(hole.stage), text(hole.error)] for hole in holes[:_MOST_HOLES]]
    if not rows:
        return ""
    rest = total - len(rows)
    more = (
        f"<p>… and {markup.count(rest)} more in {_link('holes.geojson')}.</p>" if rest > 0 else ""
    )
    head = ("Column, row, width, height", "Stage", "Reason")
    return table("Holes: tiles that could not be computed", head, rows) + more


def _inputs_table(run: RunFacts) -> str:
    rows = [[text(name), _input(value)] for name, value in run.inputs.items()]
    return table("Inputs", ("Input", "Value"), rows) if rows else ""


def _input(value: JsonValue) -> str:
    if isinstance(value, dict) and isinstance(href := value.get("href"), str):
        return code(href)
    words = json.dumps(value, ensure_ascii=False)
    return code(words if len(words) <= _MOST_INPUT_CHARS else words[:_MOST_INPUT_CHARS] + " …")


def _outputs_table(outputs: Mapping[str, OutputFacts]) -> str:
    """Return the table of files with their checksums; vectors also have a count of features."""
    has_vectors = any(output.features is not None for output in outputs.values())
    rows = [
        [
            text(name),
            _link(output.path),
            f'<code class="sum">{text(output.sha256)}</code>',
            *([_or_dash(output.features, markup.count)] if has_vectors else []),
            _or_dash(output.bytes, markup.size),
        ]
        for name, output in outputs.items()
    ]
    head = ("Output", "File", "SHA-256", *(["Features"] if has_vectors else []), "Size")
    return table("Outputs", head, rows, numeric=1 + has_vectors) if rows else ""


def _or_dash(amount: int | None, words: Callable[[int], str]) -> str:
    return "–" if amount is None else words(amount)


def _link(path: str) -> str:
    """Return a link to a file beside the report."""
    # `./` first: without it, a name such as `javascript:x` or `//host` would be a URL of its own.
    return f'<a href="./{text(quote(path))}">{text(path)}</a>'


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
