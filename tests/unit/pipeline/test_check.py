"""A check tells everything that is wrong with a pipeline, at once, each with a way out."""

import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.pipeline import JsonType, RasterType
from tests.unit.pipeline.building import (
    checked,
    pipeline,
    scene,
    the_error,
)

GOOD = pipeline(
    {
        "smooth": ("smooth", {"x": "$inputs.scene"}),
        "mask": ("mask", {"x": "$smooth.y", "limit": 0.5}),
        "cover": ("cover", {"mask": "$mask.mask"}),
        "stretch": ("stretch", {"x": "$inputs.scene", "gain": "$cover.fraction"}),
        "verdict": ("verdict", {"fraction": "$cover.fraction"}),
    },
    {"mask": "$mask.mask", "cover": "$cover.fraction", "word": "$verdict.word",
     "bright": "$stretch.y"},
)  # fmt: skip
SMOOTHED = ("smooth", {"x": "$inputs.scene"})


def test_a_faultless_pipeline_has_no_error() -> None:
    """Negative control: with scenes and parameters known, and without."""
    assert checked(GOOD).errors == ()
    facts = checked(GOOD, scenes={"scene": scene()}, parameters={})
    assert facts.errors == facts.warnings == ()
    assert [stage.id for stage in facts.stages] == ["smooth", "mask", "cover", "stretch", "verdict"]
    facts.require("made")


def test_values_are_typed_along_the_pipeline() -> None:
    """Bands and dtype as the contract says; what it leaves open as the first image has it."""
    types = checked(GOOD, scenes={"scene": scene()}).types
    assert types["$smooth.y"] == RasterType(
        ("red", "nir"), ("uint16",), scene="scene", facts=(1, 2)
    )
    assert types["$mask.mask"] == RasterType(("mask",), ("uint8",), 255, scene="scene")
    assert types["$stretch.y"] == RasterType(("red", "nir"), ("float32",), scene="scene")
    assert types["$mask.seen"] == JsonType({"type": "integer"}, per_tile=True)
    assert types["$cover.fraction"] == JsonType({"type": "number"})


@pytest.mark.parametrize(
    ("stages", "outputs", "pointer", "words"),
    [
        pytest.param({"a": ("smooth", {"x": "$inputs.scen"})}, {"o": "$a.y"},
                     "/stages/0/inputs/x",
                     "$inputs.scen does not exist; did you mean $inputs.scene?",
                     id="wrong binding"),
        pytest.param({"a": ("smooth", {"x": "$a"})}, {"o": "$a.y"},
                     "/stages/0/inputs/x", "'$a' is neither $inputs.NAME nor $STAGE.OUTPUT",
                     id="no reference"),
        pytest.param({"a": SMOOTHED, "m": ("cover", {"mask": "$a.y"})}, {"o": "$m.fraction"},
                     "/stages/1/inputs/mask", "$a.y is uint16, but the port takes uint8: insert",
                     id="wrong dtype"),
        pytest.param({"a": ("mask", {"x": "$inputs.scene"}), "j": ("smoth", {})}, {"o": "$a.mask"},
                     "/stages/1/process", "no service runs 'smoth' (did you mean 'smooth'?)",
                     id="unknown process"),
        pytest.param({"a": ("smooth", {"x": "$b.y"}), "b": ("smooth", {"x": "$a.y"})},
                     {"o": "$a.y"}, "/stages/0/inputs/x", "cycle: a -> b -> a; break it",
                     id="cycle"),
        pytest.param({"a": ("smooth", {"x": "$a.y"})}, {"o": "$a.y"},
                     "/stages/0/inputs/x", "cycle: a -> a; break it", id="its own output"),
        pytest.param({"a": ("smooth", {"x": "$b.y"}), "b": SMOOTHED}, {"o": "$a.y"},
                     "/stages/0/inputs/x", "an output of a later stage; move it before 'a'",
                     id="later stage"),
        pytest.param({"a": SMOOTHED}, {"o": "$a.mask"}, "/outputs/o", "$a.mask does not exist",
                     id="output that does not exist"),
        pytest.param({"a": SMOOTHED}, {"o": "$inputs.scene"}, "/outputs/o",
                     "an output must be $STAGE.OUTPUT", id="input as output"),
        pytest.param({"a": SMOOTHED}, {"report": "$a.y"}, "/outputs/report",
                     "the name of a file that a run writes itself", id="reserved output"),
        pytest.param({"a": ("mask", {"x": "$inputs.scene", "limt": 1})}, {"o": "$a.mask"},
                     "/stages/0/inputs/limt", "no input 'limt'; did you mean 'limit'?",
                     id="unknown input port"),
        pytest.param({"a": ("smooth", {})}, {"o": "$a.y"}, "/stages/0/inputs/x",
                     "smooth requires it: bind 'x' to an image", id="missing required image"),
        pytest.param({"a": ("stretch", {"x": "$inputs.scene"})}, {"o": "$a.y"},
                     "/stages/0/inputs/gain", "bind 'gain' to a value", id="missing value"),
        pytest.param({"a": ("mask", {"x": "$inputs.scene", "limit": 2})}, {"o": "$a.mask"},
                     "/stages/0/inputs/limit", "must be at most 1, not 2",
                     id="literal out of range"),
        pytest.param({"a": ("stretch", {"x": "$inputs.scene", "gain": "$$1"})}, {"o": "$a.y"},
                     "/stages/0/inputs/gain", "must be number", id="literal of another type"),
        pytest.param({"a": ("stretch", {"x": "$inputs.scene", "gain": 1, "options": 3})},
                     {"o": "$a.y"}, "/stages/0/inputs/options", "must be object",
                     id="literal by definition"),
        pytest.param({"a": ("smooth", {"x": "scene.tif"})}, {"o": "$a.y"}, "/stages/0/inputs/x",
                     "an image port is bound to $inputs.NAME", id="literal for an image"),
        pytest.param({"a": SMOOTHED, "v": ("verdict", {"fraction": "$a.y"})}, {"o": "$v.word"},
                     "/stages/1/inputs/fraction", "$a.y is an image, but the port takes a JSON",
                     id="image for a scalar"),
        pytest.param({"c": ("segment", {"x": "$inputs.scene"}),
                      "a": ("sharpen", {"x": "$c.count"})}, {"o": "$a.y"}, "/stages/1/inputs/x",
                     "$c.count is a JSON value, but the port takes an image",
                     id="scalar for an image"),
        pytest.param({"m": ("mask", {"x": "$inputs.scene"}),
                      "v": ("verdict", {"fraction": "$m.seen"})}, {"o": "$v.word"},
                     "/stages/1/inputs/fraction", "one value per tile and not one per scene",
                     id="per-tile value bound"),
        pytest.param({"m": ("mask", {"x": "$inputs.scene"})}, {"o": "$m.seen"}, "/outputs/o",
                     "make it the output of a reduce", id="per-tile value kept"),
        pytest.param({"c": ("segment", {"x": "$inputs.scene"}),
                      "v": ("verdict", {"fraction": "$c.count"}),
                      "s": ("stretch", {"x": "$inputs.scene", "gain": "$v.word"})},
                     {"o": "$c.count"}, "/stages/2/inputs/gain", "does not fit", id="schemas"),
        pytest.param({"h": ("halve", {"x": "$inputs.scene"}),
                      "j": ("join", {"a": "$inputs.scene", "b": "$h.y"})}, {"o": "$j.y"},
                     "/stages/1/inputs", "its images have different scales", id="two scales"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_error(
    stages: dict[str, tuple[str, dict[str, object]]], outputs: dict[str, str], pointer: str,
    words: str,
) -> None:  # fmt: skip
    """Each by its pointer, with the values and the way out; no second error follows from it."""
    where, detail = the_error(checked(pipeline(stages, outputs)))
    assert where == pointer
    assert words in detail


MANY: dict[str, tuple[str, dict[str, object]]] = {
    "a": ("smoth", {"x": "$inputs.scene"}),
    "b": ("mask", {"x": "$inputs.scen", "limit": 2, "limt": 1}),
    "b2": ("stretch", {"x": "$inputs.scene"}),
    "c": ("cover", {"mask": "$b2.y"}),
    "d": ("smooth", {"x": "$e.y"}),
    "e": ("smooth", {"x": "$d.y"}),
    "c2": ("cover", {"mask": "image.tif"}),
    "d2": ("smooth", {"x": "$later.y"}),
    "later": ("smooth", {"x": "$inputs.scene"}),
    "v": ("verdict", {"fraction": "$b.seen"}),
    "e2": ("smooth", {"x": "$broken"}),
}


def test_all_errors_are_told_at_once() -> None:
    """Of one pipeline with every kind of mistake, nothing hides behind something else."""
    found = checked(
        pipeline({**MANY, "after": ("smooth", {"x": "$a.y"})},
                 {"o": "$b.nothing", "p": "$a.y", "holes": "$later.y"},
                 pins={"cover": "sha256:1", "nobody": "sha256:2"}),
        digests={"cover": "sha256:3"},
    )  # fmt: skip
    assert sorted(each.pointer for each in found.errors) == [
        "/outputs/holes",
        "/outputs/o",
        "/pins/cover",
        "/pins/nobody",
        "/stages/0/process",
        "/stages/1/inputs/limit",
        "/stages/1/inputs/limt",
        "/stages/1/inputs/x",
        "/stages/10/inputs/x",
        "/stages/2/inputs/gain",
        "/stages/3/inputs/mask",
        "/stages/4/inputs/x",
        "/stages/6/inputs/mask",
        "/stages/7/inputs/x",
        "/stages/9/inputs/fraction",
    ]
    with pytest.raises(InvalidPipeline, match="pipeline 'many': 15 errors"):
        found.require("many")


def test_a_stage_called_inputs_is_told() -> None:
    """It would hide the pipeline's inputs."""
    found = checked(pipeline({"inputs": SMOOTHED, "a": SMOOTHED}, {"o": "$a.y"}))
    assert the_error(found)[0] == "/stages/0/id"


def test_one_id_for_two_stages_is_an_error() -> None:
    """A reference could mean either; one between them is no reference to a later stage."""
    made = Pipeline.parse(
        {
            "name": "p",
            "inputs": {"scene": "image"},
            "stages": [
                {"id": "a", "process": "smooth", "inputs": {"x": "$inputs.scene"}},
                {"id": "b", "process": "smooth", "inputs": {"x": "$a.y"}},
                {"id": "a", "process": "smooth", "inputs": {"x": "$inputs.scene"}},
            ],
            "outputs": {"o": "$b.y"},
        }
    )
    pointer, detail = the_error(checked(made))
    assert (pointer, detail) == (
        "/stages/2/id",
        "'a' is the id of an earlier stage; choose another",
    )
