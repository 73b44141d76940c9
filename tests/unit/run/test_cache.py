"""A cache gives a run what another run has computed, and nothing else: not a pixel that differs."""

from __future__ import annotations

import logging
import os
import random
import shutil
import stat
from typing import TYPE_CHECKING, Unpack

import pytest

from pesto_runtime.contract import Window
from pesto_runtime.engines import SilentListener
from pesto_runtime.errors import SceneChanged, StoreRefused
from pesto_runtime.run import cache_store
from pesto_runtime.run.cache_pruning import Pruned, listed_cache, prune_cache
from pesto_runtime.store import Store
from tests.support.rasters import ReplaceableScene, noise, write_scene
from tests.support.runs import ROOT, chain, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.engines import ProgressListener
    from pesto_runtime.run.packs import StoredBlocks
    from tests.support.runs import Done, Settings

WIDTH, HEIGHT = 2600, 2300
WHOLE = Window(0, 0, WIDTH, HEIGHT)
FIRST, SECOND = Window(104, 96, 1800, 1700), Window(296, 200, 2000, 1904)
_DETECTIONS = ROOT / "tests" / "support" / "detections.py"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of noise."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    return write_scene(path, noise(WIDTH, HEIGHT), options={"tiled": True})


class Runs:
    """Runs of one pipeline over windows of a scene, each in a folder of its own."""

    def __init__(self, folder: Path, scene: Path, document: Mapping[str, JsonValue]) -> None:
        self.folder, self.scene, self.document = folder, scene, document
        self.cache = folder / "cache"
        self._count = 0

    def run(
        self,
        window: Window = WHOLE,
        *,
        cached: bool = True,
        watcher: ProgressListener | None = None,
        **settings: Unpack[Settings],
    ) -> Done:
        """Run over a window, of tiles as large as blocks."""
        self._count += 1
        part = "" if window == WHOLE else f"#window={','.join(map(str, window))}"
        wanted: Settings = {"tile": 512, "cache": str(self.cache) if cached else None, **settings}
        folder, given = self.folder / f"run{self._count}", {"scene": f"{self.scene}{part}"}
        return run_local(self.document, folder, given, watcher=watcher, **wanted)

    def reference(self, window: Window = WHOLE) -> Done:
        """Run without a cache."""
        return self.run(window, cached=False)

    @property
    def packs(self) -> list[Path]:
        """The packs of the cache."""
        return sorted(self.cache.rglob("*.pack1"))


def calls(done: Done) -> int:
    """Calls of all processes of a run."""
    stages = done.result["stages"]
    assert isinstance(stages, dict)
    return sum(int(str(each["calls"])) for each in stages.values() if isinstance(each, dict))


def expected_tiles(first: Window, second: Window, margins: tuple[int, int, int, int]) -> int:
    """Blocks of a run over `second` that differ from a run over `first`, or are not in it.

    Computed from the definition: a pixel is the same if its surroundings (left, top, right, bottom)
    are cut to the same pixels by both windows.
    """
    left, top, right, bottom = margins
    count = 0
    for row in range(second.row_off, second.row_stop, 512):
        for col in range(second.col_off, second.col_stop, 512):
            corners = (col, row, min(col + 512, second.col_stop), min(row + 512, second.row_stop))
            block = Window.spanning(*corners)
            around = Window.spanning(
                corners[0] - left, corners[1] - top, corners[2] + right, corners[3] + bottom
            )
            is_same = around.intersection(first) == around.intersection(second)
            count += not (is_same and first.contains(block))
    return count


def test_a_second_run_computes_nothing(tmp_path: Path, scene: Path) -> None:
    """Of another folder, as another user has; the bytes are those of a run without a cache."""
    runs = Runs(tmp_path, scene, chain("grow", "grow_far"))
    first, second, reference = runs.run(FIRST), runs.run(FIRST), runs.reference(FIRST)
    assert (calls(first), calls(reference)) == (32, 32)
    assert calls(second) == 0
    assert second.tiles == (0, 16, 0)
    assert second.sha256() == first.sha256() == reference.sha256()


@pytest.mark.parametrize(
    ("names", "margins"),
    [
        (["add_one"], (0, 0, 0, 0)),
        (["grow"], (1, 1, 1, 1)),
        (["grow_far"], (40, 40, 40, 40)),
        (["look_right"], (0, 0, 3, 0)),
        (["grow", "grow_far", "look_right"], (41, 41, 44, 41)),
    ],
    ids=lambda each: "+".join(each) if isinstance(each, list) else "",
)
def test_only_blocks_that_differ_or_are_missing_are_computed(
    tmp_path: Path, scene: Path, names: list[str], margins: tuple[int, int, int, int]
) -> None:
    """Random windows that overlap, also at the edges of the scene, and the whole scene."""
    document = chain(*(name.replace("add_one", "fragile") for name in names))
    dice = random.Random(len(names) + sum(margins))  # noqa: S311  # the same in every run
    for number in range(4):
        runs = Runs(tmp_path / str(number), scene, document)
        first, second = random_window(dice), random_window(dice)
        runs.run(first)
        done = runs.run(second)
        assert done.tiles[0] == expected_tiles(first, second, margins), (first, second)
        assert calls(done) == len(names) * done.tiles[0]
        assert done.sha256() == runs.reference(second).sha256(), (first, second)


def random_window(dice: random.Random) -> Window:
    """A window of some blocks; each side is at the scene's edge now and then."""
    left, top = (dice.choice([0, dice.randrange(600)]) for _ in range(2))
    right = dice.choice([WIDTH, dice.randrange(1900, WIDTH)])
    bottom = dice.choice([HEIGHT, dice.randrange(1800, HEIGHT)])
    return Window.spanning(left, top, right, bottom)


def test_blocks_of_several_runs_are_put_together(tmp_path: Path, scene: Path) -> None:
    """Two halves of the scene without a gap: a pixel process over all of it computes nothing."""
    runs = Runs(tmp_path, scene, chain("fragile"))
    runs.run(Window(0, 0, 1300, HEIGHT))
    runs.run(Window(1300, 0, 1300, HEIGHT))
    done = runs.run()
    assert done.tiles[0] == 0
    assert done.sha256() == runs.reference().sha256()


@pytest.mark.parametrize(
    ("name", "moved", "is_shared"),
    [
        ("enlarge", 1, True),
        ("shrink", 4, True),
        ("shrink", 2, False),
        ("soften", 7, True),
        ("rank", 8, False),
        ("tops", 8, False),
    ],
)
def test_a_grid_may_move_as_far_as_the_process_cannot_notice(
    tmp_path: Path, scene: Path, name: str, moved: int, is_shared: bool
) -> None:
    """By its alignment; not for one of whole rasters, and not for one that receives the tile."""
    runs = Runs(tmp_path, scene, chain(name))
    second = Window(moved, moved, 1800, 1700)
    runs.run()
    done = runs.run(second)
    assert bool(done.tiles[1]) is is_shared
    assert done.sha256() == runs.reference(second).sha256()
    assert calls(runs.run()) == 0, "the same window is always shared"


def test_pixels_that_are_mirrored_at_an_edge_are_computed(tmp_path: Path, scene: Path) -> None:
    """Both windows begin at the scene's edges, which a margin of 2 mirrors."""
    runs = Runs(tmp_path, scene, chain("soften"))
    first, second = Window(0, 0, 1800, 1700), Window(0, 0, 2300, 2000)
    runs.run(first)
    done = runs.run(second)
    assert done.sha256("image") == runs.reference(second).sha256("image")
    assert done.tiles == (5 * 4 - 4, 4, 0), "rows 1 and 2 of blocks, and columns 1 and 2"


def test_reduces_vectors_and_values_are_shared(tmp_path: Path, scene: Path) -> None:
    """The partials of a reduce, the features and whole rasters of the same window."""
    document = pipeline(
        stage("whole", "rank", image="$inputs.scene"),
        stage("m", "mean", image="$inputs.scene"),
        stage("bright", "above", image="$inputs.scene", level="$m.mean"),
        stage("found", "boxes", image="$bright.image"),
        outputs={"ranked": "$whole.image", "mean": "$m.mean", "boxes": "$found.boxes"},
    )
    services = document["services"]
    assert isinstance(services, dict)
    services["boxes"] = f"{_DETECTIONS}:boxes"
    runs = Runs(tmp_path, scene, document)
    window = Window(0, 0, 700, 600)
    first, second = runs.run(window), runs.run(window)
    assert calls(first) > 8
    assert calls(second) == 1, "only the end of the reduce"
    assert second.value("mean") == first.value("mean")
    assert second.sha256("ranked") == first.sha256("ranked")
    files = [(each.folder / "boxes.geojson").read_bytes() for each in (first, second)]
    assert files[0] == files[1]


def test_a_reduce_over_another_window_folds_the_pixels_of_the_cache(
    tmp_path: Path, scene: Path
) -> None:
    """Its partials are those of other blocks: they are computed from cached pixels."""
    document = pipeline(
        stage("a", "grow", image="$inputs.scene"),
        stage("m", "mean", image="$a.image"),
        outputs={"mean": "$m.mean", "image": "$a.image"},
    )
    runs = Runs(tmp_path, scene, document)
    runs.run()
    done, reference = runs.run(SECOND), runs.reference(SECOND)
    assert 0 < done.tiles[0] < reference.tiles[0]
    assert done.value("mean") == reference.value("mean")


@pytest.mark.parametrize("first", ["mean", "rank"])
def test_what_depends_on_the_whole_window_is_not_shared(tmp_path: Path, first: str) -> None:
    """A threshold from a mean, and a filter after a process of whole rasters."""
    follows = {
        "mean": stage("b", "above", image="$inputs.scene", level="$a.mean"),
        "rank": stage("b", "grow", image="$a.image"),
    }
    document = pipeline(
        stage("a", first, image="$inputs.scene"), follows[first], outputs={"image": "$b.image"}
    )
    pixels = noise(1400, 1300)
    pixels[:, 1200:] = 201  # the windows have other means and other ranges
    runs = Runs(tmp_path, write_scene(tmp_path / "uneven.tif", pixels), document)
    window = Window(0, 0, 1400, 1190)
    runs.run(Window(0, 0, 1400, 1300))
    done = runs.run(window)
    assert done.sha256() == runs.reference(window).sha256()


def test_windows_of_two_scenes_must_be_as_far_apart(tmp_path: Path) -> None:
    """Scenes without a place may be cut at different pixels: the offset is part of the keys."""
    document = pipeline(
        stage("sum", "add", first="$inputs.first", second="$inputs.second"),
        outputs={"image": "$sum.image"}, first="image", second="image",
    )  # fmt: skip
    names = [
        write_scene(
            tmp_path / f"{seed}.tif", noise(1300, 1300, seed=seed), crs=None, transform=None
        )
        for seed in range(2)
    ]

    def run(folder: str, first: str, second: str, cache: str | None) -> Done:
        given = {"first": f"{names[0]}#window={first}", "second": f"{names[1]}#window={second}"}
        return run_local(document, tmp_path / folder, given, tile=512, cache=cache)

    cache = str(tmp_path / "cache")
    run("a", "0,0,1100,1100", "0,0,1100,1100", cache)
    for folder, first, second, reused in (
        ("b", "0,0,1100,1100", "10,0,1100,1100", 0),
        ("c", "10,10,1040,1040", "10,10,1040,1040", 9),
        ("d", "20,10,1040,1040", "30,10,1040,1040", 9),  # as b
    ):
        done = run(folder, first, second, cache)
        assert done.tiles[1] == reused, folder
        assert done.sha256() == run(f"{folder}-alone", first, second, None).sha256()


def change_pixels(path: Path) -> None:
    """Change one pixel, and put the time of the file back, as a careless copy does."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_another_scene_process_or_codec_has_no_block_in_common(
    tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the tests above: each change of what a plan pins computes everything."""
    own = tmp_path / "scene.tif"
    shutil.copy(scene, own)
    window = Window(0, 0, 600, 600)
    Runs(tmp_path, own, chain("fragile")).run(window)
    cache = tmp_path / "cache"

    def tiles(path: Path, document: Mapping[str, JsonValue], **settings: Unpack[Settings]) -> int:
        runs = Runs(tmp_path / str(random.random()), path, document)  # noqa: S311  # a new folder
        runs.cache = cache
        return runs.run(window, **settings).tiles[0]

    assert tiles(own, chain("fragile")) == 0
    assert tiles(own, chain("fragile", broken="/none")) == 4, "another value"
    assert tiles(own, chain("fragile_without_nodata")) == 4, "another process"
    assert tiles(own, chain("fragile"), compress="zstd") == 4, "another codec"
    (tmp_path / "copy.py").write_text(f"{(ROOT / 'tests/support/processes.py').read_text()}\n#\n")
    document = chain("fragile")
    document["services"] = {"fragile": f"{tmp_path / 'copy.py'}:fragile"}
    assert tiles(own, document) == 4, "other code"
    change_pixels(own)
    assert tiles(own, chain("fragile")) == 4, "another scene of the same size, time and inode"
    monkeypatch.setattr("pesto_runtime.pipeline.plan.PRODUCT_FORMAT", 99)
    assert tiles(own, chain("fragile")) == 4, "another format of products"


@pytest.mark.parametrize("way", ["flip", "cut", "forge", "swap", "foreign"])
def test_a_block_that_is_not_the_planned_one_is_computed(
    tmp_path: Path, scene: Path, way: str
) -> None:
    """Damaged, with checksums that fit; of another place; of another key: none is served."""
    runs = Runs(tmp_path, scene, chain("grow"))
    window = Window(0, 0, 1000, 1000)
    reference = runs.run(window)
    {"flip": flip, "cut": cut, "forge": forge, "swap": swap, "foreign": foreign}[way](runs)
    done = runs.run(window)
    assert done.tiles == (4, 0, 0)
    assert done.sha256() == reference.sha256()
    assert runs.run(window).tiles == (0, 4, 0), "and the cache has been mended"


def flip(runs: Runs) -> None:
    """Change one bit of every block."""
    for pack in runs.packs:
        data = bytearray(pack.read_bytes())
        for _, offset, length in parts_of(data):
            data[offset + length // 2] ^= 1
        pack.write_bytes(data)


def cut(runs: Runs) -> None:
    """Cut the packs in half."""
    for pack in runs.packs:
        pack.write_bytes(pack.read_bytes()[: pack.stat().st_size // 2])


def forge(runs: Runs) -> None:
    """Change a byte of each block, and make the checksums of blocks and pack fit."""
    for pack in runs.packs:
        data = bytearray(pack.read_bytes())
        for _, offset, length in parts_of(data):
            data[offset + length // 2] ^= 1
        seal_pack(runs, pack, data, [index for index, *_ in parts_of(data)])


def swap(runs: Runs) -> None:
    """Exchange the places of blocks, and make the checksums fit."""
    for pack in runs.packs:
        data = bytearray(pack.read_bytes())
        turned = [(1 - row, 1 - col) for (row, col), *_ in parts_of(data)]
        seal_pack(runs, pack, data, turned)


def foreign(runs: Runs) -> None:
    """Put the blocks of another process in their place, with checksums of the new name."""
    (key,) = runs.cache.glob("pesto-cache-1/*/blocks/*")
    other = Runs(runs.folder / "other", runs.scene, chain("look_right"))
    other.run(Window(0, 0, 1000, 1000))
    (source,) = other.cache.glob("pesto-cache-1/*/blocks/*")
    shutil.rmtree(key)
    shutil.copytree(source, key)
    for pack in runs.packs:
        data = bytearray(pack.read_bytes())
        seal_pack(runs, pack, data, [index for index, *_ in parts_of(data)])


def parts_of(data: bytearray) -> list[tuple[tuple[int, int], int, int]]:
    """Index, offset and length of each block of a pack, by its documented layout."""
    from tests.support.packs import END, PLACE

    count, _ = END.unpack(data[-END.size :])
    footer = data[-END.size - count * PLACE.size : -END.size]
    places = PLACE.iter_unpack(footer)
    return [((row, col), offset, length) for row, col, offset, length, _ in places]


def seal_pack(runs: Runs, pack: Path, data: bytearray, indices: list[tuple[int, int]]) -> None:
    """Write a pack with blocks at other places, and with all checksums of its own layout."""
    from hashlib import sha256
    from zlib import crc32

    from tests.support.packs import END, PLACE

    blocks = parts_of(data)
    body = bytes(data[: max(offset + length for _, offset, length in blocks)])
    footer = b"".join(
        PLACE.pack(*index, offset, length, crc32(body[offset : offset + length]))
        for index, (_, offset, length) in zip(indices, blocks, strict=True)
    )
    name = str(pack.relative_to(runs.cache)).encode()
    digest = sha256(name + b"\0" + footer).digest()
    pack.write_bytes(body + footer + END.pack(len(blocks), digest))


def test_only_holders_of_the_secret_can_put_blocks_into_a_cache(
    tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of runs without it are not served, also in the folder of those with it."""
    runs, window = Runs(tmp_path, scene, chain("grow")), Window(0, 0, 600, 600)
    runs.run(window)
    (of_others,) = (runs.cache / "pesto-cache-1").iterdir()
    monkeypatch.setenv("PESTO_CACHE_SECRET", "of the group")
    assert runs.run(window).tiles == (4, 0, 0)
    assert runs.run(window).tiles == (0, 4, 0)
    (own,) = {*(runs.cache / "pesto-cache-1").iterdir()} - {of_others}
    shutil.rmtree(own)
    of_others.rename(own)
    for pack in runs.packs:
        data = bytearray(pack.read_bytes())
        seal_pack(runs, pack, data, [index for index, *_ in parts_of(data)])
    assert runs.run(window).tiles == (4, 0, 0)


def test_a_cache_may_be_pruned_while_runs_use_it(tmp_path: Path, scene: Path) -> None:
    """What is gone is computed, and the product is right."""
    runs = Runs(tmp_path, scene, chain("grow"))
    reference = runs.run()
    shutil.copytree(runs.cache, tmp_path / "copy")
    deleted: list[Pruned] = []
    read = cache_store.CacheStore.read

    def pruned_read(
        self: cache_store.CacheStore, folder: str, stored: StoredBlocks, index: tuple[int, int]
    ) -> bytes | None:
        if not deleted:
            deleted.append(prune_cache(str(runs.cache), size=0))
        return read(self, folder, stored, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_store.CacheStore, "read", pruned_read)
        done = runs.run(workers=1)
    assert deleted
    assert deleted[0].objects > 0
    assert done.tiles[0] > 0
    assert done.sha256() == reference.sha256()


def test_prune_keeps_what_was_used_last(tmp_path: Path, scene: Path) -> None:
    """By age, then by size; a run that takes blocks from a pack uses it."""
    runs = Runs(tmp_path, scene, chain("grow"))
    old, new = Window(0, 0, 600, 600), Window(1000, 1000, 600, 600)
    runs.run(old)
    runs.run(new)
    for pack in runs.packs:
        os.utime(pack, (0, 0))
    runs.run(old)
    used = [pack for pack in runs.packs if pack.stat().st_mtime > 1]
    assert 0 < len(used) < len(runs.packs)
    (entry,) = listed_cache(str(runs.cache))
    assert (entry.process, entry.scene) == ("grow", f"file://{scene}")
    assert entry.size == sum(each.stat().st_size for each in runs.packs)
    most = sum(each.stat().st_size for each in used)
    before = runs.packs
    assert prune_cache(str(runs.cache), size=most, dry_run=True).kept == most
    assert runs.packs == before
    assert prune_cache(str(runs.cache), size=most).kept == most
    assert runs.packs == used
    assert prune_cache(str(runs.cache), size=0).kept == 0
    assert not [*runs.cache.iterdir()]


def test_files_of_a_shared_cache_have_the_permissions_of_its_folder(
    tmp_path: Path, scene: Path
) -> None:
    """The group of a folder `2770` reads and writes what a user with umask 077 has stored."""
    runs = Runs(tmp_path, scene, chain("grow"))
    runs.cache.mkdir()
    runs.cache.chmod(0o2770)
    before = os.umask(0o077)
    try:
        runs.run(Window(0, 0, 600, 600))
    finally:
        os.umask(before)
    for path in runs.cache.rglob("*"):
        wanted = 0o2770 if path.is_dir() else 0o660
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_a_broken_cache_slows_a_run_and_does_not_fail_it(
    tmp_path: Path, scene: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its folder for blocks cannot be written: one line in the log, all tiles are computed."""
    runs, window = Runs(tmp_path, scene, chain("grow")), Window(0, 0, 600, 600)
    root = cache_store.CacheStore(Store("memory:///")).root
    (runs.cache / root).mkdir(parents=True)
    (runs.cache / root / "blocks").write_text("a file in its place")
    with caplog.at_level(logging.WARNING):
        assert runs.run(window).tiles == (4, 0, 0)
    lines = [each for each in caplog.messages if str(runs.cache) in each]
    assert 1 <= len(lines) <= 2
    assert runs.run(window).tiles == (4, 0, 0)


@pytest.mark.parametrize("place", ["https://example.org/cache", "ftp://h/c", "/proc/cache"])
def test_a_place_that_cannot_be_a_cache_is_refused_before_the_run(
    tmp_path: Path, scene: Path, place: str
) -> None:
    """The error names the option's value."""
    runs = Runs(tmp_path, scene, chain("grow"))
    runs.cache = place  # type: ignore[assignment]
    with pytest.raises(StoreRefused, match="cannot be a cache"):
        runs.run(Window(0, 0, 600, 600))
    assert not (tmp_path / "run1" / "image.tif").exists()


def test_a_scene_that_changes_during_a_chunk_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    """Blocks go into the cache when the scene has been compared with the plan at the end."""
    changing = ReplaceableScene(tmp_path / "scene.tif", 1100, 600)
    document = chain("paced", log=str(tmp_path / "log"), seconds=0.2)
    runs = Runs(tmp_path, changing.path, document)

    class Replacer(SilentListener):
        """Replaces the scene after the first tile."""

        def advance(self, tiles: int) -> None:
            """Replace it once."""
            if tiles and not done:
                changing.replace()
                done.append(tiles)

    done: list[int] = []
    with pytest.raises(SceneChanged):
        runs.run(Window(0, 0, 1100, 600), workers=1, max_tasks=1, watcher=Replacer())
    assert done
    assert runs.packs == []
    changing.put_back()
    runs.run(Window(0, 0, 1100, 600))
    assert runs.packs, "the control"


def test_two_runs_fill_one_cache_at_once(tmp_path: Path, scene: Path) -> None:
    """Two processes per run, of overlapping windows: both are right, and the cache, too."""
    from concurrent.futures import ThreadPoolExecutor

    runs = Runs(tmp_path, scene, chain("grow"))
    other = Runs(tmp_path / "other", scene, chain("grow"))
    other.cache = runs.cache
    with ThreadPoolExecutor(2) as pool:
        done = [*pool.map(lambda each: each.run(SECOND, executor="processes"), [runs, other])]
    reference = runs.reference(SECOND)
    assert {each.sha256() for each in done} == {reference.sha256()}
    assert runs.run(SECOND).tiles == (0, 16, 0)
