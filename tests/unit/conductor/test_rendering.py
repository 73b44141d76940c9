"""Rendering: the same pipeline, the same file; phase after phase; nothing large in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.definitions import failure_definition
from pesto_conductor.lint import lint
from pesto_conductor.taskdefs import task_definitions
from pesto_conductor.workflows import render, renderer
from pesto_runtime.contract import ChunkResult, Pipeline
from pesto_runtime.engines import RenderRequest, WorkflowSettings, load_renderer
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.run.services import discover
from tests.support.commands import pesto, saved, served
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    Document = dict[str, JsonValue]

COVER = ROOT / "workflows" / "cloud_cover.json"
RENDERED = ROOT / "workflows" / "conductor"
PROCESSES = ROOT / "tests" / "support" / "processes.py"


def rendered(document: Document, folder: Path) -> Document:
    """Return a pipeline's definition; it must have no faults."""
    path = saved(folder / "pipeline.json", document)
    definition = render(RenderRequest(Pipeline.parse(document), path))
    found = lint(definition, tasks=task_definitions(), workflows=[failure_definition()])
    assert found == ()
    return definition


def pipeline(*stages: tuple[str, str, Document], outputs: Document) -> Document:
    """A pipeline over one image of stages (id, process of tests/support, inputs)."""
    return {
        "name": "p",
        "inputs": {"scene": "image"},
        "services": {process: f"{PROCESSES}:{process}" for _, process, _ in stages},
        "stages": [{"id": i, "process": process, "inputs": ins} for i, process, ins in stages],
        "outputs": outputs,
    }


def references(definition: Document) -> list[str]:
    tasks = definition["tasks"]
    assert isinstance(tasks, list)
    return [str(each["taskReferenceName"]) for each in tasks if isinstance(each, dict)]


def test_the_committed_workflow_is_the_output_of_render(tmp_path: Path) -> None:
    """`pesto render` in the root of the repository writes the committed bytes."""
    written = tmp_path / "written.json"
    done = pesto("render", "workflows/cloud_cover.json", "--engine", "conductor", "-o", written)
    assert done.returncode == 0, done.stderr
    assert written.read_text() == (RENDERED / "cloud_cover.json").read_text()


def test_the_committed_failure_workflow_is_ours() -> None:
    """The workflow that cleans up is committed beside the others."""
    assert json.loads((RENDERED / "pesto_failure.json").read_text()) == failure_definition()


def test_rendering_is_found_by_the_name_of_the_engine() -> None:
    """The entry point leads to this renderer."""
    assert load_renderer("conductor") is renderer


def test_a_map_alone_needs_no_closing(tmp_path: Path) -> None:
    """After the chunks only the outputs are missing, which publish writes."""
    definition = rendered(
        pipeline(("a", "grow", {"image": "$inputs.scene"}), outputs={"image": "$a.image"}), tmp_path
    )
    assert references(definition) == ["plan", "fan_out_0", "join_0", "publish"]


def test_a_value_of_the_whole_scene_begins_a_phase(tmp_path: Path) -> None:
    """Map and reduce, then a map that reads the reduce's value: two fan-outs, one close between."""
    definition = rendered(
        pipeline(
            ("a", "grow", {"image": "$inputs.scene"}),
            ("m", "mean", {"image": "$a.image"}),
            ("b", "above", {"image": "$a.image", "level": "$m.mean"}),
            outputs={"image": "$b.image"},
        ),
        tmp_path,
    )
    assert references(definition) == [
        "plan", "fan_out_0", "join_0", "close_0", "fan_out_1", "join_1", "publish",
    ]  # fmt: skip


def test_a_stage_without_images_is_closed_without_a_fan_out(tmp_path: Path) -> None:
    """A call has no chunks: its phase is one task."""
    document: Document = json.loads(COVER.read_text())
    services, stages = document["services"], document["stages"]
    assert isinstance(services, dict)
    assert isinstance(stages, list)
    folder = ROOT / "examples"
    absolute: Document = {
        name: str(target).replace("../examples", str(folder)) for name, target in services.items()
    }
    document["services"] = absolute | {"verdict": f"{folder}/verdict.py:verdict"}
    stages.append({"id": "say", "process": "verdict", "inputs": {"fraction": "$cover.fraction"}})
    document["outputs"] = {"verdict": "$say.verdict"}
    definition = rendered(document, tmp_path)
    assert references(definition) == [
        "plan",
        "fan_out_0",
        "join_0",
        "close_0",
        "close_1",
        "publish",
    ]


def test_no_task_is_optional() -> None:
    """An optional task completes with errors, and its workflow completes over the hole."""
    assert '"optional"' not in renderer.render(RenderRequest(_cover(), COVER))


def test_literals_of_a_pipeline_are_not_read_as_expressions(tmp_path: Path) -> None:
    """`${` in a literal is Conductor's own syntax; it is escaped as Conductor escapes it."""
    document: Document = {
        "name": "p",
        "services": {"verdict": f"{ROOT}/examples/verdict.py:verdict"},
        "stages": [{"id": "v", "process": "verdict", "inputs": {"fraction": 0.5}}],
        "outputs": {"verdict": "$v.verdict"},
        "description": "costs ${workflow.input.folder}",
    }
    assert "$${workflow.input.folder}" in json.dumps(rendered(document, tmp_path)["tasks"])


def test_literals_of_a_stage_are_escaped_too(tmp_path: Path) -> None:
    """Stages are a list; a text in it would otherwise reach the worker without its `${…}`."""
    inputs: Document = {"image": "$inputs.scene", "broken": "/${workflow.input.folder}"}
    document = pipeline(("a", "fragile", inputs), outputs={"image": "$a.image"})
    text = json.dumps(rendered(document, tmp_path)["tasks"])
    assert '"broken": "/$${workflow.input.folder}"' in text


def test_an_input_named_like_a_setting_is_rejected(tmp_path: Path) -> None:
    """`folder` is the name of the output folder."""
    document = pipeline(
        ("a", "grow", {"image": "$inputs.folder"}), outputs={"image": "$a.image"}
    ) | {"inputs": {"folder": "image"}}
    with pytest.raises(InvalidPipeline, match="folder has the name of a setting"):
        rendered(document, tmp_path)


def test_services_of_a_catalog_are_in_the_definition_and_are_not_contacted(tmp_path: Path) -> None:
    """The service has stopped since: rendering uses its saved description, URL and overlay."""
    with served(f"{PROCESSES}:grow") as url:
        discover([url], tmp_path / "catalog")
    (file,) = (tmp_path / "catalog").iterdir()
    overlay: Document = {"title": "Grown"}
    saved(file, {**json.loads(file.read_text()), "overlay": overlay})
    document = pipeline(
        ("a", "grow", {"image": "$inputs.scene"}), outputs={"image": "$a.image"}
    ) | {"services": {}}
    request = RenderRequest(
        Pipeline.parse(document), tmp_path / "p.json", catalog=tmp_path / "catalog"
    )
    defaults = render(request)["inputTemplate"]
    assert isinstance(defaults, dict)
    assert defaults["services"] == {"grow": {"url": [url], "overlay": overlay}}


def test_owner_version_failure_workflow_and_time_limit_are_options(tmp_path: Path) -> None:
    """All four are in the definition; the control has the defaults."""
    words = ("render", "workflows/cloud_cover.json", "--engine", "conductor")
    options = ("--owner", "eo@example.org", "--version", 3, "--failure-workflow", "page_us",
               "--timeout", 600)  # fmt: skip
    keys = ("ownerEmail", "version", "failureWorkflow", "timeoutSeconds", "timeoutPolicy")
    made, plain = (json.loads(pesto(*words, *more).stdout) for more in (options, ()))
    assert [made[key] for key in keys] == ["eo@example.org", 3, "page_us", 600, "TIME_OUT_WF"]
    assert [plain[key] for key in keys] == [
        "pesto@example.com", 1, "pesto_failure", 0, "ALERT_ONLY",
    ]  # fmt: skip
    without = json.loads(pesto(*words, "--failure-workflow", "").stdout)
    assert {**plain, "failureWorkflow": None} == {**without, "failureWorkflow": None}
    assert "failureWorkflow" not in without
    done = pesto("render", "workflows/cloud_cover.json", "--engine", "airflow", *options)
    assert done.returncode == 2
    assert "are for workflow definitions of Conductor" in done.stderr


def test_a_campaign_has_a_fan_out_and_an_end_for_each_phase(tmp_path: Path) -> None:
    """As a run of one scene; it fails at its end, so that the others are published."""
    document = pipeline(
        ("m", "mean", {"image": "$inputs.scene"}),
        ("b", "above", {"image": "$inputs.scene", "level": "$m.mean"}),
        outputs={"image": "$b.image"},
    )
    path = saved(tmp_path / "pipeline.json", document)
    settings = WorkflowSettings(is_campaign=True)
    definition = render(RenderRequest(Pipeline.parse(document), path, workflow=settings))
    assert lint(definition, tasks=task_definitions()) == ()
    assert references(definition) == [
        "plan", "fan_out_0", "join_0", "close_0", "fan_out_1", "join_1", "close_1", "publish",
        "require_scenes",
    ]  # fmt: skip
    wrong = json.loads(json.dumps(definition).replace("output.tasks[0]", "output.task[0]"))
    assert [each.rule for each in lint(wrong, tasks=task_definitions())] == ["expression"]


def test_a_join_of_256_chunks_stays_under_64_kb() -> None:
    """A chunk's result is an href and counts, even where the counts are large."""
    href = f"s3://{'bucket' * 5}/products/.pesto/manifests/{'0' * 32}/0-255.json"
    most = 10**6
    result = ChunkResult(
        manifest=href, tiles=most, reused=most, holes=most, blocks=most, bytes_read=10**12
    )
    join = {f"_fan_out_0_pesto_process_{n}": result.model_dump(mode="json") for n in range(256)}
    size = len(json.dumps(join, separators=(",", ":")))
    assert size > 256 * len(href)  # the control: the results are in it
    assert size < 64 * 1024


def _cover() -> Pipeline:
    return Pipeline.parse(json.loads(COVER.read_text()))
