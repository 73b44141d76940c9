"""Outputs are held against the contract: what is missing, dtype, bands, and a map's shape."""

import numpy as np
import pytest
from pydantic import JsonValue

from pesto_runtime.contract import Description
from pesto_runtime.errors import ContractBroken
from pesto_runtime.processor import check_outputs
from pesto_runtime.processor.data_types import reference
from pesto_runtime.processor.description_builder import object_schema

SCENE = np.zeros((2, 30, 41), np.uint16)


def described(tileable: str = "map", **raster: JsonValue) -> Description:
    ports: dict[str, JsonValue] = {"scene": reference("Image") | {"x-raster": {"margin": 1}}}
    declared: dict[str, JsonValue] = {"dtype": "uint8", "bands": 1, **raster}
    mask = reference("Image") | {"x-raster": declared}
    outputs: dict[str, JsonValue] = {
        "mask": mask,
        "crops": reference("Images"),
        "note": {"type": "string"},
    }
    return Description.parse({
        "name": "p", "version": "1", "tileable": tileable,
        "input": object_schema(ports, required=["scene"]),
        "output": object_schema(outputs, required=["mask"]),
    })  # fmt: skip


def checked(mask: object, *, tileable: str = "map", **raster: JsonValue) -> None:
    check_outputs(described(tileable, **raster), {"scene": SCENE}, {"mask": mask})


def test_outputs_within_the_contract_pass():
    """The control; an output that nobody declared and an absent optional one are no error."""
    mask = np.zeros((1, 30, 41), np.uint8)
    check_outputs(described(), {"scene": SCENE}, {"mask": mask, "more": 1, "note": None})
    check_outputs(described(), {"scene": SCENE}, {"mask": mask, "crops": [mask[:, :2]]})


@pytest.mark.parametrize(
    ("mask", "message"),
    [(np.zeros((1, 30, 41), np.int16), "output 'mask' must be uint8, got int16"),
     (np.zeros((2, 30, 41), np.uint8), "output 'mask' must have 1 bands, got 2"),
     (np.zeros((1, 28, 39), np.uint8), "30 rows and 41 columns, margin included, got 28 and 39"),
     (np.zeros((30, 41), np.uint8), r"\(band, row, col\), got shape \[30, 41\]"),
     ("text", r"\(band, row, col\), got str"), (None, "output 'mask' is missing")],
)  # fmt: skip
def test_an_output_that_breaks_the_contract_is_named_with_expected_and_got(mask, message):
    """Port, expectation and finding, in one line."""
    with pytest.raises(ContractBroken, match=f"p: .*{message}"):
        checked(mask)


def test_every_broken_output_is_told_at_once():
    """Pointers lead to each."""
    outputs = {"mask": np.zeros((2, 1, 1)), "crops": [1]}
    with pytest.raises(ContractBroken) as broken:
        check_outputs(described(), {"scene": SCENE}, outputs)
    assert [each.pointer for each in broken.value.fields] == ["/mask", "/mask", "/mask", "/crops/0"]


@pytest.mark.parametrize(
    ("scale", "shape"),
    [(2, (60, 82)), ("1/4", (7, 10)), (["1/2", 3], (90, 20)), ("1/10", (3, 4))],
)
def test_a_scaled_map_answers_the_scaled_window(scale, shape):
    """Output pixels per input pixel, x then y; an incomplete one at the edge is dropped."""
    checked(np.zeros((1, *shape), np.uint8), scale=scale)
    with pytest.raises(ContractBroken, match=f"{shape[0]} rows and {shape[1]} columns"):
        checked(np.zeros((1, 30, 41), np.uint8), scale=scale)


def test_a_whole_process_may_answer_any_shape():
    """Only a map promises the window."""
    checked(np.zeros((1, 3, 4), np.uint8), tileable="whole")
