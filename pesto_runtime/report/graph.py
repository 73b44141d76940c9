"""Lay out a pipeline as a graph of boxes and wires, from left to right; it draws nothing.

Boxes are in layers by longest path. A wire that crosses a layer has a lane of its own in it, so it
does not pass behind a box. Layers are ordered by the mean of their neighbours (Sugiyama's method).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from pesto_runtime.contract import parse_binding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pesto_runtime.contract import Pipeline
    from pesto_runtime.report.facts import RunFacts

_SWEEPS = 8


@dataclass(frozen=True)
class Wire:
    """A wire from an output port of one box to an input port of another, by their keys."""

    source: str
    source_port: str
    target: str
    target_port: str


@dataclass(frozen=True)
class Box:
    """A named box: an input, a stage, an output, or a lane of a wire.

    Attributes:
        key: Unique in the graph.
        kind: `input`, `output`, `lane`, or the kind of a stage: `map`, `reduce`, `whole`, `call`.
        title: Its name.
        lines: Text below the name.
    """

    key: str
    kind: str
    title: str
    lines: tuple[str, ...] = ()


@dataclass
class Graph:
    """Boxes in layers, ordered top down, and wires between neighbouring layers.

    Attributes:
        boxes: By key, lanes included.
        layers: Keys of boxes, leftmost layer first.
        wires: The bindings of the pipeline.
        routes: For each wire, the keys of its boxes and lanes, both ends included.
    """

    boxes: dict[str, Box]
    layers: list[list[str]]
    wires: list[Wire]
    routes: list[list[str]] = field(default_factory=list)


def kinds_of(pipeline: Pipeline, facts: RunFacts) -> dict[str, str]:
    """Stage -> `map`, `reduce`, `whole` or `call`.

    If a result does not name its reduces, they are recognised: in a phase of tiles, a stage that
    produces a value is a reduce.
    """
    kinds = {stage: phase.kind for phase in facts.phases for stage in phase.stages}
    called = [stage for stage in pipeline.stages if kinds.get(stage.id) == "call"]
    values = [b for name, b in pipeline.outputs.items() if _is_value(facts, name)]
    values += [b for stage in called for b in stage.inputs.values() if isinstance(b, str)]
    owners = {found.owner for each in values if (found := parse_binding(each))}
    owners |= {stage for phase in facts.phases for stage in phase.reduces}
    return {
        stage.id: "reduce"
        if stage.id in owners and kinds.get(stage.id, "map") == "map"
        else kinds.get(stage.id, "map")
        for stage in pipeline.stages
    }


def _is_value(facts: RunFacts, output: str) -> bool:
    return output in facts.outputs and facts.outputs[output].is_value


def graph_of(pipeline: Pipeline, boxes: Mapping[str, Box]) -> Graph:
    """Lay out a pipeline.

    Args:
        pipeline: The pipeline of the run.
        boxes: Its inputs as `in:NAME`, stages as `stage:ID` and outputs as `out:NAME`.
    """
    wires = [w for w in _wires_of(pipeline) if w.source in boxes and w.target in boxes]
    places = _layer_numbers(boxes, wires)
    depth = max(places.values(), default=0)
    graph = Graph(dict(boxes), [[] for _ in range(depth + 1)], wires)
    for key, layer in places.items():
        graph.layers[layer].append(key)
    for number, wire in enumerate(wires):
        graph.routes.append(_route(graph, places, wire, number))
    _untangle(graph)
    return graph


def _wires_of(pipeline: Pipeline) -> Iterable[Wire]:
    stages = {stage.id for stage in pipeline.stages}
    for stage in pipeline.stages:
        for port, binding in stage.inputs.items():
            if (found := parse_binding(binding)) is None:
                continue
            if found.is_input:
                yield Wire(f"in:{found.port}", "", f"stage:{stage.id}", port)
            elif found.owner in stages:
                yield Wire(f"stage:{found.owner}", found.port, f"stage:{stage.id}", port)
    for name, binding in pipeline.outputs.items():
        if (found := parse_binding(binding)) is None:
            continue
        source = f"in:{found.port}" if found.is_input else f"stage:{found.owner}"
        yield Wire(source, "" if found.is_input else found.port, f"out:{name}", "")


def _layer_numbers(boxes: Mapping[str, Box], wires: Sequence[Wire]) -> dict[str, int]:
    """Number layers by the longest path from the inputs; all outputs are in the last layer."""
    places = {key: 0 if box.kind == "input" else 1 for key, box in boxes.items()}
    for _ in boxes:  # a path has fewer steps than there are boxes, so this always ends
        late = [w for w in wires if places[w.target] <= places[w.source]]
        for wire in late:
            places[wire.target] = places[wire.source] + 1
        if not late:
            break
    if not any(box.kind == "input" for box in boxes.values()):
        places = {key: place - 1 for key, place in places.items()}
    last = max((places[key] for key, box in boxes.items() if box.kind == "output"), default=0)
    return {key: last if boxes[key].kind == "output" else place for key, place in places.items()}


def _route(graph: Graph, places: Mapping[str, int], wire: Wire, number: int) -> list[str]:
    """Return the boxes of a wire, with a new lane in every layer between its ends."""
    route = [wire.source]
    for layer in range(places[wire.source] + 1, places[wire.target]):
        key = f"lane:{number}:{layer}"
        graph.boxes[key] = Box(key, "lane", "")
        graph.layers[layer].append(key)
        route.append(key)
    return [*route, wire.target]


def _untangle(graph: Graph) -> None:
    """Order layers by the mean rank of neighbours, in both directions, for few crossings."""
    before, after = neighbours(graph)
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        near = before if forth else after
        for layer in graph.layers if forth else reversed(graph.layers):
            ranks = {key: rank for keys in graph.layers for rank, key in enumerate(keys)}
            means = {
                key: sum(ranks[other] for other in near[key]) / len(near[key])
                if near[key]
                else ranks[key]
                for key in layer
            }
            layer.sort(key=means.__getitem__)


def neighbours(graph: Graph) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return for every box its neighbours in the previous layer, and those in the next."""
    before: dict[str, list[str]] = {key: [] for key in graph.boxes}
    after: dict[str, list[str]] = {key: [] for key in graph.boxes}
    for route in graph.routes:
        for source, target in pairwise(route):
            after[source].append(target)
            before[target].append(source)
    return before, after
