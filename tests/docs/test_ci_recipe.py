"""The workflow of examples/ci is valid, and its commands work on a project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator

from tests.docs.markdown import ROOT
from tests.support.projects import write_project

if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPE = ROOT / "examples" / "ci" / "pesto-project.yml"
NEEDS_A_BUILDER = ("Build the image", "Repeat the recorded calls in the image", "Publish the image")


def steps() -> Iterator[tuple[str, str]]:
    """Name and command of each step that has one."""
    for step in document()["jobs"]["process"]["steps"]:
        if "run" in step:
            yield step["name"], step["run"]


def document() -> dict[Any, Any]:
    """The workflow; YAML reads its key `on` as true."""
    found = yaml.safe_load(RECIPE.read_text())
    return {("on" if key is True else key): value for key, value in found.items()}


def test_the_workflow_fits_its_schema() -> None:
    """The schema of the code host; a step with an unknown key does not fit."""
    validator = Draft7Validator(get_builtin_schema("vendor.github-workflows"))
    workflow = document()
    assert [*validator.iter_errors(workflow)] == []
    workflow["jobs"]["process"]["steps"][0]["command"] = "x"
    assert [*validator.iter_errors(workflow)] != []


def test_the_commands_of_the_workflow_are_known() -> None:
    """Those that a machine without a builder cannot run are the ones that the test leaves out."""
    names = [name for name, _ in steps()]
    assert names[0] == "Install"
    assert set(NEEDS_A_BUILDER) < set(names)


@pytest.mark.endurance
@pytest.mark.integration
@pytest.mark.timeout(600)
def test_the_commands_work_on_a_project(tmp_path: Path) -> None:
    """Recorded calls, contract kit, build context; a wrong recorded output ends the delivery."""
    project = write_project(tmp_path / "scaled")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **document()["env"]}

    def run(command: str) -> int:
        words = [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", command]
        return subprocess.run(words, cwd=project, env=environment, check=False).returncode

    known = dict(steps())
    left = {name: text for name, text in known.items() if name not in (*NEEDS_A_BUILDER, "Install")}
    assert {name: run(text) for name, text in left.items()} == dict.fromkeys(left, 0)
    written = {each.relative_to(project / "build").as_posix()
               for each in (project / "build").rglob("*") if each.is_file()}  # fmt: skip
    assert {"digest", "sbom.spdx.json", "kit.xml", "tests/junit.xml"} <= written
    case = project / "pesto" / "tests" / "resources" / "test_1" / "output"
    (case / "mean.float").write_text("5.0")
    assert run(known["Repeat the recorded calls"]) == 1
