"""`pesto check`: every error of a pipeline in one report, exit code 2, no traceback."""

import json
from pathlib import Path

import pytest

from tests.support.commands import Command, saved
from tests.support.rasters import noise, write_scene
from tests.support.runs import CLOUD_COVER, PROCESSES, ROOT, chain, pipeline, stage

BROKEN = pipeline(
    stage("first", "grow", picture="$inputs.scene"),
    stage("wide", "soften", image="$inputs.scene"),
    stage("typed", "grow", image="$wide.image"),
    stage("named", "cloud_mask", scene="$wide.image"),
    stage("ghost", "gorw", image="$inputs.scene"),
    stage("one", "add", first="$inputs.scene", second="$two.image"),
    stage("two", "add", first="$inputs.scene", second="$one.image"),
    outputs={"image": "$wide.image", "nothing": "$wide.nothing", "nobody": "$nobody.image"},
)
EXPECTED = {  # pointer -> what its error must say
    "/stages/0/inputs/picture": "image",
    "/stages/2/inputs/image": "uint16",
    "/stages/3/inputs/scene": "blue",
    "/stages/4/process": "did you mean 'grow'?",
    "/stages/5/inputs/second": "cycle: one -> two -> one",
    "/outputs/nothing": "image",
    "/outputs/nobody": "nobody",
}


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    services = {name: f"{PROCESSES}:{name}" for name in ("grow", "soften", "add")}
    services["cloud-mask"] = f"{ROOT}/examples/cloud_mask.py:cloud_mask"
    return saved(tmp_path / "p.json", {**BROKEN, "services": dict(services)})


def test_every_kind_of_error_is_in_one_report(pesto: Command, broken: Path) -> None:
    """Wrong binding, wrong dtype, missing band, unknown process, cycle, unknown output."""
    said = pesto("check", broken, "--json")
    errors = [(each["pointer"], each["detail"]) for each in json.loads(said.out)["errors"]]
    assert said.code == 2
    for pointer, words in EXPECTED.items():
        assert any(where == pointer and words in detail for where, detail in errors), pointer


def test_the_report_for_people_says_the_same(pesto: Command, broken: Path) -> None:
    """On stderr, one line for each error."""
    counted = len(json.loads(pesto("check", broken, "--json").out)["errors"])
    said = pesto("check", broken)
    assert said.code == 2
    assert f"{counted} errors" in said.err
    assert len([line for line in said.err.splitlines() if line.startswith("  /")]) == counted
    assert said.out == ""


def test_a_pipeline_without_an_error_reports_none(pesto: Command) -> None:
    """The control: the committed pipeline passes."""
    said = pesto("check", CLOUD_COVER, "--json")
    assert said.code == 0
    assert json.loads(said.out) == {"errors": [], "warnings": []}
    assert "no errors" in pesto("check", CLOUD_COVER).out


def test_inputs_are_checked_where_they_are_given(pesto: Command, tmp_path: Path) -> None:
    """A scene without the bands is found before anything runs; a scene is never needed."""
    scene = write_scene(tmp_path / "s.tif", noise(9, 9, dtype="uint16"))
    said = pesto("check", CLOUD_COVER, "-i", f"scene={scene}")
    assert said.code == 2
    assert "blue" in said.err


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "error"), ('{"name": "x"}', "stages"),
     ('{"name": "x", "stages": [{"id": 1}], "outputs": {}, "colour": 1}', "colour")],
)  # fmt: skip
def test_what_is_no_pipeline_is_refused(
    pesto: Command, tmp_path: Path, text: str, message: str
) -> None:
    """Every wrong field at once, by its pointer."""
    path = tmp_path / "p.json"
    path.write_text(text)
    said = pesto("check", path)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert str(path) in said.err


def test_a_pipeline_that_is_not_there_is_refused(pesto: Command, tmp_path: Path) -> None:
    """By name."""
    said = pesto("check", tmp_path / "none.json")
    assert said.code == 2
    assert "does not exist" in said.err


@pytest.mark.parametrize("target", ["nowhere.py:grow", "examples/sieve.py:nothing", "no.such:x"])
def test_a_target_that_cannot_be_loaded_is_refused(
    pesto: Command, tmp_path: Path, target: str
) -> None:
    """Named, without a traceback of the import."""
    path = saved(tmp_path / "p.json", chain("grow"))
    said = pesto("check", path, "-s", f"grow={target}")
    assert said.code in (1, 2)
    assert target.partition(":")[0] in said.err


def test_plan_prints_phases_and_tiles_and_writes_nothing(pesto: Command, tmp_path: Path) -> None:
    """No folder, no store; the JSON is the plan itself."""
    scene = write_scene(tmp_path / "s.tif", noise(1100, 600))
    path = saved(tmp_path / "p.json", chain("grow", "grow"))
    before = set(tmp_path.iterdir())
    said = pesto("plan", path, "-i", f"scene={scene}", "--tile", 200, "--workers", 2)
    assert said.code == 0
    assert "28 tiles of 200 x 200 in 6 chunks" in said.out
    plan = json.loads(pesto("plan", path, "-i", f"scene={scene}", "--json").out)
    assert [phase["kind"] for phase in plan["phases"]] == ["map"]
    assert plan["estimates"][0]["memory_bytes"] > 0
    assert set(tmp_path.iterdir()) == before
