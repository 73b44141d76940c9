"""`pesto list`: processes of projects and catalogs, and which of them can take a scene."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.projects import write_project
from tests.support.rasters import write_scene

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.commands import Command

IMAGE: dict[str, JsonValue] = {"$ref": "#/definitions/Image"}


def save(
    folder: Path, name: str, version: str, raster: dict[str, JsonValue], **keys: object
) -> Path:
    """Save the description of a process that takes such images."""
    properties: JsonValue = {"scene": {**IMAGE, "x-raster": raster}}
    description = {
        "name": name, "version": version, "title": name.upper(), "resources": {},
        "asynchronous": False, "input": {"type": "object", "properties": properties},
        "output": {"type": "object", "properties": {"n": {"type": "number"}}},
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}@{version}.json"
    path.write_text(json.dumps({"url": "http://eo:8000", "description": description, **keys}))
    return path


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Processes for optical scenes, for radar, for other resolutions and bands."""
    folder = tmp_path / "catalog"
    fits: dict[str, JsonValue] = {"bands": ["red", "nir"], "dtype": "uint16"}
    save(folder, "any", "1.0.0", fits)
    save(folder, "any", "1.10.0", fits)
    save(folder, "coarse", "1.0.0", {**fits, "capabilities": {"resolution": [100, 1000]}})
    save(folder, "fine", "1.0.0", {**fits, "capabilities": {"resolution": [5, 10]}})
    save(folder, "radar", "1.0.0", {"bands": ["vv"], "dtype": "float32"})
    made_for: JsonValue = {"sensors": ["S2A"], "levels": ["L2A"]}
    save(folder, "sensor", "1.0.0", {**fits, "capabilities": made_for})
    return folder


def test_a_scene_selects_processes_and_the_others_have_reasons(
    tmp_path: Path, catalog: Path, pesto: Command
) -> None:
    """Bands, dtype, resolution on the ground, sensor and level; all versions are listed."""
    scene = write_scene(
        tmp_path / "s.tif", np.ones((2, 8, 8), "uint16"), names=("red", "nir"),
        transform=(10, 0, 500_000, 0, -10, 4_000_000),
    )  # fmt: skip
    words = ("list", catalog, "--scene", scene, "--json", "--sensor", "s2a")
    found = {f"{each['name']} {each['version']}": each["reasons"]
             for each in json.loads(pesto(*words).out)}  # fmt: skip
    assert [name for name, reasons in found.items() if not reasons] == [
        "any 1.0.0", "any 1.10.0", "fine 1.0.0",
    ]  # fmt: skip
    assert found["coarse 1.0.0"][0].startswith("it is made for 100 to 1000 m, not ")
    assert found["sensor 1.0.0"] == ["it is made for the level L2A: state that of the scene"]
    assert found["radar 1.0.0"][0] == "$inputs.scene is uint16, but the port takes float32"
    assert "vv" in found["radar 1.0.0"][1]
    said = pesto("list", catalog, "--scene", scene, "--sensor", "S2B", "--level", "L1C").out
    assert "no   sensor 1.0.0" in said
    assert "it is made for the sensor S2A, not S2B" in said
    assert "it is made for the level L2A, not L1C" in said


def test_a_scene_without_a_place_has_no_resolution(
    tmp_path: Path, catalog: Path, pesto: Command
) -> None:
    """Then a process for some resolutions is not selected, and says so."""
    scene = write_scene(tmp_path / "s.tif", np.ones((2, 8, 8), "uint16"), names=("red", "nir"),
                        crs=None, transform=None)  # fmt: skip
    said = pesto("list", catalog, "--scene", scene).out
    assert "it is made for 5 to 10 m: the resolution is unknown" in said


def test_projects_below_a_folder_are_listed(tmp_path: Path, pesto: Command) -> None:
    """Two levels down; one with a broken file is listed with its error."""
    write_project(tmp_path / "team" / "scaled")
    broken = write_project(tmp_path / "broken")
    (broken / "pesto" / "api" / "description.json").write_text("{")
    said = pesto("list", tmp_path)
    assert said.code == 0
    assert "scaled 1.2.0" in said.out
    assert "/pesto/api/description.json: is not JSON: line 1" in said.out
    (tmp_path / "empty").mkdir()
    nothing = pesto("list", tmp_path / "empty")
    assert nothing.code == 2
    assert "there is no PESTO project below it either" in nothing.err


def test_a_saved_description_is_verified_by_its_digest(tmp_path: Path, pesto: Command) -> None:
    """A description that was changed after it was saved is refused; the right digest is not."""
    folder = tmp_path / "catalog"
    path = save(folder, "a", "1.0.0", {"bands": 1}, digest="sha256:0")
    wrong = pesto("list", folder)
    assert wrong.code == 2
    assert "was changed or damaged" in wrong.err
    digest = wrong.err.partition("has the digest ")[2].partition(",")[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), "digest": digest}))
    assert pesto("list", folder).out.startswith("a 1.0.0")


def test_a_check_says_which_other_processes_take_the_scene(
    tmp_path: Path, catalog: Path, pesto: Command
) -> None:
    """Of the catalog, each with its reasons; nothing of the kind for a stage that fits."""
    scene = write_scene(tmp_path / "s.tif", np.ones((2, 8, 8), "uint16"), names=("red", "nir"))
    pipeline = tmp_path / "p.json"

    def checked(process: str, *words: str) -> tuple[str, int]:
        pipeline.write_text(json.dumps({
            "name": "p", "inputs": {"a": "image"}, "outputs": {"n": "$s.n"},
            "stages": [{"id": "s", "process": process, "inputs": {"scene": "$inputs.a"}}],
        }))  # fmt: skip
        done = pesto("check", pipeline, "--services", catalog, "-i", f"a={scene}", *words)
        return done.out + done.err, done.code

    said, code = checked("radar")
    assert code == 2
    assert "other processes for the scene of stage 's'" in said
    assert "yes  any 1.10.0" in said
    assert "no   sensor 1.0.0" in said
    assert "state that of the scene" in said
    assert "radar 1.0.0" not in said
    found = json.loads(checked("radar", "--json")[0])["others"]
    assert {each["name"] for each in found if not each["reasons"]} == {"any"}
    assert "other processes" not in checked("any")[0]
