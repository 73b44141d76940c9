"""The form of a call is its process's input schema: Airflow refuses what the service would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from pesto_airflow.catalog import inputs_of, params_of, read_saved, require_no_drift
from pesto_airflow.process_call import ServiceCall
from pesto_runtime.contract import Description
from pesto_runtime.errors import InvalidContract, InvalidInput
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

MASK = ROOT / "dags" / "catalog" / "cloud-mask@1.0.0.json"
DOCUMENT = json.loads(MASK.read_text())


def described(**ports: object) -> Description:
    """A process of these input ports; those called `needed…` are required."""
    schema = {**DOCUMENT["description"]["input"], "properties": ports}
    schema["required"] = [name for name in ports if name.startswith("needed")]
    return Description.parse({**DOCUMENT["description"], "input": schema, "tileable": "whole"})


def filled(description: Description, values: dict[str, object]) -> dict[str, object]:
    """What Airflow makes of a form's values."""
    params = ParamsDict({**params_of(description)})
    params.update(values)
    return params.validate()


def test_a_form_asks_for_what_the_schema_requires() -> None:
    """Images by href; a default is filled in; bounds and choices hold."""
    description = described(
        needed_scene={"$ref": "#/definitions/Image"},
        needed_more={"$ref": "#/definitions/Images"},
        level={"type": "number", "minimum": 0, "default": 0.5, "description": "How much"},
        needed_way={"enum": ["up", "down"]},
        note={"type": "string"},
    )
    right: dict[str, object] = {
        "needed_scene": "file:///a.tif", "needed_more": ["s3://b/c.tif"], "needed_way": "up",
    }  # fmt: skip
    assert filled(description, right) == {**right, "level": 0.5, "note": None}
    for wrong in (
        {"level": -1}, {"level": "high"}, {"needed_way": "left"}, {"needed_scene": ""},
        {"needed_more": [""]}, {"note": 3},
    ):  # fmt: skip
        with pytest.raises(ParamValidationError):
            filled(description, {**right, **wrong})
    with pytest.raises(ParamValidationError):
        filled(description, {"needed_scene": "file:///a.tif"})


def test_what_was_left_empty_is_left_out() -> None:
    """And a run's other params are no inputs."""
    description = described(needed_scene={"$ref": "#/definitions/Image"}, note={"type": "string"})
    params = {"needed_scene": "file:///a.tif", "note": None, "service": "http://mask"}
    assert inputs_of(description, params) == {"needed_scene": "file:///a.tif"}


def test_a_saved_description_is_read_with_its_overlay(tmp_path: Path) -> None:
    """The overlay counts for forms and placement, the service's own word for drift."""
    path = tmp_path / "saved.json"
    path.write_text(json.dumps({**DOCUMENT, "overlay": {"resources": {"gpu": 1}}}))
    saved = read_saved(path)
    assert saved.url == DOCUMENT["url"]
    assert saved.description.known.resources.gpu == 1
    assert saved.said.digest == DOCUMENT["digest"]


def test_breaking_drift_is_an_error_and_other_drift_is_returned() -> None:
    """A larger margin is breaking, another title is not; the same description has no drift."""
    saved = read_saved(MASK)
    document = saved.said.to_json()
    assert require_no_drift(saved, saved.said, where="there") == ()
    retitled = Description.parse({**document, "title": "Other"})
    assert require_no_drift(saved, retitled, where="there") == ("/title: the text changed",)
    wider = json.loads(json.dumps(document))
    wider["input"]["properties"]["scene"]["x-raster"]["margin"] = 3
    with pytest.raises(InvalidContract, match=r"cloud-mask@1\.0\.0\.json") as caught:
        require_no_drift(saved, Description.parse(wider), where="there")
    (field,) = caught.value.fields
    assert field.pointer == "/input/properties/scene/x-raster/margin"


def test_a_description_without_a_url_has_that_of_a_connection(tmp_path: Path) -> None:
    """Of the default one, if the task names none; with a URL none is read (control)."""
    document = json.loads(MASK.read_text())
    del document["url"]
    path = tmp_path / "mask.json"
    path.write_text(json.dumps(document))
    assert read_saved(path).url is None
    ids = [
        ServiceCall(saved=str(each), service=None, pesto_conn_id=None).hook.pesto_conn_id
        for each in (path, MASK)
    ]
    assert ids == ["pesto_default", None]


@pytest.mark.parametrize("text", ["", "[]", '{"url": "http://mask"}', '{"url": 1}'])
def test_what_is_no_saved_description_is_refused(tmp_path: Path, text: str) -> None:
    """By the file's name, while the DAG file is read."""
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=r"broken\.json"):
        read_saved(path)
    with pytest.raises(InvalidInput, match="pesto discover"):
        read_saved(tmp_path / "absent.json")
