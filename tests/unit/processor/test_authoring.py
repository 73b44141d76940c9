"""What `@process` reads off a function: the description document, laid out as PESTO's."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Literal, TypedDict

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest
from pydantic import BaseModel, Field, JsonValue

from pesto_runtime.contract import Description
from pesto_runtime.errors import InvalidContract
from pesto_runtime.processor import Named, Raster, TileInfo, contract_of, process
from pesto_runtime.processor.description_builder import DEFINITIONS


class Colour(Enum):
    """A closed choice."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Corner:
    """A point, as a dataclass."""

    row: int
    col: int = 0


class Box(BaseModel):
    """Two points, as a model."""

    first: Corner
    last: Corner = Corner(1, 1)


class Sun(TypedDict):
    """An angle pair, as a typed dict."""

    azimuth: float
    elevation: Annotated[float, Field(ge=-90, le=90)]


class TwoImages(TypedDict):
    """Several outputs."""

    cloud: Annotated[np.ndarray, Raster(bands=["cloud"], dtype="uint8")]
    count: Annotated[int, "cloudy pixels"]


def described(function: object) -> Description:
    contract = contract_of(function)
    assert contract is not None
    return contract.description


def properties(function: object, side: str = "input") -> dict[str, dict[str, JsonValue]]:
    document = described(function).to_json()
    return document[side]["properties"]  # type: ignore[index,return-value,call-overload]  # a test


@process(version="2.1.0", margin=2)
def smooth_scene(
    scene: Annotated[np.ndarray, Raster(bands=["red", "nir"], dtype="uint16", nodata=0)],
    other: Annotated[np.ndarray, Raster(margin={"top": 1})],
    bare: np.ndarray,
    weight: Annotated[float, "of the centre", Field(ge=0)] = 0.5,
) -> Annotated[np.ndarray, Raster(name="smooth", dtype="uint16")]:
    """Smooth a scene.

    In a way that is described here.
    """
    del other, bare
    return (scene * weight).astype(np.uint16)


def test_the_document_has_exactly_the_keys_of_a_pesto_description_and_what_was_declared():
    """PESTO's nine keys and its two schemas are there; beside them only `tileable` was declared."""
    document = described(smooth_scene).to_json()
    pesto = {"title", "name", "version", "family", "description", "organization", "email",
             "resources", "asynchronous", "input", "output"}  # fmt: skip
    assert set(document) == pesto | {"tileable"}
    assert document["name"] == "smooth-scene"
    assert document["description"] == "Smooth a scene.\n\nIn a way that is described here."


def test_the_object_schemas_are_laid_out_as_pesto_lays_them_out():
    """Same keys, same six definitions, a valid draft-06 schema."""
    for side in ("input", "output"):
        schema = described(smooth_scene).to_json()[side]
        assert isinstance(schema, dict)
        assert set(schema) == {"$schema", "title", "type", "description", "definition",
                               "definitions", "properties", "required"}  # fmt: skip
        assert schema["definitions"] == DEFINITIONS
        jsonschema.Draft6Validator.check_schema(schema)


def test_x_raster_holds_only_what_was_declared():
    """No default value of the raster contract reaches the wire."""
    ports = properties(smooth_scene)
    assert ports["scene"] == {
        "$ref": "#/definitions/Image",
        "x-raster": {"bands": ["red", "nir"], "dtype": "uint16", "nodata": 0, "margin": 2},
    }
    assert properties(smooth_scene, "output")["smooth"]["x-raster"] == {"dtype": "uint16"}


def test_the_decorators_margin_is_for_image_inputs_without_their_own():
    """`other` keeps its asymmetric margin, `bare` gets the common one."""
    ports = properties(smooth_scene)
    assert ports["other"]["x-raster"] == {"margin": {"top": 1, "right": 0, "bottom": 0, "left": 0}}
    assert ports["bare"]["x-raster"] == {"margin": 2}


def test_constraints_text_and_default_reach_the_schema_of_a_parameter():
    """A pydantic constraint, a plain string and a default are said as JSON schema says them."""
    assert properties(smooth_scene)["weight"] == {
        "type": "number", "minimum": 0, "description": "of the centre", "default": 0.5,
    }  # fmt: skip
    assert described(smooth_scene).to_json()["input"]["required"] == ["scene", "other", "bare"]  # type: ignore[index,call-overload]  # a test


def test_a_decorated_function_stays_a_plain_function():
    """Calling it does what it did."""
    assert smooth_scene(np.full((2, 1, 1), 8), np.zeros(1), np.zeros(1)).tolist() == [[[4]], [[4]]]


def test_every_kind_of_json_type_becomes_a_schema_that_accepts_its_values():
    """Literal, Enum, dataclass, model, TypedDict, list, tuple, dict, Optional; bad ones refused."""

    @process
    def everything(  # noqa: PLR0913, PLR0917  # one of each kind
        mode: Literal["fast", "slow"], colour: Colour, corner: Corner, box: Box, sun: Sun,
        suns: list[Sun], pair: tuple[int, float], table: dict[str, float], flag: bool,
        maybe: int | None = None, date: str = "2015-08-04",
    ) -> int:  # fmt: skip
        return 0

    good = {
        "mode": "fast", "colour": "red", "corner": {"row": 1}, "box": {"first": {"row": 0}},
        "sun": {"azimuth": 1.5, "elevation": 10}, "suns": [{"azimuth": 0, "elevation": 0}],
        "pair": [1, 2.5], "table": {"a": 1.0}, "flag": True, "maybe": None,
    }  # fmt: skip
    schema = described(everything).to_json()["input"]
    assert isinstance(schema, dict)
    validator = jsonschema.Draft6Validator(schema)
    assert list(validator.iter_errors(good)) == []
    for name, value in {
        "mode": "medium", "colour": "green", "corner": {"col": 1}, "box": {}, "suns": [{}],
        "sun": {"azimuth": 0, "elevation": 91}, "pair": [1, 2.5, 3], "table": {"a": "b"},
        "flag": 1, "maybe": "x", "date": 3,
    }.items():  # fmt: skip
        assert list(validator.iter_errors(good | {name: value})), name


def test_lists_of_arrays_are_images_and_a_typed_dict_is_several_outputs():
    """`list[np.ndarray]` refers to Images; outputs keep their names, contracts and texts."""

    @process
    def split(scenes: list[Annotated[np.ndarray, Raster(dtype="uint8")]]) -> TwoImages:
        raise NotImplementedError

    assert properties(split)["scenes"] == {
        "$ref": "#/definitions/Images", "x-raster": {"dtype": "uint8"}
    }  # fmt: skip
    assert list(properties(split, "output")) == ["cloud", "count"]
    assert properties(split, "output")["count"]["description"] == "cloudy pixels"
    assert [port.kind for port in described(split).outputs] == ["image", "json"]


def test_one_output_is_result_unless_it_is_named():
    """`Named` names what has no Raster."""

    @process
    def plain(x: float) -> float:
        return x

    @process
    def named(x: float) -> Annotated[float, Named("fraction"), "cloudy part"]:
        return x

    assert list(properties(plain, "output")) == ["result"]
    assert properties(named, "output") == {
        "fraction": {"type": "number", "description": "cloudy part"}
    }


def test_the_dtype_of_a_numpy_hint_is_a_declaration():
    """`NDArray[np.int16]` says what `Raster(dtype="int16")` says."""

    @process
    def typed(scene: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
        raise NotImplementedError

    assert properties(typed)["scene"]["x-raster"] == {"dtype": "int16"}
    assert properties(typed, "output")["result"]["x-raster"] == {"dtype": "uint8"}


def test_optional_images_and_the_tile_are_no_required_inputs():
    """A TileInfo parameter is no port at all; an optional image is one that may be absent."""

    @process
    def tiled(
        scene: np.ndarray,
        tile: TileInfo,
        mask: Annotated[np.ndarray, Raster(bands=1)] | None = None,
    ) -> np.ndarray:
        raise NotImplementedError

    assert list(properties(tiled)) == ["scene", "mask"]
    assert [port.required for port in described(tiled).inputs] == [True, False]


@pytest.mark.parametrize(
    ("options", "tileable"),
    [({}, None), ({"margin": 0}, "map"), ({"margin": 3}, "map"), ({"tileable": "map"}, "map"),
     ({"align": 4}, None), ({"tileable": "whole"}, "whole")],
)  # fmt: skip
def test_a_margin_declares_a_map_even_of_zero(options, tileable):
    """Without a margin nothing is claimed, and the contract reads that as whole."""

    @process(**options)
    def each(scene: np.ndarray) -> np.ndarray:
        return scene

    assert described(each).to_json().get("tileable") == tileable
    assert described(each).tileable == (tileable or "whole")


def test_a_reduce_declares_its_folds():
    """`x-reduce` is on the wire; the outputs are those of `finish`."""

    def finish(partial: dict[str, int]) -> Annotated[float, Named("mean")]:
        return partial["total"] / partial["count"]

    @process(reduce={"total": "sum", "count": "sum"}, finish=finish)
    def mean(scene: np.ndarray) -> dict[str, int]:
        return {"total": int(scene.sum()), "count": scene.size}

    document = described(mean).to_json()
    assert (document["tileable"], document["x-reduce"]) == (
        "reduce", {"total": "sum", "count": "sum"}
    )  # fmt: skip
    assert list(properties(mean, "output")) == ["mean"]


def test_options_reach_the_document():
    """Everything that a catalogue shows can be said."""

    @process(name="other-name", title="A title", keywords=["a"], batched=True, releases_gil=True,
             resources={"cpu": 2}, family="f", organization="o", email="e")  # fmt: skip
    def each(x: int = 1) -> int:
        return x

    document = described(each).to_json()
    expected = {"name": "other-name", "title": "A title", "keywords": ["a"], "batched": True,
                    "releases_gil": True, "resources": {"cpu": 2}, "family": "f",
                    "organization": "o", "email": "e"}  # fmt: skip
    assert {key: document[key] for key in expected} == expected


def test_a_class_named_as_one_of_pestos_definitions_is_refused():
    """The six names are PESTO's; an author's class of that name would change the wire."""

    @dataclass
    class Polygon:
        corners: int

    def area(shape: Polygon) -> float:
        return 0.0

    with pytest.raises(InvalidContract, match=r"area.*Polygon is PESTO's own; rename the class"):
        process(area)
