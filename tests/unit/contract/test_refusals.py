"""A description that makes no sense is refused with every wrong field at once."""

import pytest
from pydantic import JsonValue

from pesto_runtime.contract import Description
from pesto_runtime.errors import InvalidContract

Document = dict[str, JsonValue]


def minimal(**keys: JsonValue) -> Document:
    document: Document = {"name": "p", "version": "1", "input": {}, "output": {}}
    return document | keys


def with_port(raster: JsonValue, name: str = "scene") -> Document:
    return minimal(input={"properties": {name: {"x-raster": raster}}})


def faults(document: object) -> dict[str, str]:
    with pytest.raises(InvalidContract) as caught:
        Description.parse(document)
    return {field.pointer: field.detail for field in caught.value.fields}


def test_every_wrong_field_is_told_at_once() -> None:
    """Known keys first; each by its pointer."""
    found = faults({"name": "", "version": 3, "input": [], "x-reduce": {"n": "mean"}})
    assert set(found) == {"/name", "/version", "/input", "/output", "/x-reduce/n"}


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_no_object_is_no_description(document: object) -> None:
    """Nothing to point into: the whole is named."""
    with pytest.raises(InvalidContract, match="a description is a JSON object, not"):
        Description.parse(document)


@pytest.mark.parametrize(
    ("raster", "field"),
    [
        ({"margin": -1}, "margin"), ({"margin": 2.5}, "margin"), ({"margin": True}, "margin"),
        ({"margin": {"up": 1}}, "margin"), ({"margin": {"top": -1}}, "margin"),
        ({"bands": 0}, "bands"), ({"bands": []}, "bands"), ({"bands": ["a", "a"]}, "bands"),
        ({"bands": "red"}, "bands"), ({"bands": True}, "bands"), ({"bands": [1]}, "bands/0"),
        ({"dtype": "uint24"}, "dtype"), ({"dtype": ["uint8", "f4"]}, "dtype"),
        ({"dtype": 8}, "dtype"), ({"nodata": "null"}, "nodata"), ({"nodata": True}, "nodata"),
        ({"scale": 0}, "scale"), ({"scale": "1/0"}, "scale"), ({"scale": [1]}, "scale"),
        ({"scale": 1e-9}, "scale"), ({"scale": True}, "scale"), ({"align": 0}, "align"),
        ({"edge": "wrap"}, "edge"), ({"exactness": "close"}, "exactness"),
        ({"exactness": {"rtol": -1}}, "exactness/rtol"),
        ({"exactness": {"tol": 1}}, "exactness/tol"),
        ({"tile": {"biggest": 3}}, "tile/biggest"), ({"tile": {"min": 9, "max": 3}}, "tile"),
        ({"tile": {"max": 256, "preferred": 512}}, "tile"), ({"memory": {"fixed": -1}},
         "memory/fixed"), ({"capabilities": 3}, "capabilities"),
    ],
)  # fmt: skip
def test_a_raster_contract_that_makes_no_sense_is_refused(raster: Document, field: str) -> None:
    """The pointer leads to the field in the description, and to nothing of the parser's."""
    assert list(faults(with_port(raster))) == [f"/input/properties/scene/x-raster/{field}"]


def test_all_faults_of_all_ports_are_told() -> None:
    """Four in one port, one in an output, one name with a slash in it."""
    document = with_port({"margin": -1, "dtype": "u1", "align": 0, "bands": []}, name="a/b")
    document["output"] = {"properties": {"o": {"x-raster": {"scale": 0}}, "p": 3}}
    where = "/input/properties/a~1b/x-raster"
    assert set(faults(document)) == {
        f"{where}/margin", f"{where}/dtype", f"{where}/align", f"{where}/bands",
        "/output/properties/o/x-raster/scale", "/output/properties/p",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "pointer"),
    [
        ({"tileable": "map"}, "/tileable"),
        ({"tileable": "reduce", "x-reduce": {"n": "sum"}}, "/tileable"),
        ({"x-reduce": {"n": "sum"}}, "/x-reduce"),
        ({"tileable": "whole", "x-reduce": {"n": "sum"}}, "/x-reduce"),
        ({"tileable": "reduce", "x-reduce": {"output": "sum"}}, "/x-reduce/output"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(keys: Document, pointer: str) -> None:
    """A reduce folds something, and both map and reduce read an image."""
    assert pointer in faults(minimal(**keys))
