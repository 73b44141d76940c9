"""Verbs may be called twice: the second call writes the same bytes, or nothing at all."""

import hashlib
import shutil
from pathlib import Path

import pytest
from pydantic import JsonValue

from pesto_runtime.contract import Chunk, Pipeline
from pesto_runtime.errors import Interrupted, NotFound, RunFailed
from pesto_runtime.pipeline import Sizing
from pesto_runtime.run.chunk import process
from pesto_runtime.run.closing import merge, mosaic, reduce
from pesto_runtime.run.context import load_context
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.plan_files import save_plan
from pesto_runtime.run.planning import plan
from pesto_runtime.run.publishing import publish
from pesto_runtime.run.records import TileObserver, TileRecord
from pesto_runtime.run.result import RunRecord
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.workspace import Workspace
from tests.support.packs import drop_blocks, packed_blocks
from tests.support.rasters import noise, sha256_of, tree, write_scene
from tests.support.runs import chain, pipeline, run_local, stage

DOCUMENT = pipeline(
    stage("grown", "grow", image="$inputs.scene"),
    stage("mean", "mean", image="$grown.image"),
    outputs={"image": "$grown.image", "mean": "$mean.mean"},
)


@pytest.fixture
def plan_href(tmp_path: Path) -> str:
    return planned(tmp_path, DOCUMENT)


def planned(tmp_path: Path, document: dict[str, JsonValue]) -> str:
    """The href of a plan over a scene of six blocks."""
    scene = write_scene(tmp_path / "s.tif", noise(1100, 600))
    model = Pipeline.parse(document)
    services = resolve_services(model, base=tmp_path)
    inputs = read_inputs(model, services, {"scene": str(scene)})
    store = (tmp_path / "store").as_uri()
    made = plan(model, services, inputs, store=store, sizing=Sizing(workers=2, tile=200))
    return save_plan(made.plan)


def chunk(plan_href: str, start: int, stop: int) -> Chunk:
    return Chunk(plan=plan_href, phase=0, start=start, stop=stop)


def blocks(folder: Path) -> dict[str, str]:
    """Name of each block, and of each object with partials -> sha256."""
    found = {n: sha256_of(folder / n) for n in tree(folder) if n.startswith("partials")}
    sums = {each.name: hashlib.sha256(each.data).hexdigest() for each in packed_blocks(folder)}
    return found | sums


def test_a_chunk_processed_twice_computes_nothing_the_second_time(
    tmp_path: Path, plan_href: str
) -> None:
    """Counts say so, and no object changes."""
    first = process(chunk(plan_href, 0, 6))
    before = blocks(tmp_path / "store")
    again = process(chunk(plan_href, 0, 6))
    assert (first.tiles, first.reused, first.blocks) == (28, 0, 6)
    assert (again.tiles, again.reused, again.blocks, again.bytes_read) == (0, 28, 0, 0)
    assert blocks(tmp_path / "store") == before
    assert len(before) == 12


def test_chunks_may_come_in_any_grouping_and_order(tmp_path: Path, plan_href: str) -> None:
    """One task of six chunks, or six tasks backwards: the same objects."""
    for number in reversed(range(6)):
        process(chunk(plan_href, number, number + 1))
    one_by_one = blocks(tmp_path / "store")
    for folder in ("blocks", "partials"):
        shutil.rmtree(tmp_path / "store" / folder)
    process(chunk(plan_href, 0, 6))
    assert blocks(tmp_path / "store") == one_by_one


def test_a_lost_partial_alone_costs_only_its_tiles(tmp_path: Path, plan_href: str) -> None:
    """The block is there and is not written again."""
    process(chunk(plan_href, 0, 6))
    lost = next(name for name in blocks(tmp_path / "store") if name.startswith("partials"))
    (tmp_path / "store" / lost).unlink()
    assert not reduce(plan_href, "mean")
    again = process(chunk(plan_href, 0, 6))
    assert again.blocks == 0
    assert 0 < again.tiles <= 9
    assert reduce(plan_href, "mean")


def test_a_mosaic_made_twice_is_the_same_file(tmp_path: Path, plan_href: str) -> None:
    """And one without all of its blocks is refused where its port has no nodata."""
    with pytest.raises(RunFailed, match="6 blocks"):
        mosaic(plan_href, "$grown.image", tmp_path / "m.tif")
    assert not (tmp_path / "m.tif").exists()
    process(chunk(plan_href, 0, 6))
    first = mosaic(plan_href, "$grown.image", tmp_path / "m.tif")
    again = mosaic(plan_href, "$grown.image", tmp_path / "m.tif")
    assert first.product.sha256 == again.product.sha256 == sha256_of(tmp_path / "m.tif")


def test_a_chunk_that_is_stopped_keeps_its_whole_blocks(tmp_path: Path, plan_href: str) -> None:
    """Asked before every tile; what is whole stays, the rest is done next time."""
    seen: list[TileRecord] = []
    watch = TileObserver(seen.append, lambda: len(seen) == 12)
    with pytest.raises(Interrupted, match="resumes"):
        process(chunk(plan_href, 0, 6), watch=watch)
    assert len([name for name in blocks(tmp_path / "store") if name.startswith("blocks")]) == 1
    again = process(chunk(plan_href, 0, 6))
    assert (again.tiles, again.reused) == (19, 9)


@pytest.mark.parametrize("lost", [True, False])
def test_blocks_that_vanish_are_never_published_as_nodata(tmp_path: Path, *, lost: bool) -> None:
    """No tile failed, so they are computed again; with all blocks (control) nothing is."""
    document = chain("above", level=100)
    href = planned(tmp_path, document)
    record = RunRecord(engine={})
    process(chunk(href, 0, 6))
    (tmp_path / ".pesto").mkdir()
    expected = run_local(document, tmp_path / "control", {"scene": tmp_path / "s.tif"}).sha256()
    if lost:
        drop_blocks(tmp_path / "store", [(0, 0)])
    result = publish(href, Workspace(tmp_path), record)
    assert result["status"] == "COMPLETE"
    assert sha256_of(tmp_path / "image.tif") == expected


def test_a_plan_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    """A worker may outlive the store."""
    (tmp_path / "store").mkdir()
    with pytest.raises(NotFound):
        load_context(f"{(tmp_path / 'store').as_uri()}/plans/none.json")


def test_merging_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    """Also after every chunk was run again, in another order."""
    found = stage("found", "boxes", image="$inputs.scene")
    document = pipeline(found, outputs={"boxes": "$found.boxes"})
    detections = Path(__file__).parents[2] / "support" / "detections.py"
    plan_href = planned(tmp_path, {**document, "services": {"boxes": f"{detections}:boxes"}})
    made = []
    for number, order in enumerate(((0, 1, 2, 3, 4, 5), (5, 3, 1, 0, 2, 4))):
        for start in order:
            process(chunk(plan_href, start, start + 1))
        path = tmp_path / f"{number}.geojson"
        made.append(merge(plan_href, "$found.boxes", path))
        assert sha256_of(path) == made[-1].sha256
        assert path.stat().st_size == made[-1].size
    assert made[0] == made[1]
    assert made[0].holes == ()
