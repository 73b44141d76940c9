"""A mask parameter is declared on one image, and no caller has to pass it."""

from typing import Annotated

import numpy as np
import pytest

from pesto_runtime import Raster, process
from pesto_runtime.contract import Description
from pesto_runtime.errors import BadField, InvalidContract
from pesto_runtime.processor import FunctionProcessor, contract_of
from pesto_runtime.raster.validity import valid_pixels

Mask = Annotated[np.ndarray, Raster(mask=True)]
Out = Annotated[np.ndarray, Raster(bands=1, dtype="uint8")]


@process
def shown(valid: Mask, image: Annotated[np.ndarray, Raster(margin=1, nodata=3)]) -> Out:
    """The mask."""
    return valid.astype(np.uint8)


@process
def of_an_optional(
    image: Annotated[np.ndarray, Raster(margin=0)],
    more: Annotated[np.ndarray, Raster()] | None = None,
    *,
    valid: Annotated[np.ndarray, Raster(mask="more")],
) -> Out:
    """Whether there is a mask."""
    return np.full(image.shape[1:], valid is not None, np.uint8)


def called(function: object, **inputs: object) -> np.ndarray:
    contract = contract_of(function)
    assert contract is not None
    made = FunctionProcessor(contract, "build").run(inputs)["result"]
    assert isinstance(made, np.ndarray)
    return made


def test_a_mask_is_not_required_and_is_one_band_on_the_wire() -> None:
    """The image stays the first one; the schema of the inputs does not require the mask."""
    contract = contract_of(shown)
    assert contract is not None
    described = contract.description
    assert described.masks == {"valid": "image"}
    assert [port.name for port in described.data_inputs] == ["image"]
    assert described.known.input["required"] == ["image"]
    mask = described.input("valid")
    assert mask is not None
    assert mask.raster is not None
    assert mask.raster.to_json() == {"bands": 1, "dtype": "uint8", "mask": True}


def test_an_array_alone_is_valid_by_the_nodata_of_its_contract() -> None:
    """Without a file there is no other fact; a mask that is passed counts instead."""
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert called(shown, image=image)[0].tolist() == [[1, 1, 1], [0, 1, 1]]
    given = np.array([[[0, 255, 1], [7, 0, 0]]], np.uint8)
    assert called(shown, image=image, valid=given)[0].tolist() == [[0, 1, 1], [1, 0, 0]]


def test_the_mask_of_an_absent_image_is_none() -> None:
    """A process may have an optional image, and takes its mask all the same."""
    image = np.zeros((1, 2, 2), np.uint8)
    assert not called(of_an_optional, image=image).any()
    assert called(of_an_optional, image=image, more=image).all()


@pytest.mark.parametrize(
    ("dtype", "nodata", "expected"),
    [
        ("uint8", 1, [255, 0]),
        ("uint8", -9999, [255, 255]),
        ("uint8", 1.5, [255, 255]),
        ("int16", None, [255, 255]),
        ("float32", 1, [255, 0]),
        ("float32", 0.1, [255, 255]),
        ("float64", float("nan"), [255, 255]),
    ],
)
def test_nodata_that_the_dtype_cannot_have_marks_no_pixel(
    dtype: str, nodata: float | None, expected: list[int]
) -> None:
    """-9999 in uint8 must not wrap around to 241."""
    pixels = np.array([[[241, 1]]]).astype(dtype) if dtype != "int16" else np.array([[[2, 1]]])
    assert valid_pixels(pixels, nodata=nodata)[0, 0].tolist() == expected


def test_nodata_of_a_float_is_compared_in_its_dtype() -> None:
    """0.1 is another number in float32 than in float64."""
    pixels = np.array([[[0.1, 0.2]]], np.float32)
    assert valid_pixels(pixels, nodata=0.1)[0, 0].tolist() == [0, 255]


def test_a_mask_of_no_image_is_refused() -> None:
    """Also one that names itself, a value or another mask."""
    image = {"$ref": "#/definitions/Image"}
    for wrong in ("other", "valid", "number"):
        document = {
            "name": "p",
            "version": "1",
            "input": {
                "properties": {
                    "scene": image,
                    "number": {"type": "number"},
                    "valid": {**image, "x-raster": {"mask": wrong}},
                }
            },
            "output": {"properties": {}},
        }
        with pytest.raises(InvalidContract) as caught:
            Description.parse(document)
        (fault,) = caught.value.fields
        assert isinstance(fault, BadField)
        assert fault.pointer == "/input/properties/valid/x-raster/mask"
        assert "there are scene" in fault.detail


def test_a_mask_is_neither_an_output_nor_of_several_bands() -> None:
    """Each contradiction is refused where the function is declared."""
    with pytest.raises(InvalidContract, match="mask belongs to the image inputs"):

        @process
        def _made(image: np.ndarray) -> Annotated[np.ndarray, Raster(mask=True)]:
            return image

    with pytest.raises(InvalidContract, match="its default") as caught:

        @process
        def _defaulted(
            image: np.ndarray, valid: Annotated[np.ndarray, Raster(mask=True)] | None = None
        ) -> Out:
            return image

    assert "always passed" in str(caught.value)
    with pytest.raises(InvalidContract, match="one band of uint8"):

        @process
        def _banded(
            image: np.ndarray, valid: Annotated[np.ndarray, Raster(mask=True, bands=3)]
        ) -> Out:
            return image
