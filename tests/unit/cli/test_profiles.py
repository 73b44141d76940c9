"""Profiles of a PESTO project on every command that takes a target."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.raster.codec import decode_image
from tests.support.projects import PIXELS, write_project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Command


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the profile `big`, and a second one."""
    folder = write_project(tmp_path / "scaled")
    changes = {"title": "Fast", "resources": {"ram": 2}}
    (folder / "pesto" / "api" / "description.fast.json").write_text(json.dumps(changes))
    return folder


@pytest.mark.parametrize(
    "words", [("-p", "big", "fast"), ("-p", "big", "-p", "fast"), ("-p", "big,fast")]
)
def test_three_spellings_apply_profiles_in_order(
    pesto: Command, project: Path, words: tuple[str, ...]
) -> None:
    """Each changes what it names, at every depth; the last one wins."""
    said = json.loads(pesto("describe", project, *words, "--json").out)
    assert (said["title"], said["resources"]) == ("Fast", {"cpu": 1, "gpu": 1, "ram": 2})
    other = json.loads(pesto("describe", project, "-p", "fast", "big", "--json").out)
    assert other["resources"] == {"cpu": 1, "gpu": 1, "ram": 8}


def test_before_the_target_one_word_is_a_profile(pesto: Command, project: Path) -> None:
    """The next word is the target, as it always was."""
    said = json.loads(pesto("describe", "-p", "fast", project, "--json").out)
    assert said["title"] == "Fast"


def test_code_runs_with_its_profiles_in_calls_and_in_runs(
    pesto: Command, project: Path, tmp_path: Path
) -> None:
    """`process`, `check`, `plan` and `run`; in a pipeline by the target's own text."""
    scene = project / "pesto" / "tests" / "resources" / "test_1" / "input" / "image.tif"
    called = pesto("process", project, "-i", f"image={scene}", "-o", f"image={tmp_path / 'a.tif'}",
                   "-p", "big")  # fmt: skip
    assert json.loads(called.out)["word"] == "1.2.0-big"
    for command in ("check", "plan"):
        assert pesto(command, project, "-p", "big", "-i", f"image={scene}").code == 0
    out = tmp_path / "out"
    made = pesto("run", project, "-p", "big", "-i", f"image={scene}", "-o", out, "--no-report")
    assert made.code == 0, made.err
    assert (decode_image((out / "image.tif").read_bytes()).pixels == PIXELS * 10).all()
    plain = tmp_path / "plain"
    assert pesto("run", project, "-i", f"image={scene}", "-o", plain, "--no-report").code == 0
    assert (decode_image((plain / "image.tif").read_bytes()).pixels == PIXELS * 2).all()


def test_what_is_wrong_with_a_profile_is_an_error(pesto: Command, project: Path) -> None:
    """An unknown one, a broken file, a file that changes nothing, a service."""
    unknown = pesto("describe", project, "-p", "tiny")
    assert unknown.code == 2
    assert "there is big, fast" in unknown.err
    api = project / "pesto" / "api"
    (api / "descripton.lost.json").write_text("{}")
    assert (
        "changes descripton.json, which does not exist"
        in pesto("describe", project, "-p", "lost").err
    )
    (api / "description.fast.json").write_text('{"title": }')
    broken = pesto("describe", project, "-p", "fast")
    assert broken.code == 2
    assert "description.fast.json" in broken.err
    assert "line 1 column 11" in broken.err
    served = pesto("describe", "http://127.0.0.1:1", "-p", "big")
    assert (served.code, "has no option -p" in served.err) == (2, True)
