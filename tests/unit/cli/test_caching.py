"""`pesto run --cache`, `pesto cache ls` and `pesto cache prune`, as a user types them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.rasters import noise, write_scene
from tests.support.runs import PROCESSES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Command


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a scene, and a cache with the blocks of a run."""
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "s.tif", noise(600, 500))
    return tmp_path


def run(pesto: Command, out: str, *more: object) -> dict[str, int]:
    """Run a process with the cache; return the counts of its tiles."""
    words = ("--cache", "cache", "--tile", 256, "--no-report", "--json", *more)
    done = pesto("run", f"{PROCESSES}:grow", "-i", "image=s.tif", "-o", out, *words)
    assert done.code == 0, done.err
    tiles: dict[str, int] = json.loads(done.out)["tiles"]
    return tiles


def test_a_cache_is_listed_and_pruned(pesto: Command, folder: Path) -> None:
    """Sizes and ages as other tools write them; a dry run deletes nothing."""
    assert run(pesto, "a")["computed"] == 6
    assert run(pesto, "b") == {"computed": 0, "reused": 6, "holes": 0}
    shown = pesto("cache", "ls", "cache").out
    assert "grow" in shown
    assert str(folder / "s.tif") in shown
    (entry,) = json.loads(pesto("cache", "ls", "cache", "--json").out)
    assert entry["process"] == "grow"
    would = pesto("cache", "prune", "cache", "--max-size", "0", "--dry-run")
    assert would.out.startswith("would delete")
    assert pesto("cache", "prune", "cache", "--max-age", "1h").out.startswith("deleted 0.0 MB in 0")
    assert run(pesto, "c")["reused"] == 6
    done = json.loads(pesto("cache", "prune", "cache", "--max-size", "1KiB", "--json").out)
    assert (done["kept_bytes"], done["bytes"] > entry["bytes"]) == (0, True)
    assert pesto("cache", "ls", "cache").out == "0.0 MB of 0 keys\n"
    assert run(pesto, "d")["computed"] == 6


def test_a_campaign_has_a_cache_too(pesto: Command, folder: Path) -> None:
    """Its scenes are found in other folders and other campaigns."""
    (folder / "scenes.json").write_text(json.dumps(["s.tif"]))
    for out, computed in (("a", 6), ("b", 0)):
        words = ("--scenes", "scenes.json", "--cache", "cache", "--tile", 256, "-o", out, "--json")
        done = pesto("run", f"{PROCESSES}:grow", *words)
        assert done.code == 0, done.err
        result = json.loads((folder / out / "s" / "result.json").read_text())
        assert result["tiles"]["computed"] == computed


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("prune", "cache"), "give --max-size, --max-age or both"),
        (("prune", "cache", "--max-size", "many"), "size 'many' is not a number of bytes"),
        (("prune", "cache", "--max-size", "-1"), "size '-1' is not a number of bytes"),
        (("prune", "cache", "--max-age", "30"), "age '30' is not a number with s, m, h, d or w"),
        (("ls", "https://example.org/cache"), "cannot be a cache"),
    ],
)
def test_wrong_words_are_refused(pesto: Command, words: tuple[str, ...], text: str) -> None:
    """With the value, and what is allowed."""
    done = pesto("cache", *words)
    assert done.code == 2
    assert text in done.err


@pytest.mark.parametrize("words", [("ls",), ("prune", "--max-size", "1MB")])
def test_a_cache_that_does_not_exist_is_a_typing_error(
    pesto: Command, folder: Path, words: tuple[str, ...]
) -> None:
    """It is not created."""
    done = pesto("cache", words[0], "nowhere", *words[1:])
    assert done.code == 2
    assert "is no folder" in done.err
    assert not (folder / "nowhere").exists()
