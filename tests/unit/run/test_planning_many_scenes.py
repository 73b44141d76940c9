"""Planning many scenes together makes the plan that each of them has alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import GridMismatch, InvalidPipeline
from pesto_runtime.pipeline import Sizing, make_plan
from pesto_runtime.run import planning
from pesto_runtime.run.pipeline_inputs import PipelineInputs, read_inputs
from pesto_runtime.run.planning import plan
from pesto_runtime.run.scene_planner import ScenePlanner
from pesto_runtime.run.services import Services, resolve_services
from tests.support.rasters import UTM, noise, write_scene
from tests.support.runs import chain, pipeline, stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import JsonValue

ADDED = pipeline(
    stage("sum", "add", first="$inputs.first", second="$inputs.second"),
    outputs={"image": "$sum.image"}, first="image", second="image",
)  # fmt: skip


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were checked and divided."""
    found: list[str] = []

    def counted(*args: object, **options: object) -> object:
        planned = make_plan(*args, **options)  # type: ignore[arg-type]
        found.append(planned.run)
        return planned

    monkeypatch.setattr(planning, "make_plan", counted)
    return found


class Planning:
    """One pipeline, planned in both ways."""

    def __init__(self, folder: Path, document: Mapping[str, JsonValue], **options: object) -> None:
        self.folder, self.options = folder, options
        self.pipeline = Pipeline.parse(document)
        self.services: Services = resolve_services(self.pipeline, base=folder)
        self.planner = ScenePlanner(self.pipeline, self.services, Sizing(tile=200), **options)  # type: ignore[arg-type]

    def inputs(self, **given: object) -> PipelineInputs:
        """Inputs of a run; a scene by its path."""
        return read_inputs(self.pipeline, self.services, {n: str(v) for n, v in given.items()})

    def require_equal(self, **given: object) -> None:
        """Compare the plans of both ways, and the estimates."""
        store, folder = "file:///store", self.folder / "out"
        together = self.planner.plan(self.inputs(**given), store=store, folder=folder)
        alone = plan(
            self.pipeline, self.services, self.inputs(**given), store=store,
            sizing=Sizing(tile=200), folder=folder, **self.options,  # type: ignore[arg-type]
        )  # fmt: skip
        assert json.loads(together.plan.model_dump_json()) == json.loads(
            alone.plan.model_dump_json()
        )
        assert together.estimates == alone.estimates


def scene(path: Path, number: int = 0, **more: object) -> Path:
    """A scene of another place and other pixels for each number."""
    place = (*UTM[:2], UTM[2] + 9000 * number, *UTM[3:5], UTM[5] - 9000 * number)
    settings: dict[str, object] = {"transform": place, **more}
    return write_scene(path, noise(700, 600, seed=number), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("cached", [False, True])
def test_scenes_of_equal_facts_are_divided_once(
    tmp_path: Path, made: list[str], *, cached: bool
) -> None:
    """Each has keys, a run and a store of its own."""
    found = Planning(tmp_path, chain("grow", "grow_far"), compress="zstd", report="none",
                     cache=str(tmp_path / "cache") if cached else None)  # fmt: skip
    for number in range(4):
        found.require_equal(scene=scene(tmp_path / f"{number}.tif", number))
    assert len(made) == 5, "four alone, and one for all"
    assert len({*made}) == 4


@pytest.mark.parametrize(
    "changed",
    [{"nodata": 3}, {"crs": "EPSG:32617"}, {"crs": None}, {"options": {"tiled": True}}],
    ids=["nodata", "crs", "warned", "blocks"],
)
def test_scenes_of_other_facts_are_divided_apart(
    tmp_path: Path, made: list[str], changed: dict[str, object]
) -> None:
    """The control; a warning names the scene that it is about."""
    found = Planning(tmp_path, chain("grow"))
    for number in range(2):
        found.require_equal(scene=scene(tmp_path / f"{number}.tif", number))
        found.require_equal(scene=scene(tmp_path / f"c{number}.tif", number, **changed))
    assert len(made) == 4 + 2


def test_warnings_of_two_scenes_name_both(tmp_path: Path, made: list[str]) -> None:
    """None of them is an example for others; without warnings, the first pair is."""
    found = Planning(tmp_path, ADDED)
    for number, crs in enumerate((None, None, "EPSG:32617", "EPSG:32617")):
        first, second = (scene(tmp_path / f"{number}-{each}.tif", number, crs=crs) for each in "ab")
        found.require_equal(first=first, second=second)
    assert len(made) == 4 + 2 + 1


def test_parameters_and_windows_are_facts(tmp_path: Path) -> None:
    """They are in the keys, and decide the grid."""
    found = Planning(tmp_path, pipeline(
        stage("a", "above", image="$inputs.scene", level="$inputs.level"),
        outputs={"image": "$a.image"}, scene="image", level="number",
    ))  # fmt: skip
    for number, level in enumerate((1, 1, 2, 1)):
        path = scene(tmp_path / f"{number}.tif", number)
        found.require_equal(scene=path, level=level)
        found.require_equal(scene=f"{path}#window=1,2,300,400", level=level)


def test_two_scenes_must_still_be_on_one_grid(tmp_path: Path) -> None:
    """As far apart as those before, they are; a pixel further, they are not."""
    found = Planning(tmp_path, ADDED)
    for number in range(3):
        first, second = (scene(tmp_path / f"{number}-{each}.tif", number) for each in "ab")
        found.require_equal(first=first, second=second)
    aside = scene(tmp_path / "aside.tif", 3, transform=(*UTM[:2], UTM[2] + 27_030, *UTM[3:]))
    here = scene(tmp_path / "here.tif", 3)
    with pytest.raises(GridMismatch, match="origins"):
        found.planner.plan(
            found.inputs(first=here, second=aside), store="file:///s", folder=tmp_path
        )


def test_a_scene_that_cannot_be_planned_is_refused_after_one_that_can(tmp_path: Path) -> None:
    """Its bands, or a value, do not fit; others are planned afterwards."""
    found = Planning(tmp_path, chain("grow"))
    good = scene(tmp_path / "good.tif")
    wrong = scene(tmp_path / "wrong.tif", names=("red",))
    for _ in range(2):
        found.require_equal(scene=good)
        with pytest.raises(InvalidPipeline):
            found.planner.plan(found.inputs(scene=wrong), store="file:///s", folder=tmp_path)
