"""The classes of a raster: what is accepted, and what is refused before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import pytest
from numpy.typing import NDArray

from pesto_runtime import Raster, process
from pesto_runtime.contract import Description, RasterContract
from pesto_runtime.errors import InvalidContract
from pesto_runtime.processor import contract_of

if TYPE_CHECKING:
    from pydantic import JsonValue

LAND: dict[str, JsonValue] = {"value": 0, "name": "land"}
WATER: dict[str, JsonValue] = {
    "value": 1, "name": "open-water", "color_hint": "1F6fb4", "description": "Rivers and lakes",
}  # fmt: skip


def test_classes_are_part_of_the_description_as_they_were_written() -> None:
    """Only the given fields; the colour as three numbers. Control: a port without has no key."""

    @process(version="1", margin=0)
    def water(
        scene: np.ndarray,
    ) -> Annotated[np.ndarray, Raster(name="water", dtype="uint8", classes=[LAND, WATER])]:
        """Find water."""
        return scene

    found = contract_of(water)
    assert found is not None
    description = found.description
    assert Description.parse(description.to_json()).digest == description.digest
    port = description.output("water")
    assert port is not None
    assert port.raster is not None
    assert port.raster.to_json()["classes"] == [LAND, WATER]
    assert [each.colour for each in port.raster.classes or ()] == [None, (0x1F, 0x6F, 0xB4)]
    assert "classes" not in RasterContract().to_json()


@pytest.mark.parametrize(
    ("classes", "dtype", "message"),
    [
        ([], "uint8", "at least 1"),
        ([LAND, {**WATER, "value": 0}], "uint8", "the value 0 occurs 2 times"),
        ([LAND, {**WATER, "name": "land"}], "uint8", "the name 'land' occurs 2 times"),
        ([{**LAND, "value": 256}], "uint8", "uint8 does not have the value 256"),
        ([{**LAND, "value": -1}], ("int8", "uint16"), "uint16 does not have the value -1"),
        ([{**LAND, "value": 128}], "int8", "int8 does not have the value 128"),
        ([{**LAND, "value": 2**24 + 1}], "float32", "float32 does not have the value 16777217"),
        ([LAND], "complex64", "complex64 does not have the value 0"),
        ([{**LAND, "value": 0.5}], "float32", "integer"),
        ([{**LAND, "value": True}], "uint8", "integer"),
        ([{**LAND, "name": "open water"}], "uint8", "pattern"),
        ([{**WATER, "color_hint": "#1f6fb4"}], "uint8", "pattern"),
        ([{**WATER, "color": "1f6fb4"}], "uint8", "Extra inputs"),
    ],
)
def test_wrong_classes_are_refused(
    classes: list[dict[str, JsonValue]], dtype: str | tuple[str, ...], message: str
) -> None:
    """Each with the field or the value."""
    with pytest.raises(InvalidContract, match=message):
        Raster(classes=classes, dtype=dtype).contract()


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(255, "uint8"), (-128, "int8"), (2**24, "float32"), (2**53, "float64"), (-5, None)],
)
def test_the_last_value_of_each_dtype_is_accepted(value: int, dtype: str | None) -> None:
    """Control of the refusals above; without a dtype, each value is."""
    Raster(classes=[{**LAND, "value": value}], dtype=dtype).contract()


def test_the_dtype_of_a_type_hint_counts() -> None:
    """A hint with a dtype is a declared dtype."""

    def water(scene):
        """Find water."""
        return scene

    hint = Annotated[NDArray[np.uint8], Raster(name="water", classes=[{**LAND, "value": 300}])]
    water.__annotations__ |= {"scene": np.ndarray, "return": hint}
    with pytest.raises(InvalidContract, match="uint8 does not have the value 300"):
        process(version="1", margin=0)(water)
