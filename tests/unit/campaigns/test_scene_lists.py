"""Lists of scenes: hrefs, or objects of inputs; each has a name of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.campaigns import read_scenes
from pesto_runtime.campaigns.scene_lists import listed_scenes
from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidInput
from tests.support.runs import pipeline, stage

if TYPE_CHECKING:
    from pathlib import Path

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
        ([{"id": "campaign.json", "scene": "/a.tif"}], "'campaign.json' is a file of the campaign"),
        ([{"id": "Items.JSON", "scene": "/a.tif"}], "'Items.JSON' is a file of the campaign"),
        ([{"id": "a" * 256, "scene": "/a.tif"}], "is too long for a folder"),
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


@pytest.mark.parametrize("way", ["folder", "pattern", "lines", "json"])
def test_scenes_are_listed_in_every_way(tmp_path: Path, way: str) -> None:
    """A folder, a pattern, a file of lines and a JSON list name the same scenes."""
    names = [tmp_path / "in" / f"{name}.tif" for name in ("a", "b")]
    (tmp_path / "in").mkdir()
    for path in (*names, tmp_path / "in" / "notes.txt"):
        path.touch()
    texts = [str(path) for path in names]
    (tmp_path / "list.txt").write_text("# two\n\n" + "\n".join(texts) + "\n")
    (tmp_path / "list.json").write_text(json.dumps(texts))
    ways = {"folder": "in", "pattern": "in/*.tif", "lines": "list.txt", "json": "list.json"}
    assert listed_scenes(str(tmp_path / ways[way])) == texts


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.txt", None, "No such file"),
        ("l.txt", "# none\n", "lists no scene"),
        ("l.json", "{", "is not JSON"),
        ("l.json", '{"a": 1}', "neither a list nor an item"),
    ],
)
def test_a_list_that_is_none_is_refused(
    tmp_path: Path, name: str, text: str | None, said: str
) -> None:
    """With its path, and the ways there are."""
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=said):
        listed_scenes(str(tmp_path / name))
