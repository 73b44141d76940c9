"""A campaign of the local engine: the bytes of each scene alone, and no scene stops another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rasterio.warp import transform

from pesto_runtime.campaigns import CAMPAIGN, load_campaign, planned_scene, process_task
from pesto_runtime.campaigns.campaign_plan import CampaignRecords
from pesto_runtime.campaigns.campaign_planning import CampaignSettings, plan_campaign
from pesto_runtime.campaigns.campaign_result import CAMPAIGN_PAGE
from pesto_runtime.campaigns.campaign_tasks import STOPPED, stopped_scenes
from pesto_runtime.campaigns.local_campaign import CampaignEngine
from pesto_runtime.campaigns.scene_lists import SceneInputs
from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import RunRequest, SilentListener
from pesto_runtime.errors import InvalidInput, InvalidPipeline, TilesFailed
from pesto_runtime.pipeline import Sizing
from pesto_runtime.run.services import resolve_services
from tests.support.processes import MARKER
from tests.support.rasters import UTM, noise, sha256_of, stamps, write_scene
from tests.support.runs import chain, pipeline, run_local, stage

if TYPE_CHECKING:
    import numpy as np
    from pydantic import JsonValue


SIZES = {"small": (90, 60), "odd": (517, 333), "tall": (40, 700), "large": (1500, 1100)}
TWO_PHASES = pipeline(
    stage("mean", "mean", image="$inputs.scene"),
    stage("far", "grow_far", image="$inputs.scene"),
    stage("above", "above", image="$far.image", level="$mean.mean"),
    outputs={"image": "$above.image", "mean": "$mean.mean"},
)


def campaign(
    document: dict[str, JsonValue],
    folder: Path,
    scenes: list[JsonValue],
    *,
    only_failed: bool = False,
    **settings: object,
) -> dict[str, JsonValue]:
    request = RunRequest(
        pipeline=Pipeline.parse(document), base=Path.cwd(), inputs={}, folder=folder,
        **{"workers": 2, "tile": 200, **settings},  # type: ignore[arg-type]
    )  # fmt: skip
    return CampaignEngine(scenes, only_failed).run(request, watcher=SilentListener())


def statuses(result: dict[str, JsonValue]) -> dict[str, str]:
    scenes = result["scenes"]
    assert isinstance(scenes, dict)
    return {name: str(each["status"]) for name, each in scenes.items() if isinstance(each, dict)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return {name: write_scene(folder / f"{name}.tif", noise(*size)) for name, size in SIZES.items()}


def test_each_scene_has_the_bytes_of_its_run_alone(tmp_path: Path, scenes: dict[str, Path]) -> None:
    """Of an image and of a value, in two phases; nothing but outputs is left."""
    result = campaign(TWO_PHASES, tmp_path / "all", [str(each) for each in scenes.values()])
    assert result["status"] == "COMPLETE"
    assert json.loads((tmp_path / "all" / CAMPAIGN).read_text()) == result
    found = result["scenes"]
    assert isinstance(found, dict)
    for name, scene in scenes.items():
        alone = run_local(TWO_PHASES, tmp_path / name, {"scene": scene})
        entry = found[name]
        assert isinstance(entry, dict)
        assert entry["outputs"] == {
            "image": {
                "href": (tmp_path / "all" / name / "image.tif").as_uri(),
                "sha256": alone.sha256(),
            },
            "mean": alone.value("mean"),
        }
        assert sha256_of(tmp_path / "all" / name / "image.tif") == alone.sha256()
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        CAMPAIGN,
        CAMPAIGN_PAGE,
        *scenes,
    }
    assert not list((tmp_path / "all").rglob(".pesto"))


def test_a_failed_scene_stops_nobody_and_is_alone_run_again(
    tmp_path: Path, scenes: dict[str, Path]
) -> None:
    """One is no raster, one has a tile that fails: the same call again touches these two alone."""
    pixels = noise(500, 300)
    pixels[0, 250, 450] = MARKER
    broken = write_scene(tmp_path / "broken.tif", pixels)
    absent = tmp_path / "absent.tif"
    listed: list[JsonValue] = [str(scenes["odd"]), str(absent), str(broken), str(scenes["small"])]
    document = chain("fragile_without_nodata", broken=str(tmp_path / "is_broken"))
    (tmp_path / "is_broken").touch()

    first = campaign(document, tmp_path / "out", listed)
    assert first["status"] == "PARTIAL"
    assert first["counts"] == {"COMPLETE": 2, "FAILED": 2}
    assert {name for name, each in statuses(first).items() if each == "FAILED"} == {
        "absent", "broken"
    }  # fmt: skip
    found = first["scenes"]
    assert isinstance(found, dict)
    assert "does not exist" in str(found["absent"])
    assert "declares no nodata" in str(found["broken"])
    before = {name: stamps(tmp_path / "out" / name) for name in ("odd", "small")}

    (tmp_path / "is_broken").unlink()
    write_scene(absent, noise(100, 100))
    again = campaign(document, tmp_path / "out", listed)
    assert again["counts"] == {"COMPLETE": 4}
    assert {name: stamps(tmp_path / "out" / name) for name in before} == before
    tiles = again["scenes"]
    assert isinstance(tiles, dict)
    assert isinstance(tiles["broken"], dict)
    assert tiles["broken"]["tiles"] == {"computed": 1, "reused": 5, "holes": 0}


def test_only_failed_scenes_are_looked_at(tmp_path: Path, scenes: dict[str, Path]) -> None:
    """A complete scene may be gone; without the option, that is a failure."""
    gone, absent = write_scene(tmp_path / "gone.tif", noise(50, 50)), tmp_path / "absent.tif"
    listed: list[JsonValue] = [str(gone), str(absent), str(scenes["small"])]
    document, folder = chain("grow"), tmp_path / "out"
    with pytest.raises(InvalidInput, match=r"campaign\.json"):
        campaign(document, folder, listed, only_failed=True)
    assert campaign(document, folder, listed)["counts"] == {"COMPLETE": 2, "FAILED": 1}
    gone.unlink()
    write_scene(absent, noise(60, 60))
    again = campaign(document, folder, listed, only_failed=True)
    assert again["counts"] == {"COMPLETE": 3}
    assert campaign(document, folder, listed)["counts"] == {"COMPLETE": 2, "FAILED": 1}
    with pytest.raises(InvalidInput, match="is of the pipeline 'test', not 'other'"):
        campaign({**document, "name": "other"}, folder, listed, only_failed=True)


def test_a_report_has_a_map_and_what_failed(tmp_path: Path, scenes: dict[str, Path]) -> None:
    """A footprint for each scene with a place, one row for each scene; names are escaped."""
    listed: list[JsonValue] = [*(str(each) for each in scenes.values()), str(tmp_path / "no.tif")]
    result = campaign(chain("grow"), tmp_path / "out", listed)
    page = (tmp_path / "out" / CAMPAIGN_PAGE).read_text()
    assert page.count("<rect") == len(scenes)
    assert page.count('<th scope="row">') == len(scenes) + 1
    assert "1 scene failed" in page
    assert "no.tif does not exist" in page
    found = result["scenes"]
    assert isinstance(found, dict)
    assert isinstance(found["small"], dict)
    a, _, left, _, e, top = UTM
    width, height = SIZES["small"]
    xs, ys = [left, left + a * width], [top, top + e * height]
    lons, lats = transform("EPSG:32616", "EPSG:4326", xs * 2, [ys[0], ys[0], ys[1], ys[1]])
    bounds = [min(lons), min(lats), max(lons), max(lats)]
    assert found["small"]["bbox"] == pytest.approx(bounds, abs=1e-5)
    assert "bbox" not in dict(found["no"])  # type: ignore[arg-type]  # an object
    campaign(chain("grow"), tmp_path / "none", listed, report="none")
    assert not (tmp_path / "none" / CAMPAIGN_PAGE).exists()


def planned(
    folder: Path, scenes: dict[str, np.ndarray], document: dict[str, JsonValue], sizing: Sizing
) -> str:
    """Plan a campaign; the name of a scene may be that of a file in a folder."""
    model = Pipeline.parse(document)
    listed = [
        SceneInputs(
            name.replace("/", "-"), {"scene": str(write_scene(folder / f"{name}.tif", pixels))}
        )
        for name, pixels in scenes.items()
    ]
    services = resolve_services(model, base=Path.cwd())
    settings = CampaignSettings(folder=folder / "out", sizing=sizing, member="test")
    return plan_campaign(model, services, listed, settings)


@pytest.mark.parametrize("most", [1, 3, 7, 64])
def test_scenes_share_few_tasks_and_every_chunk_is_in_one(tmp_path: Path, most: int) -> None:
    """Small scenes are together, the large one is divided; never more tasks than asked for."""
    sizes = {**SIZES, **{f"tiny{number}": (30, 30) for number in range(20)}}
    sizing = Sizing(workers=2, max_tasks=most, tile=200)
    pixels = {name: noise(*size) for name, size in sizes.items()}
    found = load_campaign(planned(tmp_path, pixels, chain("grow"), sizing))
    (tasks,) = found.tasks
    assert len(tasks) <= most
    chunks = [
        (part.scene, number)
        for task in tasks
        for part in task
        for number in range(part.start, part.stop)
    ]
    plans = [planned_scene(found, scene) for scene in found.scenes]
    phases = [each.phases[0] for each in plans if each]
    assert sorted(chunks) == [
        (scene, number) for scene, phase in enumerate(phases) for number in range(len(phase.chunks))
    ]
    if most == 7:
        large = [*sizes].index("large")
        assert sum(any(part.scene == large for part in task) for task in tasks) > 1
        assert max(len({part.scene for part in task}) for task in tasks) > 5


def test_a_task_reads_scenes_of_one_place(tmp_path: Path) -> None:
    """Although they are listed in turn; the control is the place of each scene in the campaign."""
    names = [f"{place}/{number}" for number in range(8) for place in ("east", "west")]
    for place in ("east", "west"):
        (tmp_path / place).mkdir()
    sizing = Sizing(workers=4, max_tasks=4, tile=200)
    pixels = {name: noise(30, 30) for name in names}
    found = load_campaign(planned(tmp_path, pixels, chain("grow"), sizing))
    assert [scene.id for scene in found.scenes] == [name.replace("/", "-") for name in names]
    places = [{names[part.scene].partition("/")[0] for part in task} for task in found.tasks[0]]
    assert places == [{"east"}, {"east"}, {"west"}, {"west"}]


def test_a_task_computes_its_other_scenes_before_it_fails(tmp_path: Path) -> None:
    """With `holes="fail"`; a second attempt computes the failed tile alone."""
    document = chain("fragile", broken=str(tmp_path / "is_broken"))
    (tmp_path / "is_broken").touch()
    scenes = {"a": noise(100, 100), "b": noise(400, 200), "c": noise(100, 100)}
    scenes["b"][0, 3, 3] = MARKER
    href = planned(tmp_path, scenes, document, Sizing(max_tasks=1, tile=200))

    with pytest.raises(TilesFailed, match=r"1 scene failed; all others are done:\s+b: "):
        process_task(href, 0, 0)
    records = CampaignRecords(href)
    assert set(records.of_task(0, 0) or {}) == {"b"}
    (tmp_path / "is_broken").unlink()
    counts = process_task(href, 0, 0)
    assert (counts["scenes"], counts["tiles"], counts["reused"]) == (3, 1, 3)
    assert records.of_task(0, 0) == {}


def test_a_scene_that_failed_is_not_one_that_was_stopped(tmp_path: Path) -> None:
    """One of its two tasks failed, and the other was stopped; without the failure (control)."""
    scenes = {"a": noise(1500, 600)}
    href = planned(tmp_path, scenes, chain("grow"), Sizing(workers=2, max_tasks=2, tile=200))
    assert [len(tasks) for tasks in load_campaign(href).tasks] == [2]
    records = CampaignRecords(href)
    assert stopped_scenes(href) == {"a"}
    records.end_task(0, 0, {})
    assert stopped_scenes(href) == {"a"}
    records.end_task(0, 0, {"a": "boom"})
    assert stopped_scenes(href) == set()
    records.end_task(0, 0, {"a": STOPPED})
    records.end_task(0, 1, {})
    assert stopped_scenes(href) == {"a"}
    records.end_task(0, 0, {})
    assert stopped_scenes(href) == set()


def test_a_pipeline_that_fits_no_scene_is_refused_as_a_whole(tmp_path: Path) -> None:
    """Before any folder is made."""
    document = chain("grow", radius=3)
    with pytest.raises(InvalidPipeline, match="radius"):
        campaign(document, tmp_path / "out", ["/a.tif"])
    with pytest.raises(InvalidInput, match="runs in threads"):
        campaign(chain("grow"), tmp_path / "out", ["/a.tif"], executor="processes")
    for patience in (float("inf"), float("nan"), -1.0):
        with pytest.raises(InvalidInput, match="no time to wait for a service"):
            campaign(chain("grow"), tmp_path / "out", ["/a.tif"], patience_s=patience)
        with pytest.raises(InvalidInput, match="no time to wait for a service"):
            run_local(
                chain("grow"),
                tmp_path / "out",
                {"scene": write_scene(tmp_path / "s.tif", noise(9, 9))},
                patience_s=patience,
            )
    assert not (tmp_path / "out").exists()
