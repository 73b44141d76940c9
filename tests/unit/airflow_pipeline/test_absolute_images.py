"""Images and folder of a plan task: absolute, because workers have other working directories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_airflow.pipelines import require_absolute_folder, require_absolute_images
from pesto_runtime.errors import InvalidInput, PestoError

if TYPE_CHECKING:
    from pydantic import JsonValue


@pytest.mark.parametrize(
    "image",
    [
        "/data/a.tif",
        "/data/a.tif#bands=green:2,nir:4",
        "file:///data/a.tif#window=0,0,9,9",
        "s3://bucket/a.tif",
        {"href": "/data/a.tif", "bands": [2, 4]},
        {"href": "s3://bucket/a.tif", "bands": {"green": 2}},
        '{"href": "/data/a.tif", "window": [0, 0, 9, 9]}',
    ],
)
def test_absolute_images_are_accepted(image: JsonValue) -> None:
    """With bands and a window, as text and as an object."""
    require_absolute_images({"scene": image})


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("a.tif", "input 'scene' 'a.tif' is a relative path"),
        ("a.tif#bands=2", "input 'scene' 'a.tif#bands=2' is a relative path"),
        ({"href": "a.tif", "bands": [2]}, "is a relative path"),
        ('{"href": "a.tif"}', "is a relative path"),
        ("/data/a.tif#bands=", "HREF#bands=green:2,nir:4"),
        ({"path": "/data/a.tif"}, "/href: Field required"),
        (5, "an image is a path or href"),
    ],
)
def test_relative_and_wrong_images_are_refused(image: JsonValue, words: str) -> None:
    """Before a service is contacted, with the way out."""
    with pytest.raises(InvalidInput) as caught:
        require_absolute_images({"scene": image})
    assert words in str(caught.value)


def test_a_folder_is_an_absolute_path_or_an_href() -> None:
    """Also of a bucket; a relative path and a place that cannot be written are refused."""
    folders = ("/data/out", "file:///data/out", "s3://bucket/out")
    assert [str(require_absolute_folder("folder", each)) for each in folders] == [
        "/data/out", "/data/out", "s3://bucket/out"
    ]  # fmt: skip
    for wrong, words in (("out", "relative path"), ("https://example.org/out", "written")):
        with pytest.raises(PestoError, match=words):
            require_absolute_folder("folder", wrong)
