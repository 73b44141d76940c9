"""Lists of scenes: hrefs, or objects of inputs; each has a name of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_runtime.campaigns import read_scenes
from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidInput
from tests.support.runs import pipeline, stage

if TYPE_CHECKING:
    from pydantic import JsonValue

ONE = Pipeline.parse(pipeline(stage("s", "grow", image="$inputs.scene"), outputs={"o": "$s.image"}))
TWO = Pipeline.parse(
    pipeline(
        stage("s", "add", first="$inputs.red", second="$inputs.nir"),
        outputs={"o": "$s.image"}, red="image", nir="image", level="number",
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("item", "name", "image"),
    [
        ("/data/LC08_190024.tif", "LC08_190024", "/data/LC08_190024.tif"),
        ("s3://b/p/scene%201.a/T31.ome.tif?versionId=3", "T31", None),
        ({"href": "/data/a.tif", "bands": {"red": 1}}, "a", None),
        ({"id": "may", "scene": "/data/a.tif"}, "may", "/data/a.tif"),
        ({"scene": "/data/a.tif"}, "a", "/data/a.tif"),
    ],
)
def test_a_scene_is_named_after_its_file_or_by_its_id(
    item: JsonValue, name: str, image: str | None
) -> None:
    """The id is the name of its folder."""
    (scene,) = read_scenes([item], ONE)
    assert scene.id == name
    assert scene.inputs["scene"] == (image or item)


def test_common_inputs_are_those_of_every_scene() -> None:
    """A scene may have another value."""
    listed: list[JsonValue] = ["/a.tif", {"id": "b", "red": "/b.tif", "level": 3}]
    first, second = read_scenes(listed, TWO, common={"nir": "/nir.tif", "level": 2})
    assert first.inputs == {"red": "/a.tif", "nir": "/nir.tif", "level": 2}
    assert second.inputs == {"red": "/b.tif", "nir": "/nir.tif", "level": 3}


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ("/a.tif", "scenes must be a list"),
        ([], "has no scene"),
        ([3], r"scenes\[0\] must be an href or an object"),
        (["/x/a.tif", "/y/A.tif"], r"more than one has the id a"),
        (["/x/a b.tif"], r"scenes\[0\]: the id 'a b' cannot name a folder"),
        ([{"id": "../up", "scene": "/a.tif"}], r"'../up' cannot name a folder"),
        ([{"id": "", "scene": "/a.tif"}], r"'' cannot name a folder"),
    ],
)
def test_a_wrong_list_is_refused_by_item(listed: list[JsonValue], said: str) -> None:
    """With the way out."""
    with pytest.raises(InvalidInput, match=said):
        read_scenes(listed, ONE)


@pytest.mark.parametrize(
    ("item", "said"),
    [("/a.tif", "the pipeline has the images red, nir"), ({"level": 3}, 'give it an "id"')],
)
def test_one_image_does_not_name_a_scene_of_two(item: JsonValue, said: str) -> None:
    """Which of them it is would be a guess."""
    with pytest.raises(InvalidInput, match=said):
        read_scenes([item], TWO)
