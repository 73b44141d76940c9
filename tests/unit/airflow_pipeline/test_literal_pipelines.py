"""The texts of a pipeline are no templates: as a dict and as a file it is the same pipeline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest

from pesto_airflow import PestoPlanOperator
from pesto_runtime.contract import Pipeline
from pesto_runtime.run.context import load_context
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airflow.sdk import Context
    from pydantic import JsonValue

SOURCE = '''
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process


@process(version="1.0.0", margin=0)
def noted(
    scene: np.ndarray, note: str, words: list[str] | None = None
) -> Annotated[np.ndarray, Raster(name="out")]:
    """Return the scene."""
    return scene.copy()
'''
TEXTS = ("tile {{ row }}", "{% raw %}", "{{ ds }}", "{# gone #}", "{{", "100 %}", "a{{ 1 + 1 }}b")


class Pushed:
    """The part of a task instance that the operator uses."""

    def __init__(self) -> None:
        """Start without XComs."""
        self.xcoms: dict[str, str] = {}

    def xcom_push(self, key: str, value: str) -> None:
        """Keep an XCom."""
        self.xcoms[key] = value


def document(folder: Path, text: str) -> dict[str, JsonValue]:
    """A pipeline with a text in its description, in a literal and in a list."""
    (folder / "noted.py").write_text(SOURCE)
    inputs: dict[str, JsonValue] = {"scene": "$inputs.scene", "note": text, "words": [text]}
    return {
        "name": "noted", "description": text, "inputs": {"scene": "image"},
        "services": {"noted": f"{folder}/noted.py:noted"},
        "stages": [{"id": "s", "process": "noted", "inputs": inputs}],
        "outputs": {"out": "$s.out"},
    }  # fmt: skip


def planned(operator: PestoPlanOperator) -> tuple[str, Pipeline]:
    """Render the templates as a worker does, and plan."""
    pushed = Pushed()
    context = cast("Context", {"ti": pushed, "ds": "2026-11-27", "folder": str(operator.base)})
    operator.render_template_fields(context)
    operator.perform(context)
    plan = load_context(pushed.xcoms["plan"]).plan
    return plan.run, Pipeline.parse(plan.pipeline)


@pytest.mark.parametrize("text", TEXTS)
def test_the_texts_of_a_pipeline_are_not_rendered(tmp_path: Path, text: str) -> None:
    """The plan of the dict is that of the file: the same key, the same literals."""
    made = document(tmp_path, text)
    (tmp_path / "noted.json").write_text(json.dumps(made))
    scene = str(write_scene(tmp_path / "s.tif", noise(9, 9)))
    forms: list[Mapping[str, JsonValue] | Path] = [made, tmp_path / "noted.json"]
    plans = [
        planned(
            PestoPlanOperator(
                task_id=f"plan{number}", pipeline=pipeline, inputs={"scene": scene},
                folder=tmp_path / f"out{number}", base=tmp_path,
            )
        )
        for number, pipeline in enumerate(forms)
    ]  # fmt: skip
    assert plans[0] == plans[1]
    stage = plans[0][1].stages[0]
    assert (stage.inputs["note"], stage.inputs["words"]) == (text, [text])


def test_inputs_and_the_path_of_a_pipeline_are_rendered(tmp_path: Path) -> None:
    """Negative control: they are values of the DAG's author."""
    (tmp_path / "noted.json").write_text(json.dumps(document(tmp_path, "x")))
    write_scene(tmp_path / "s.tif", noise(9, 9))
    operator = PestoPlanOperator(
        task_id="plan", pipeline="{{ folder }}/noted.json", base=tmp_path,
        inputs={"scene": "{{ folder }}/s.tif"}, folder="{{ folder }}/out",
    )  # fmt: skip
    _, pipeline = planned(operator)
    assert pipeline.name == "noted"
