"""Recorded calls: what the files mean, and which differences are found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Tolerance
from pesto_runtime.errors import InvalidInput
from pesto_runtime.projects.comparing import differences
from pesto_runtime.projects.recorded_cases import ImageFile, recorded_cases
from pesto_runtime.raster.codec import encode_image
from tests.support.projects import scene, write_case

if TYPE_CHECKING:
    from pathlib import Path

    from pesto_runtime.raster.image import Image


def test_a_folder_is_read_as_values_by_their_suffix(tmp_path: Path) -> None:
    """Numbers, texts, JSON, images; a folder is a list in numerical order: 2 before 10."""
    write_case(tmp_path / "test_1")
    inputs = tmp_path / "test_1" / "input"
    for name, text in (("count.int", "3"), ("flag.bool", "true"), ("area.geojson", '{"a": [1]}')):
        (inputs / name).write_text(text)
    (case,) = recorded_cases(tmp_path)
    assert case.inputs["count"] == 3
    assert case.inputs["flag"] is True
    assert case.inputs["area"] == {"a": [1]}
    assert case.outputs["word"] == "1.2.0"
    images = case.outputs["images"]
    assert isinstance(images, list)
    assert [each.path.stem for each in images] == [str(number) for number in range(12)]


def test_all_unreadable_files_are_listed_at_once(tmp_path: Path) -> None:
    """Each with its path below the folder."""
    write_case(tmp_path / "test_1")
    for name in ("a.int", "b.json", "c.bool"):
        (tmp_path / "test_1" / "input" / name).write_text("{")
    (tmp_path / "test_1" / "tolerance.json").write_text('{"mean": {"atol": -1}}')
    with pytest.raises(InvalidInput) as failed:
        recorded_cases(tmp_path)
    assert [each.pointer for each in failed.value.fields] == [
        "/test_1/input/a.int",
        "/test_1/input/b.json",
        "/test_1/input/c.bool",
        "/test_1/tolerance.json/mean/atol",
    ]


@pytest.mark.parametrize(
    ("expected", "found", "pointers"),
    [
        ([1, 2], [2, 1], ["/x/0", "/x/1"]),
        ([1, 2], [1], ["/x"]),
        ({"a": 1}, {"a": 1, "b": 2}, ["/x/b"]),
        ({"a": 1}, {}, ["/x/a"]),
        (1, True, ["/x"]),
        (1, "1", ["/x"]),
        (0.3, 0.1 + 0.2, []),
        (0.3, 0.3001, ["/x"]),
        (1_000_000, 1_000_001, ["/x"]),
        (3, 3.0, []),
    ],
)
def test_json_is_compared_in_order_and_by_type(
    expected: object, found: object, pointers: list[str]
) -> None:
    """Lists are no sets; integers are equal exactly; floats to the sixth digit."""
    assert [each.pointer for each in differences(expected, found, pointer="/x")] == pointers


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"crs": "EPSG:4326"}, "CRS"),
        ({"nodata": None}, "nodata"),
        ({"transform": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)}, "transform"),
        ({"pixels": scene().pixels.astype(np.uint8)}, "dtype"),
        ({"pixels": scene().pixels[:, :-1]}, "shape"),
        ({"pixels": scene().pixels + np.uint16(1)}, "48 of 48 pixels"),
    ],
)
def test_each_fact_of_an_image_is_compared(
    tmp_path: Path, change: dict[str, object], word: str
) -> None:
    """The recorded image itself has no difference; each changed fact has one."""
    recorded = image_file(tmp_path, scene())
    assert list(differences(recorded, scene(), pointer="/x")) == []
    (found,) = differences(recorded, replace(scene(), **change), pointer="/x")  # type: ignore[arg-type]  # fields of an image
    assert word in found.detail


def test_a_tolerance_allows_differences_up_to_it(tmp_path: Path) -> None:
    """Of pixels and of numbers, and no larger one."""
    recorded = image_file(tmp_path, scene())
    brighter = replace(scene(), pixels=scene().pixels + np.uint16(2))
    for expected, found in ((recorded, brighter), (5, 7), ([1.0], [3.0])):
        assert not list(differences(expected, found, pointer="", tolerance=Tolerance(atol=2)))
        assert list(differences(expected, found, pointer="", tolerance=Tolerance(atol=1.9)))


def image_file(folder: Path, image: Image) -> ImageFile:
    return ImageFile(folder / "x.tif", encode_image(image, "image/tiff"))
