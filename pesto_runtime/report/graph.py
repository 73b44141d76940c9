"""A pipeline as a graph of boxes and wires, laid out from left to right. Numbers only, no drawing.

Layers by longest path; wires that pass a layer get a lane of their own in it, so that none runs
behind a box.
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
    """From an output port of one box to an input port of another; keys of boxes."""

    source: str
    source_port: str
    target: str
    target_port: str


@dataclass(frozen=True)
class Box:
    """Something with a name: an input, a stage, an output, or a lane that a wire passes.

    Attributes:
        key: Unique in the graph.
        kind: `input`, `output`, `lane`, or of a stage `map`, `reduce`, `whole` or `call`.
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
        wires: Each as the pipeline has it.
        routes: For each wire, the keys that it passes, both ends included.
    """

    boxes: dict[str, Box]
    layers: list[list[str]]
    wires: list[Wire]
    routes: list[list[str]] = field(default_factory=list)


def kinds_of(pipeline: Pipeline, facts: RunFacts) -> dict[str, str]:
    """Stage -> `map`, `reduce`, `whole` or `call`.

    A result that does not name its reduces gives them away: within a phase of tiles, what makes a
    value is a reduce.
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
    """Lay a pipeline out.

    Args:
        pipeline: That was run.
        boxes: Its inputs as `in:NAME`, stages as `stage:ID` and outputs as `out:NAME`.
    """
    wires = [w for w in _graph_wires(pipeline) if w.source in boxes and w.target in boxes]
    places = _layer_numbers(boxes, wires)
    depth = max(places.values(), default=0)
    graph = Graph(dict(boxes), [[] for _ in range(depth + 1)], wires)
    for key, layer in places.items():
        graph.layers[layer].append(key)
    for number, wire in enumerate(wires):
        graph.routes.append(_route(graph, places, wire, number))
    _untangle(graph)
    return graph


def _graph_wires(pipeline: Pipeline) -> Iterable[Wire]:
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
    """Longest path from the inputs; outputs share the last layer."""
    places = {key: 0 if box.kind == "input" else 1 for key, box in boxes.items()}
    for _ in boxes:  # as many rounds as a path can have steps
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
    """The boxes that a wire passes, with a new lane in every layer between its ends."""
    route = [wire.source]
    for layer in range(places[wire.source] + 1, places[wire.target]):
        key = f"lane:{number}:{layer}"
        graph.boxes[key] = Box(key, "lane", "")
        graph.layers[layer].append(key)
        route.append(key)
    return [*route, wire.target]


def _untangle(graph: Graph) -> None:
    """Order every layer by the mean place of its neighbours, to and fro: fewer wires cross."""
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
    """For every box, what its wires come from, and what they go to, one layer away."""
    before: dict[str, list[str]] = {key: [] for key in graph.boxes}
    after: dict[str, list[str]] = {key: [] for key in graph.boxes}
    for route in graph.routes:
        for source, target in pairwise(route):
            after[source].append(target)
            before[target].append(source)
    return before, after
