"""Draw a pipeline as SVG: inputs at the left, outputs at the right, names of ports at the wires."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline, literal, parse_binding
from pesto_runtime.report import markup
from pesto_runtime.report.graph import Box, Graph, Wire, graph_of, kinds_of, neighbours
from pesto_runtime.report.markup import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Stage
    from pesto_runtime.report.facts import RunFacts

_LETTER, _SMALL_LETTER = 9.4, 6.9
"""Widths of a letter of 15 and 12 px, with a reserve, because fonts differ between machines."""

_LINE, _TITLE, _PAD, _PORT, _LANE, _GAP = 17, 22, 14, 22, 24, 26
_LONGEST = 26
_SHORT = 16
_ROUNDS = 12


@dataclass(frozen=True)
class _Placed:
    """A box with its position; x is its left edge, y its middle."""

    box: Box
    x: float
    y: float
    width: float
    height: float

    def port(self, place: int, of: int) -> float:
        """Return the y of a port, one of several on a side."""
        return self.y + (place - (of - 1) / 2) * _PORT


def pipeline_svg(document: Mapping[str, JsonValue], facts: RunFacts) -> str:
    """Draw a pipeline.

    Args:
        document: The pipeline's JSON.
        facts: The facts of the run.

    Raises:
        InvalidPipeline: the document is not a pipeline.
    """
    pipeline = Pipeline.parse(document)
    graph = graph_of(pipeline, _boxes(pipeline, facts))
    placed = _place(graph)
    right = max(each.x + each.width for each in placed.values()) + 2
    bottom = max(each.y + each.height / 2 for each in placed.values()) + 2
    drawn = "".join(_box(each) for each in placed.values() if each.box.kind != "lane")
    label = "Pipeline, left to right: " + "; ".join(
        f"{_name(graph, wire.source)} to {_name(graph, wire.target)}" for wire in graph.wires
    )
    return (
        f"{_steps(pipeline, facts)}"
        '<div class="wide drawn" tabindex="0" role="region" aria-label="The pipeline">'
        f'<svg class="pipeline" role="img" aria-label="{text(label)}" '
        f'viewBox="0 0 {right:.0f} {bottom:.0f}" style="--width:{right:.0f}px">'
        f"{_wires(graph, placed)}{drawn}</svg></div>"
    )


def _steps(pipeline: Pipeline, facts: RunFacts) -> str:
    """Return the stages as a list, which small screens show in place of the drawing."""
    kinds = kinds_of(pipeline, facts)
    made: dict[str, list[str]] = {}
    for name, binding in pipeline.outputs.items():
        if found := parse_binding(binding):
            made.setdefault(found.owner, []).append(name)
    items = "".join(
        f"<li><b>{text(stage.id)}</b> <span>{text(kinds[stage.id])} · "
        f"{text(_stage_lines(stage, facts)[0])}</span>"
        + "".join(f"<span>{text(_bound(port, b))}</span>" for port, b in stage.inputs.items())
        + "".join(f"<span>→ <b>{text(name)}</b></span>" for name in made.get(stage.id, ()))
        + "</li>"
        for stage in pipeline.stages
    )
    return f'<ol class="steps-list" aria-label="The stages">{items}</ol>'


def _bound(port: str, binding: JsonValue) -> str:
    found = parse_binding(binding)
    if found is None:
        return f"{port} = {markup.value(literal(binding))}"
    return f"{port} ← {found.port if found.is_input else f'{found.owner}.{found.port}'}"


def _name(graph: Graph, key: str) -> str:
    box = graph.boxes[key]
    return f"{box.kind} {box.title}"


def _boxes(pipeline: Pipeline, facts: RunFacts) -> dict[str, Box]:
    kinds = kinds_of(pipeline, facts)
    boxes = {
        f"in:{name}": Box(f"in:{name}", "input", name, (kind,))
        for name, kind in pipeline.inputs.items()
    }
    for stage in pipeline.stages:
        key = f"stage:{stage.id}"
        boxes[key] = Box(key, kinds[stage.id], stage.id, _stage_lines(stage, facts))
    for name in pipeline.outputs:
        boxes[f"out:{name}"] = Box(f"out:{name}", "output", name, (_output_line(name, facts),))
    return boxes


def _stage_lines(stage: Stage, facts: RunFacts) -> tuple[str, ...]:
    known = facts.stages.get(stage.id)
    lines = [f"{stage.process} {known.version}" if known else stage.process]
    for port, binding in stage.inputs.items():
        if parse_binding(binding) is None:
            lines.append(f"{port} = {markup.value(literal(binding))}")
    return tuple(lines)


def _output_line(name: str, facts: RunFacts) -> str:
    if name not in facts.outputs:
        return "skipped"
    output = facts.outputs[name]
    words = markup.value(output.value) if output.is_value else output.path
    return words if len(words) <= _SHORT else output.path


def _place(graph: Graph) -> dict[str, _Placed]:
    """Position every box: columns as wide as their boxes, rows near their neighbours."""
    before, after = neighbours(graph)
    heights = {
        key: _height(box, max(len(before[key]), len(after[key])))
        for key, box in graph.boxes.items()
    }
    middles = _middles(graph, heights)
    top = min(middles[key] - heights[key] / 2 for key in graph.boxes) - 2
    placed, x = {}, 2.0
    for number, layer in enumerate(graph.layers):
        width = max((_width(graph.boxes[key]) for key in layer), default=0.0)
        for key in layer:
            box = graph.boxes[key]
            placed[key] = _Placed(box, x, middles[key] - top, width, heights[key])
        x += width + _gap(graph, number)
    return placed


def _width(box: Box) -> float:
    letters = [_LETTER * min(len(box.title), _LONGEST)]
    letters[0] += 0 if box.kind in ("input", "output") else 50  # room for the kind, at its right
    letters += [_SMALL_LETTER * min(len(line), _LONGEST) for line in box.lines]
    return 0.0 if box.kind == "lane" else max(letters) + 2 * _PAD


def _height(box: Box, wires: int) -> float:
    if box.kind == "lane":
        return _LANE
    return max(2 * 10 + _TITLE + _LINE * len(box.lines), _PORT * wires)


def _gap(graph: Graph, layer: int) -> float:
    """Return the space right of a layer, for the names at both ends of its wires."""
    left, right = 0.0, 0.0
    for wire, route in zip(graph.wires, graph.routes, strict=True):
        leaving, arriving = _port_names(wire)
        if route[0] in graph.layers[layer]:
            left = max(left, _stub(leaving))
        if layer + 1 < len(graph.layers) and route[-1] in graph.layers[layer + 1]:
            right = max(right, _stub(arriving))
    return 44 + left + right


def _middles(graph: Graph, heights: Mapping[str, float]) -> dict[str, float]:
    """Return the y of every box: near the mean of its neighbours, in order, without overlaps."""
    before, after = neighbours(graph)
    middles: dict[str, float] = {}
    for layer in graph.layers:
        middles |= _stacked(layer, heights, [0.0] * len(layer))
    for round_ in range(_ROUNDS):
        forth = round_ % 2 == 0
        near = before if forth else after
        for layer in graph.layers if forth else reversed(graph.layers):
            targets = [
                sum(middles[other] for other in near[key]) / len(near[key])
                if near[key]
                else middles[key]
                for key in layer
            ]
            middles |= _stacked(layer, heights, targets)
    return middles


def _stacked(
    layer: Sequence[str], heights: Mapping[str, float], targets: Sequence[float]
) -> dict[str, float]:
    """Return the middles of boxes in their order, near their targets, without overlaps."""
    placed: dict[str, float] = {}
    floor = float("-inf")
    for key, target in zip(layer, targets, strict=True):
        placed[key] = max(target, floor + heights[key] / 2)
        floor = placed[key] + heights[key] / 2 + _GAP
    # Boxes were only moved down, to avoid overlaps: moving all of them up by the mean is balanced.
    off = sum(placed[key] - target for key, target in zip(layer, targets, strict=True))
    shift = off / len(layer) if layer else 0.0
    return {key: middle - shift for key, middle in placed.items()}


def _box(placed: _Placed) -> str:
    box = placed.box
    is_stage = box.kind not in ("input", "output")
    frame = _rect(placed, 0, 6 if is_stage else 22)
    if box.kind == "reduce":
        frame += _rect(placed, 4, 3)
    left, right = placed.x + _PAD, placed.x + placed.width - _PAD
    first = placed.y - (_TITLE + _LINE * len(box.lines)) / 2 + 16
    words = _words("title", left, first, box.title)
    if is_stage:
        words += _words("kind", right, first, box.kind)
    for number, line in enumerate(box.lines, start=1):
        words += _words("line", left, first + 2 + _LINE * number, line)
    return f'<g class="box {box.kind}">{frame}{words}</g>'


def _rect(placed: _Placed, inset: float, radius: float) -> str:
    return (
        f'<rect x="{placed.x + inset:.1f}" y="{placed.y - placed.height / 2 + inset:.1f}" '
        f'width="{placed.width - 2 * inset:.1f}" height="{placed.height - 2 * inset:.1f}" '
        f'rx="{radius}"/>'
    )


def _words(role: str, x: float, y: float, words: str) -> str:
    if not words:
        return ""
    short = words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"
    whole = f"<title>{text(words)}</title>" if short != words else ""
    return f'<text class="{role}" x="{x:.1f}" y="{y:.1f}">{text(short)}{whole}</text>'


def _wires(graph: Graph, placed: Mapping[str, _Placed]) -> str:
    leaving, arriving = _ports(graph, placed)
    drawn: list[str] = []
    named: set[tuple[str, str]] = set()
    for number, (wire, route) in enumerate(zip(graph.wires, graph.routes, strict=True)):
        source, target = placed[route[0]], placed[route[-1]]
        start = (source.x + source.width, leaving[number])
        end = (target.x - 7, arriving[number])
        from_, to = _port_names(wire)
        bends = [(start[0] + _stub(from_), start[1]), *_lanes(route, placed)]
        curve = _curve([*bends, (end[0] - _stub(to), end[1])])
        path = f"M{start[0]:.1f} {start[1]:.1f}{curve}H{end[0]:.1f}"
        head = f'<path class="head" d="M{end[0] - 1:.1f} {end[1] - 4:.1f}l8 4l-8 4z"/>'
        names = _words("to", end[0] - 5, end[1] - 6, to)
        if (wire.source, from_) not in named:
            named.add((wire.source, from_))
            names += _words("from", start[0] + 7, start[1] - 6, from_)
        drawn.append(f'<g class="wire"><path d="{path}"/>{head}{names}</g>')
    return "".join(drawn)


def _port_names(wire: Wire) -> tuple[str, str]:
    """Return the names at both ends, without the first if they are equal."""
    same = wire.source_port == wire.target_port
    return ("" if same else wire.source_port, wire.target_port)


def _stub(name: str) -> float:
    """Return the length of the straight part of a wire, below the name of its port."""
    return 4 + _SMALL_LETTER * min(len(name), _LONGEST) if name else 0.0


def _lanes(route: Sequence[str], placed: Mapping[str, _Placed]) -> list[tuple[float, float]]:
    points = []
    for key in route[1:-1]:
        lane = placed[key]
        points += [(lane.x, lane.y), (lane.x + lane.width, lane.y)]
    return points


def _curve(points: Sequence[tuple[float, float]]) -> str:
    x, y = points[0]
    path = f"H{x:.1f}"
    for to_x, to_y in points[1:]:
        middle = (x + to_x) / 2
        path += f"C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
        x, y = to_x, to_y
    return path


def _ports(
    graph: Graph, placed: Mapping[str, _Placed]
) -> tuple[dict[int, float], dict[int, float]]:
    """Return the y at which each wire leaves and arrives, ordered by the y of its other end."""
    leaving: dict[int, float] = {}
    arriving: dict[int, float] = {}
    numbers = range(len(graph.wires))
    for key, box in placed.items():
        out = [n for n in numbers if graph.routes[n][0] == key]
        into = [n for n in numbers if graph.routes[n][-1] == key]
        ports = sorted(
            {graph.wires[n].source_port for n in out},
            key=lambda port, out=out: min(  # type: ignore[misc]  # a default binds the loop's list
                placed[graph.routes[n][1]].y for n in out if graph.wires[n].source_port == port
            ),
        )
        for n in out:
            leaving[n] = box.port(ports.index(graph.wires[n].source_port), len(ports))
        for place, n in enumerate(sorted(into, key=lambda n: placed[graph.routes[n][-2]].y)):
            arriving[n] = box.port(place, len(into))
    return leaving, arriving
