"""Objects of the store that are not as they were written: missing, made again, never published."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import Damaged, NotFound
from pesto_runtime.hrefs import file_href
from pesto_runtime.run import packs
from pesto_runtime.run.closing import close_phase
from pesto_runtime.run.context import load_context
from pesto_runtime.store import Store
from tests.support.packs import packed_blocks
from tests.support.processes import MARKER
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import Done, Settings, chain, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pydantic import JsonValue

WIDTH, HEIGHT = 1100, 600  # 3 x 2 blocks
DOCUMENT = pipeline(
    stage("grown", "grow", image="$inputs.scene"),
    stage("mean", "mean", image="$grown.image"),
    stage("high", "above", image="$grown.image", level="$mean.mean"),
    outputs={"image": "$grown.image", "high": "$high.image", "mean": "$mean.mean"},
)
SETTINGS: Settings = {"keep": True}
FOLDERS = ("blocks", "partials", "scalars", "manifests", "plans", "rasters")


def flip(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """One bit is another."""
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]


def cut(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """The end is missing."""
    return data[: dice.randrange(1, len(data))]


def empty(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """Nothing is left."""
    return b""


def swap(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """It is a whole object of the same kind, of another place."""
    different = [each for each in others if each != data]
    return dice.choice(different) if different else b"\0" * len(data)


def foreign(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """It has never been an object of this store."""
    return dice.randbytes(len(data))


HARMS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    flip, cut, empty, swap, foreign,
)  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", noise(WIDTH, HEIGHT))


def products(done: Done) -> tuple[str, str, JsonValue]:
    return done.sha256(), done.sha256("high"), done.value("mean")


def objects(folder: Path, kind: str) -> list[Path]:
    place = folder / ".pesto" / kind
    return sorted(path for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("harm", HARMS, ids=lambda each: each.__name__)
def test_a_damaged_object_is_made_again_by_the_same_command(
    tmp_path: Path, scene: Path, kind: str, harm: Callable[..., bytes]
) -> None:
    """As after a kill: the result is not there yet, and one object is not what it was."""
    first = run_local(DOCUMENT, tmp_path / "out", {"scene": scene}, **SETTINGS)
    expected = products(first)
    (first.folder / "result.json").unlink()
    dice = random.Random(f"{kind} {harm.__name__}")  # noqa: S311  # the same in every run
    paths = objects(first.folder, kind)
    victim = dice.choice(paths)
    victim.write_bytes(harm(victim.read_bytes(), [each.read_bytes() for each in paths], dice))
    load_context.cache_clear()

    again = run_local(DOCUMENT, tmp_path / "out", {"scene": scene}, **SETTINGS)

    assert again.result["status"] == "COMPLETE"
    assert products(again) == expected


def test_a_store_that_trusts_its_disk_would_publish_the_damage(
    tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without the comparison of checksums, a flipped bit is published."""
    first = run_local(DOCUMENT, tmp_path / "out", {"scene": scene}, **SETTINGS)
    expected = products(first)
    (first.folder / "result.json").unlink()
    key = json.loads(objects(first.folder, "plans")[0].read_bytes().rpartition(b"\n")[0])["keys"]
    store = first.folder / ".pesto"
    named = f"blocks/{key['$grown.image']}/0/0"
    (victim,) = [each for each in packed_blocks(store) if each.name == named]
    data = bytearray(victim.pack.read_bytes())
    data[victim.offset + 1000] ^= 4
    victim.pack.write_bytes(data)

    class Trusting(int):
        """Equals every checksum."""

        def __ne__(self, other: object) -> bool:
            return False

    monkeypatch.setattr(packs, "crc32", lambda _: Trusting())
    load_context.cache_clear()
    again = run_local(DOCUMENT, tmp_path / "out", {"scene": scene}, **SETTINGS)
    assert again.result["status"] == "COMPLETE"
    assert products(again) != expected


@pytest.mark.parametrize("kind", ["blocks", "partials", "manifests"])
def test_what_is_damaged_after_its_chunk_is_made_again_before_it_is_used(
    tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Between the chunks and the end of the run: nobody starts the command again."""
    expected = products(run_local(DOCUMENT, tmp_path / "control", {"scene": scene}))
    done: list[str] = []

    def harmed(plan_href: str, number: int) -> tuple[str, ...]:
        if not done:
            victim = objects(tmp_path / "out", kind)[0]
            data = bytearray(victim.read_bytes())
            data[len(data) // 2] ^= 1
            victim.write_bytes(data)
            done.append(victim.name)
        return close_phase(plan_href, number)

    monkeypatch.setattr("pesto_runtime.run.local.close_phase", harmed)
    made = run_local(DOCUMENT, tmp_path / "out", {"scene": scene})
    assert done
    assert made.result["status"] == "COMPLETE"
    assert products(made) == expected
    assert not (tmp_path / "out" / ".pesto").exists()


def test_an_unfinished_product_that_is_damaged_is_written_anew(tmp_path: Path, scene: Path) -> None:
    """What a killed writer has left is not read."""
    first = run_local(DOCUMENT, tmp_path / "out", {"scene": scene}, **SETTINGS)
    expected = products(first)
    (first.folder / "result.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            run_local(DOCUMENT, tmp_path / "out", {"scene": scene}, **SETTINGS)
    part = next((first.folder / ".pesto").glob("*.part"))
    part.write_bytes(part.read_bytes()[::-1])

    again = run_local(DOCUMENT, tmp_path / "out", {"scene": scene}, **SETTINGS)
    assert products(again) == expected


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["holes", "blocks", "unfinished"])
@pytest.mark.parametrize("harm", [flip, empty], ids=lambda each: each.__name__)
def test_a_real_hole_does_not_excuse_a_damaged_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, harm: Callable[..., bytes]
) -> None:
    """The product has the nodata of the failed tile alone, as that of an undisturbed run."""
    pixels, broken = noise(WIDTH, HEIGHT), tmp_path / "broken"
    pixels[0, 300, 300] = MARKER
    scene = write_scene(tmp_path / "h.tif", pixels)
    broken.touch()
    document = chain("fragile", broken=str(broken))
    expected = run_local(document, tmp_path / "control", {"scene": scene})
    assert expected.tiles[2] == 1
    dice, done = random.Random(kind), list[str]()  # noqa: S311  # the same in every run

    def harmed(plan_href: str, number: int) -> tuple[str, ...]:
        for path in objects(tmp_path / "out", kind)[:2]:
            path.write_bytes(harm(path.read_bytes(), [], dice))
            done.append(path.name)
        return close_phase(plan_href, number)

    monkeypatch.setattr("pesto_runtime.run.local.close_phase", harmed)
    made = run_local(document, tmp_path / "out", {"scene": scene})
    assert done
    assert made.result["status"] == "PARTIAL"
    assert made.sha256() == expected.sha256()


def test_an_object_says_what_is_wrong_once_and_is_gone(tmp_path: Path) -> None:
    """The reader deletes it: for every later reader it is missing."""
    store = Store(file_href(tmp_path))
    store.put("a/1", b"first")
    store.put("a/2", b"second")
    assert store.get("a/1") == b"first"
    (tmp_path / "a" / "1").write_bytes((tmp_path / "a" / "2").read_bytes())
    with pytest.raises(Damaged, match=r"a/1 was damaged: its checksum differs"):
        store.get("a/1")
    with pytest.raises(NotFound, match=r"a/1 does not exist"):
        store.get("a/1")
    assert store.get("a/2") == b"second"
    assert tree(tmp_path) == {"a/2"}
    assert not store.has("a/1")
    assert store.has("a/2")
