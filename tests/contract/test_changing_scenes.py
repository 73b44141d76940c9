"""A scene that changes during a run ends it, whoever reads it, and leaves no wrong block."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.contract import ImageReference, Window
from pesto_runtime.engines import SilentListener
from pesto_runtime.errors import PestoError, RasterUnreadable, SceneChanged
from pesto_runtime.raster.identity import identity_of
from tests.support.commands import pesto, saved, served, waited
from tests.support.file_server import FileServer, serving, use
from tests.support.packs import packed_blocks
from tests.support.rasters import ReplaceableScene, noise, tree, write_scene
from tests.support.runs import (
    PROCESSES,
    Done,
    Settings,
    chain,
    pipeline,
    refer_always,
    run_local,
    stage,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("without_pictures")]

WIDTH, HEIGHT = 1100, 600  # 3 x 2 blocks
TILES, MANY = 28, 19  # calls of a whole run, and most of them
WAYS = ("threads", "processes", "hrefs", "http", "http hrefs", "s3")
"""Who reads the scene from where: this process or its children, or a service that gets its href."""


def combined(quick: object, always: object) -> list[tuple[str, object]]:
    """Every way with both values; processes, which take seconds to start, with the second alone."""
    return [(way, value) for way in WAYS for value in (quick, always)
            if way != "processes" or value == always]  # fmt: skip


class Way:
    """A way to read a scene: the href, and the settings of the run."""

    def __init__(self, href: str, settings: Settings, scene: ReplaceableScene, log: Path) -> None:
        self.href, self.settings, self.scene, self.log = href, settings, scene, log

    def run(self, folder: Path, *, listener: SilentListener | None = None) -> Done:
        """Run a process that writes a line per call, and keep the run store."""
        document = chain("paced", log=str(self.log), seconds=0.1)
        given = {"scene": self.href}
        return run_local(document, folder, given, watcher=listener, **self.settings)

    def run_undisturbed(self, folder: Path) -> Done:
        """The same run, but never in processes, which take seconds to start."""
        calm = Way(self.href, {**self.settings, "executor": "threads"}, self.scene, self.log)
        return calm.run(folder)

    def calls(self) -> int:
        """Number of calls of the process so far."""
        return len(self.log.read_text().splitlines())


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with served(f"{PROCESSES}:paced", "--workers", 2) as url:
        yield url


@pytest.fixture
def scene(tmp_path: Path) -> ReplaceableScene:
    folder = tmp_path / "served" / "bucket"
    folder.mkdir(parents=True)
    return ReplaceableScene(folder / "s.tif", WIDTH, HEIGHT)


@pytest.fixture
def server(scene: ReplaceableScene, tmp_path: Path) -> Iterator[FileServer]:
    with serving(scene.path.parents[1], tmp_path / "requests.log") as server:
        yield server


@pytest.fixture
def way(
    request: pytest.FixtureRequest,
    scene: ReplaceableScene,
    tmp_path: Path,
    server: FileServer,
    service: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Way:
    name = str(request.param)
    href = f"{server.url}/bucket/s.tif" if "http" in name else str(scene.path)
    if name == "s3":
        use(server.gdal_variables, monkeypatch)
        href = "s3://bucket/s.tif"
    executor: Literal["threads", "processes"] = "processes" if name == "processes" else "threads"
    settings: Settings = {"executor": executor, "keep": True}
    if "hrefs" in name:
        settings["services"] = (f"paced={service}",)
        refer_always(monkeypatch)
    log = tmp_path / "calls.log"
    log.touch()
    return Way(href, settings, scene, log)


def objects(done: Path) -> dict[str, bytes]:
    store = done / ".pesto"
    folders = ("partials", "scalars", "unfinished", "holes")
    names = [name for name in tree(store) if name.partition("/")[0] in folders]
    blocks = [each for kind in ("blocks", "features") for each in packed_blocks(store, kind)]
    return {n: (store / n).read_bytes() for n in names} | {each.name: each.data for each in blocks}


def require_healed(way: Way, folder: Path, undisturbed: Done) -> None:
    """Nothing is published, no stored object is of the other scene, and the old scene completes."""
    left, right = objects(folder), objects(undisturbed.folder)
    assert not {"image.tif", "result.json"} & tree(folder)
    assert left.items() <= right.items(), "blocks of another scene"
    way.scene.put_back()
    again = way.run_undisturbed(folder)
    assert again.sha256() == undisturbed.sha256()
    assert again.tiles[2] == 0
    assert np.array_equal(again.pixels()[0], noise(WIDTH, HEIGHT)[0])


class AtBegin(SilentListener):
    """Does something after the plan is made, and before the first chunk."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def begin(self, tiles: int) -> None:
        """Do it."""
        del tiles
        self._act()


@pytest.mark.integration
@pytest.mark.parametrize(("way", "change"), combined("delete", "replace"), indirect=["way"])
def test_a_scene_that_changes_between_plan_and_chunks_ends_the_run(
    tmp_path: Path, way: Way, change: str
) -> None:
    """The error names both identities; no call is made; the undisturbed run is the control."""
    undisturbed = way.run_undisturbed(tmp_path / "undisturbed")
    before = way.calls()
    planned = identity_of(way.href)
    with pytest.raises(SceneChanged) as caught:
        way.run(tmp_path / "out", listener=AtBegin(getattr(way.scene, change)))
    now = "no longer exists" if change == "delete" else identity_of(way.href)
    assert [each in caught.value.detail for each in (planned, now)] == [True, True]
    assert way.calls() == before
    assert not objects(tmp_path / "out")
    require_healed(way, tmp_path / "out", undisturbed)


@pytest.mark.integration
@pytest.mark.parametrize(("way", "calls"), combined(1, MANY), indirect=["way"])
def test_a_scene_that_changes_while_a_chunk_runs_ends_the_run(
    tmp_path: Path, way: Way, calls: int
) -> None:
    """After some calls, when blocks may be stored already."""
    undisturbed = way.run_undisturbed(tmp_path / "undisturbed")
    before, planned = way.calls(), identity_of(way.href)

    def replace() -> None:
        waited(lambda: way.calls() >= before + calls, 100)
        way.scene.replace()

    changing = threading.Thread(target=replace)
    changing.start()
    with pytest.raises(SceneChanged) as caught:
        way.run(tmp_path / "out")
    changing.join()
    detail = caught.value.detail
    assert [each in detail for each in (planned, identity_of(way.href))] == [True, True]
    assert calls != MANY or objects(tmp_path / "out"), "those of chunks that ended before stay"
    require_healed(way, tmp_path / "out", undisturbed)


KINDS: dict[str, dict[str, JsonValue]] = {
    "a reduce of the scene": pipeline(
        stage("mean", "mean", image="$inputs.scene"), outputs={"mean": "$mean.mean"}
    ),
    "a whole image": pipeline(
        stage("ranked", "rank", image="$inputs.scene"), outputs={"image": "$ranked.image"}
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_stage_notices(tmp_path: Path, scene: ReplaceableScene, kind: str) -> None:
    """Chunks without map stages read the scene too."""
    control = run_local(KINDS[kind], tmp_path / "control", {"scene": scene.path})
    assert control.result["status"] == "COMPLETE"
    with pytest.raises(SceneChanged):
        run_local(KINDS[kind], tmp_path / "out", {"scene": scene.path},
                  watcher=AtBegin(scene.replace))  # fmt: skip
    assert not objects(tmp_path / "out")
    assert "result.json" not in tree(tmp_path / "out")


@contextmanager
def replaced_after(scene: ReplaceableScene, log: Path, calls: int) -> Iterator[None]:
    """Replace a scene once a process has written so many lines; requires that the block fails."""

    def replace() -> None:
        waited(lambda: log.exists() and len(log.read_text().splitlines()) >= calls, 60)
        scene.replace()

    changing = threading.Thread(target=replace)
    changing.start()
    with pytest.raises(SceneChanged, match=r"s\.tif"):
        yield
    changing.join()


def test_every_scene_of_a_run_counts(tmp_path: Path, scene: ReplaceableScene) -> None:
    """The second of two inputs is replaced, when it is open already."""
    document = pipeline(
        stage("a", "verbose", image="$inputs.first", log=str(tmp_path / "a")),
        stage("b", "paced", image="$inputs.second", log=str(tmp_path / "b"), seconds=0.1),
        outputs={"image": "$a.image", "other": "$b.image"},
        first="image",
        second="image",
    )
    first = write_scene(tmp_path / "first.tif", noise(WIDTH, HEIGHT, seed=2))
    given = {"first": first, "second": scene.path}
    with replaced_after(scene, tmp_path / "b", 2):
        run_local(document, tmp_path / "out", given, workers=1)


def test_a_local_scene_is_compared_before_each_pack(
    tmp_path: Path, scene: ReplaceableScene
) -> None:
    """Not at the end of the chunk alone: a kill before that would leave the blocks of a pack."""
    log = tmp_path / "log"
    document = chain("paced", log=str(log), seconds=0.3)
    with replaced_after(scene, log, 2):
        run_local(document, tmp_path / "out", {"scene": scene.path}, workers=1, max_tasks=1)
    assert len(log.read_text().splitlines()) < TILES / 2


LEVEL = """
import time
from pathlib import Path
from typing import Annotated

import numpy as np

from pesto_runtime import Named, Raster, process


@process(version="1", tileable="whole")
def level(
    image: Annotated[np.ndarray, Raster(bands=("grey",))], log: str
) -> Annotated[float, Named("level")]:
    Path(log).write_text("called\\n")
    time.sleep(0.5)
    return float(image.mean())
"""


def test_a_value_of_another_scene_is_not_stored(tmp_path: Path, scene: ReplaceableScene) -> None:
    """A whole image was being measured when it was replaced."""
    (tmp_path / "level.py").write_text(LEVEL)
    log = tmp_path / "log"
    document = pipeline(
        stage("level", "level", image="$inputs.scene", log=str(log)),
        outputs={"level": "$level.level"},
    )
    services = (f"level={tmp_path}/level.py:level",)
    with replaced_after(scene, log, 1):
        run_local(document, tmp_path / "out", {"scene": scene.path}, services=services)
    assert not objects(tmp_path / "out")
    scene.put_back()
    done = run_local(document, tmp_path / "out", {"scene": scene.path}, services=services)
    assert done.value("level") == noise(WIDTH, HEIGHT).mean()


def test_the_product_has_the_place_of_the_planned_scene(
    tmp_path: Path, scene: ReplaceableScene
) -> None:
    """The header is read after the last chunk: a scene that has changed by then ends the run."""
    document = chain("verbose", log=str(tmp_path / "log"))

    class AtEnd(SilentListener):
        left = 0

        def begin(self, tiles: int) -> None:
            self.left = tiles

        def advance(self, tiles: int) -> None:
            self.left -= tiles
            if tiles and not self.left:
                scene.replace()

    with pytest.raises(SceneChanged):
        run_local(document, tmp_path / "out", {"scene": scene.path}, watcher=AtEnd(), max_tasks=1)
    assert not {"image.tif", "result.json"} & tree(tmp_path / "out")


def test_the_command_says_so(tmp_path: Path, scene: ReplaceableScene) -> None:
    """Exit code 1, nothing published; the same command runs the new scene."""
    log = tmp_path / "log"
    log.touch()
    path = saved(tmp_path / "p.json", chain("paced", log=str(log), seconds=0.2))

    def replace() -> None:
        waited(lambda: bool(log.read_text()), 60)
        scene.replace()

    changing = threading.Thread(target=replace)
    changing.start()
    words = ("run", path, "-i", f"scene={scene.path}", "-o", tmp_path / "out", "--tile", 200)
    ended = pesto(*words)
    changing.join()
    assert ended.returncode == 1
    assert "is not the scene that was planned" in ended.stderr
    assert not {"image.tif", "result.json"} & tree(tmp_path / "out")
    assert pesto(*words).returncode == 0
    assert np.array_equal(Done(tmp_path / "out", {}).pixels()[0], noise(WIDTH, HEIGHT, seed=1)[0])


@pytest.mark.integration
@pytest.mark.parametrize("reads_hrefs", [True, False])
def test_a_scene_that_is_put_back_has_been_seen_by_a_service(
    tmp_path: Path,
    scene: ReplaceableScene,
    service: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    reads_hrefs: bool,
) -> None:
    """It opens the scene for each tile. A worker that has the old one open reads right pixels."""
    log = tmp_path / "log"
    log.touch()
    document = chain("paced", log=str(log), seconds=0.3)
    settings: Settings = {"workers": 1, "max_tasks": 1, "keep": True}
    if reads_hrefs:
        settings["services"] = (f"paced={service}",)
        refer_always(monkeypatch)

    def calls() -> int:
        return len(log.read_text().splitlines())

    def replace_for_some_calls() -> None:
        waited(lambda: calls() >= 2, 100)
        scene.replace()
        waited(lambda: calls() >= 4 or not running.is_set(), 100)
        scene.put_back()

    running = threading.Event()
    running.set()
    changing = threading.Thread(target=replace_for_some_calls)
    changing.start()
    given, ends = (
        {"scene": scene.path},
        pytest.raises(SceneChanged) if reads_hrefs else nullcontext(),
    )
    try:
        with ends:
            done = run_local(document, tmp_path / "out", given, **settings)
            assert np.array_equal(done.pixels(), noise(WIDTH, HEIGHT))
    finally:
        running.clear()
        changing.join()
    assert bool(objects(tmp_path / "out")) != reads_hrefs


@pytest.mark.integration
def test_a_service_answers_that_a_scene_has_changed(
    scene: ReplaceableScene, service: str, tmp_path: Path
) -> None:
    """409 with both identities, not to be retried; the right identity, and none, are read."""
    href, planned = scene.path.as_uri(), identity_of(str(scene.path))
    log = tmp_path / "log"

    def ask(identity: str | None, where: str = href) -> PestoError | None:
        image = ImageReference(href=where, window=Window(0, 0, 8, 8), identity=identity)
        with Client(service) as client:
            try:
                client.process({"image": image, "log": str(log), "seconds": 0})
            except PestoError as error:
                return error
        return None

    assert ask(planned) is None
    assert ask(None) is None
    scene.replace()
    error = ask(planned)
    assert isinstance(error, SceneChanged)
    assert (error.status, error.retryable) == (409, False)
    assert [each in error.detail for each in (planned, identity_of(href))] == [True, True]
    assert ask(None) is None
    scene.path.unlink()
    assert "no longer exists" in str(ask(planned))
    assert isinstance(ask(None), RasterUnreadable)
