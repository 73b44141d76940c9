"""`pesto test`: a project's own recorded calls, replayed against its service."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from pesto_runtime.raster.codec import decode_image, encode_image
from tests.support.commands import pesto, served
from tests.support.projects import scene, write_project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.endurance, pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "scaled")


def test_a_project_passes_its_own_calls_and_writes_both_reports(project: Path) -> None:
    """Exit code 0; results.json and junit.xml have each case."""
    out = project / "out"
    made = pesto("test", project, "-o", out)
    assert made.returncode == 0, made.stderr
    results = json.loads((out / "results.json").read_text())
    assert [each["name"] for each in results["cases"]] == ["description", "test_1"]
    assert (results["passed"], results["failed"]) == (2, 0)
    suite = ET.parse(out / "junit.xml").getroot().find("testsuite")  # noqa: S314  # our own file
    assert suite is not None
    assert suite.attrib["tests"] == "2"


def test_each_planted_difference_fails_the_command(project: Path) -> None:
    """Value, order of a list, pixel, CRS, an output that is not there: all in one report."""
    resources = project / "pesto" / "tests" / "resources"
    for name in ("mean", "order", "pixel", "crs", "absent"):
        shutil.copytree(resources / "test_1", resources / f"test_{name}")
    outputs = {name: resources / f"test_{name}" / "output" for name in
               ("mean", "order", "pixel", "crs", "absent")}  # fmt: skip
    (outputs["mean"] / "mean.float").write_text("5.0")
    (outputs["order"] / "images" / "3.png").rename(outputs["order"] / "images" / "20.png")
    pixels = scene(2).pixels.copy()
    pixels[0, 2, 3] += 1
    write(outputs["pixel"] / "image.tif", pixels=pixels)
    write(outputs["crs"] / "image.tif", crs="EPSG:4326")
    (outputs["absent"] / "other.int").write_text("1")
    made = pesto("test", project, "--json", "-o", project / "out")
    report = json.loads(made.stdout)
    failed = {each["name"]: each["errors"] for each in report["cases"] if not each["passed"]}
    assert made.returncode == 1
    assert sorted(failed) == ["test_absent", "test_crs", "test_mean", "test_order", "test_pixel"]
    assert "row 2, col 3" in failed["test_pixel"][0]["detail"]
    assert failed["test_order"][0]["pointer"] == "/images/3"
    assert 'failures="5"' in (project / "out" / "junit.xml").read_text()


def test_outputs_are_held_to_the_output_schema(project: Path) -> None:
    """Without recorded outputs, an output beyond its schema still fails."""
    case = project / "pesto" / "tests" / "resources" / "test_1"
    shutil.rmtree(case / "output")
    (case / "input" / "factor.float").write_text("1000")
    made = pesto("test", project)
    assert made.returncode == 1
    assert "/mean: must be at most 10000" in made.stdout


def test_profiles_are_those_of_the_service(project: Path) -> None:
    """With a profile the outputs are other ones; its own recorded ones pass."""
    assert pesto("test", project, "-p", "big").returncode == 1
    recorded = pesto("test", project, "-p", "big", "--record")
    assert recorded.returncode == 0, recorded.stderr
    output = project / "pesto" / "tests" / "resources" / "test_1" / "output"
    assert (output / "word.string").read_text() == "1.2.0-big"
    image = decode_image((output / "image.tif").read_bytes())
    assert np.array_equal(image.pixels, scene(10).pixels)
    assert (image.crs, image.nodata) == ("EPSG:32631", 7)
    assert pesto("test", project, "-p", "big").returncode == 0


def test_a_running_service_is_tested_by_its_url(project: Path) -> None:
    """With --cases; without them, its description and examples alone."""
    cases = project / "pesto" / "tests" / "resources"
    with served(str(project)) as url:
        made = pesto("test", url, "--cases", cases)
        alone = pesto("test", url)
    assert made.returncode == 0, made.stdout
    assert "2 cases, 0 failed" in made.stdout
    assert "1 cases, 0 failed" in alone.stdout


def write(path: Path, **facts: object) -> None:
    """Write the right result with other facts."""
    from dataclasses import replace

    path.write_bytes(encode_image(replace(scene(2), **facts), "image/tiff"))  # type: ignore[arg-type]  # fields of an image
