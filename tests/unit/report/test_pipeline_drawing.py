"""The pipeline drawn: everything is on it, in order, and nothing on top of anything else."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.report.facts import RunFacts
from pesto_runtime.report.graph import Box, Graph, graph_of, kinds_of
from pesto_runtime.report.pipeline_drawing import pipeline_svg
from tests.unit.report.sample_run import PIPELINE, RESULT

if TYPE_CHECKING:
    from pydantic import JsonValue

BRANCHES: dict[str, JsonValue] = {
    "name": "change",
    "inputs": {"before": "image", "after": "image", "limit": "number"},
    "stages": [
        {"id": "index-before", "process": "ndvi", "inputs": {"scene": "$inputs.before"}},
        {"id": "index-after", "process": "ndvi", "inputs": {"scene": "$inputs.after"}},
        {
            "id": "difference",
            "process": "subtract",
            "inputs": {"left": "$index-after.index", "right": "$index-before.index"},
        },
        {"id": "counts", "process": "histogram", "inputs": {"image": "$difference.result"}},
        {
            "id": "flags",
            "process": "threshold",
            "inputs": {
                "image": "$difference.result",
                "above": "$counts.median",
                "scene": "$inputs.after",
                "limit": "$inputs.limit",
            },
        },
    ],
    "outputs": {
        "difference": "$difference.result",
        "flags": "$flags.flags",
        "counts": "$counts.counts",
    },
}


def laid_out(document: dict[str, JsonValue]) -> Graph:
    """The graph of a pipeline, with boxes that say nothing but their names."""
    pipeline = Pipeline.parse(document)
    boxes = [Box(f"in:{name}", "input", name) for name in pipeline.inputs]
    boxes += [Box(f"stage:{stage.id}", "map", stage.id) for stage in pipeline.stages]
    boxes += [Box(f"out:{name}", "output", name) for name in pipeline.outputs]
    return graph_of(pipeline, {box.key: box for box in boxes})


@pytest.mark.parametrize("document", [PIPELINE, BRANCHES])
def test_every_wire_runs_left_to_right_through_every_layer(
    document: dict[str, JsonValue],
) -> None:
    """A route passes one box of each layer from its source to its target, none twice."""
    graph = laid_out(document)
    layer_of = {key: number for number, keys in enumerate(graph.layers) for key in keys}
    assert len(graph.wires) == len(graph.routes) > 0
    for route in graph.routes:
        first = layer_of[route[0]]
        assert [layer_of[key] for key in route] == list(range(first, first + len(route)))
        assert len(route) > 1
    last = len(graph.layers) - 1
    assert all(layer_of[f"out:{name}"] == last for name in Pipeline.parse(document).outputs)


@pytest.mark.parametrize("document", [PIPELINE, BRANCHES])
def test_no_two_boxes_overlap(document: dict[str, JsonValue]) -> None:
    """The frames of all boxes are apart, and inside the picture."""
    drawing = pipeline_svg(document, RunFacts.model_validate({}))
    width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', drawing)[0])
    found = re.findall(r'<rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', drawing)
    frames = [tuple(map(float, frame)) for frame in found]
    assert len(frames) == len(laid_out(document).boxes) - drawing_lanes(document)
    for x, y, w, h in frames:
        assert min(x, y) >= 0
        assert x + w <= width
        assert y + h <= height
    for (x, y, w, h), (ox, oy, ow, oh) in combinations(frames, 2):
        assert x + w <= ox or ox + ow <= x or y + h <= oy or oy + oh <= y


def drawing_lanes(document: dict[str, JsonValue]) -> int:
    """How many boxes of a graph are lanes, which are not drawn."""
    return sum(box.kind == "lane" for box in laid_out(document).boxes.values())


def test_names_of_ports_are_at_the_wires() -> None:
    """Both ends of a wire are named, once each; one name where they are the same."""
    drawing = pipeline_svg(BRANCHES, RunFacts.model_validate({}))
    named = re.findall(r'<text class="(from|to)"[^>]*>([^<]*)<', drawing)
    assert named.count(("from", "result")) == 1
    assert named.count(("to", "image")) == 2
    assert {name for _, name in named} >= {"left", "right", "index", "median", "above", "scene"}


def test_a_reduce_looks_other_than_a_map() -> None:
    """What makes a value within a phase of tiles is a reduce; control: without a value, a map."""
    pipeline = Pipeline.parse(PIPELINE)
    facts = RunFacts.model_validate(RESULT)
    silent = RunFacts.model_validate({**RESULT, "outputs": {}})
    assert kinds_of(pipeline, facts) == {"mask": "map", "clean": "map", "cover": "reduce"}
    assert set(kinds_of(pipeline, silent).values()) == {"map"}
    assert '<g class="box reduce">' in pipeline_svg(PIPELINE, facts)
    assert '<g class="box reduce">' not in pipeline_svg(PIPELINE, silent)


def test_what_a_call_reads_is_made_by_a_reduce() -> None:
    """A call has no images, so the stage of a phase of tiles that feeds it makes values."""
    verdict = {"id": "verdict", "process": "verdict", "inputs": {"fraction": "$cover.fraction"}}
    pipeline = Pipeline.parse(
        {**PIPELINE, "stages": [*PIPELINE["stages"], verdict], "outputs": {"v": "$verdict.v"}}  # type: ignore[misc]  # a document of ours
    )
    phases: JsonValue = [
        {"kind": "map", "stages": ["mask", "clean", "cover"]},
        {"kind": "call", "stages": ["verdict"]},
    ]
    kinds = kinds_of(pipeline, RunFacts.model_validate({"phases": phases}))
    assert (kinds["clean"], kinds["cover"], kinds["verdict"]) == ("map", "reduce", "call")


def test_a_result_that_names_its_reduces_is_believed() -> None:
    """Also where the reduce's output was never made."""
    phases: JsonValue = [{"kind": "map", "stages": ["mask", "clean"], "reduces": ["cover"]}]
    facts = RunFacts.model_validate({**RESULT, "phases": phases, "outputs": {}})
    assert kinds_of(Pipeline.parse(PIPELINE), facts)["cover"] == "reduce"
