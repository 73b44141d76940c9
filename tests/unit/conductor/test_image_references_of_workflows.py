"""Images in the input of a workflow: bands and window as text and as an object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.deploy import read_inputs
from pesto_runtime.errors import InvalidInput
from pesto_runtime.schema import schema_faults
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

RENDERED = json.loads((ROOT / "workflows" / "conductor" / "cloud_cover.json").read_text())


def read(text: str) -> JsonValue:
    """The workflow's input for a text of the command line."""
    return read_inputs(RENDERED, {"scene": text, "folder": "/out"})["scene"]


def test_a_path_becomes_an_href_and_keeps_its_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers have another working directory."""
    monkeypatch.chdir(tmp_path)
    href = f"file://{tmp_path}/a.tif"
    assert read("a.tif") == href
    assert read("a.tif#bands=green:2,nir:4") == f"{href}#bands=green:2,nir:4"
    assert read('{"href": "a.tif", "bands": [2, 4]}') == f"{href}#bands=2,4"
    older = json.loads(json.dumps(RENDERED))  # of a version whose images are texts only
    older["inputSchema"]["data"]["properties"]["scene"]["type"] = "string"
    texts = {"scene": "a.tif#bands=2,4", "folder": "out#1"}
    found = read_inputs(older, texts)
    assert (found["scene"], found["folder"]) == (f"{href}#bands=2,4", f"file://{tmp_path}/out%231")
    with pytest.raises(InvalidInput, match="HREF#bands=green:2,nir:4"):
        read("a.tif#bands=0")


def test_an_object_fits_the_schema_of_the_input() -> None:
    """As the event that starts a workflow has it; a number does not."""
    schema = RENDERED["inputSchema"]["data"]
    good: JsonValue = {"scene": {"href": "s3://b/a.tif", "bands": {"green": 2}}, "folder": "/out"}
    assert list(schema_faults(schema, good)) == []
    assert list(schema_faults(schema, {"scene": 5, "folder": "/out"})) != []
