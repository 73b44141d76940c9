"""Blocks of a remote scene are reused if its server states that it is the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.file_server import FileServer, serving, use
from tests.support.rasters import ReplaceableScene, noise
from tests.support.runs import Done, chain, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("without_pictures")]

WIDTH, HEIGHT, TILES = 1100, 600, 28


@pytest.fixture
def scene(tmp_path: Path) -> ReplaceableScene:
    folder = tmp_path / "served" / "bucket"
    folder.mkdir(parents=True)
    return ReplaceableScene(folder / "s.tif", WIDTH, HEIGHT)


@pytest.fixture
def server(scene: ReplaceableScene, tmp_path: Path) -> Iterator[FileServer]:
    with serving(scene.path.parents[1], tmp_path / "requests.log") as server:
        yield server


def test_an_overwritten_object_of_s3_is_computed_anew(
    tmp_path: Path, scene: ReplaceableScene, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs with one store: the second has the new pixels; without a change it reuses all."""
    use(server.gdal_variables, monkeypatch)
    document = chain("verbose", log=str(tmp_path / "log"))
    store = (tmp_path / "store").as_uri()

    def run(name: str) -> Done:
        given = {"scene": "s3://bucket/s.tif"}
        return run_local(document, tmp_path / name, given, store=store, keep=True)

    assert np.array_equal(run("a").pixels(), noise(WIDTH, HEIGHT))
    assert run("b").tiles == (0, TILES, 0)
    scene.replace()
    new = run("c")
    assert new.tiles == (TILES, 0, 0)
    assert np.array_equal(new.pixels(), noise(WIDTH, HEIGHT, seed=1))


@pytest.mark.parametrize(("states", "warned"), [("nothing", True), ("etag", False)])
def test_without_an_identity_blocks_are_not_reused(
    tmp_path: Path, scene: ReplaceableScene, server: FileServer, states: str, *, warned: bool
) -> None:
    """Each run has its own keys, and the user is warned; with an ETag (control) blocks serve."""
    server.states(states)
    document, href = chain("verbose", log=str(tmp_path / "log")), f"{server.url}/bucket/s.tif"
    store = (tmp_path / "store").as_uri()
    first = run_local(document, tmp_path / "a", {"scene": href}, store=store, keep=True)
    second = run_local(document, tmp_path / "b", {"scene": href}, store=store, keep=True)
    assert second.tiles == ((TILES, 0, 0) if warned else (0, TILES, 0))
    assert second.sha256() == first.sha256()
    warnings = str(first.result["warnings"])
    assert ("no other run reuses its blocks" in warnings and href in warnings) == warned


def test_a_chunk_requests_the_identity_twice(
    tmp_path: Path, scene: ReplaceableScene, server: FileServer
) -> None:
    """One HEAD when it starts and one when it ends, beside those of the plan and of the product."""
    document, href = chain("verbose", log=str(tmp_path / "log")), f"{server.url}/bucket/s.tif"
    heads = []
    for tasks in (1, 2):
        before = server.heads()
        run_local(document, tmp_path / str(tasks), {"scene": href}, max_tasks=tasks)
        heads.append(server.heads() - before)
    assert heads == [4, 6], "the plan's, two for each chunk, the product's"
