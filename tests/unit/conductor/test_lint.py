"""The lint finds errors that Conductor accepts, and expressions that would become null in a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.lint import lint
from pesto_conductor.taskdefs import task_definitions
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    Document = dict[str, JsonValue]

FOLDER = ROOT / "workflows" / "conductor"
FILES = sorted(FOLDER.glob("*.json"))


def read(path: Path) -> Document:
    document: Document = json.loads(path.read_text())
    return document


def faults(document: Document) -> list[str]:
    """Return the faults that the lint finds, knowing all committed workflows."""
    found = lint(document, tasks=task_definitions(), workflows=[read(path) for path in FILES])
    return [str(each) for each in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_committed_definitions_have_no_faults(path: Path) -> None:
    """Every file of workflows/conductor passes."""
    assert faults(read(path)) == []


def test_there_are_definitions_to_lint() -> None:
    """The control of the test above: the folder is not empty."""
    assert len(FILES) >= 8


# Right text, wrong text -> part of the message.
MISSPELT = [
    ("plan.output.chunks[0]", "plan.output.chunk[0]", "has no field 'chunk'"),
    ("plan.output.chunks[0]", "plan.output.plan[0]", "is not an array"),
    ("${plan.output.plan}", "${plans.output.plan}", "no earlier task has this name"),
    ("${plan.output.plan}", "${publish.output.result}", "no earlier task has this name"),
    ("${plan.output.plan}", "${plan.outputs.plan}", "must continue with .output or .input"),
    ("${publish.output.result}", "${publish.output.results}", "has no field 'results'"),
    ("${workflow.input.folder}", "${workflow.input.foldr}", "not one of the inputParameters"),
    ("${workflow.input.folder}", "${workflow.inputs.folder}", "which a workflow does not have"),
    ('"pesto_process"', '"pesto_proces"', "no task type 'pesto_proces'"),
    ('"pesto_publish"', '"pesto_publsh"', "no task type 'pesto_publsh'"),
    ('"phase": 0', '"phase": "first"', "must be integer"),
    ('"phase": 0', '"phases": 0', "no such input"),
    ('"phase": 0', '"phases": 0', "requires phase"),
    ('"taskReferenceName"', '"taskRefName"', "unexpected"),
    ('"type": "JOIN"', '"type": "JION"', "must be one of"),
    ('"joinOn": []', '"joinon": []', "unexpected"),
    ('"joinOn": []', '"joinOn": [], "joinMode": "SYNCH"', "must be one of"),
    ('"joinOn": []', '"joinOn": [], "optional": true', "an optional task hides holes"),
    ('"timeoutPolicy": "ALERT_ONLY"', '"timeoutPolicy": "ALERT"', "must be one of"),
    ('"forkTaskInputs"', '"forkTaskInput"', "'forkTaskInputs' is a required property"),
    ('"joinOn": []', '"joinOn": ["mosaic"]', "no earlier task is called 'mosaic'"),
    ('"joinOn": []', '"joinOn": ["publish"]', "no earlier task is called 'publish'"),
    ('"type": "JOIN"', '"type": "EXCLUSIVE_JOIN"', "must be followed by a JOIN"),
    ("${plan.output.plan}", "${plan.output.plan", "has no } after it"),
    ('"pesto_process"', '"pesto_cloud"', "--per-service URL adds"),
    ('"taskReferenceName": "publish"', '"taskReferenceName": "plan"', "is not unique"),
]


@pytest.mark.parametrize(("right", "wrong", "message"), MISSPELT)
def test_a_misspelt_name_is_an_error(right: str, wrong: str, message: str) -> None:
    """One planted mistake at a time in the rendered workflow; the lint names it."""
    text = (FOLDER / "cloud_cover.json").read_text()
    assert right in text
    found = faults(json.loads(text.replace(right, wrong)))
    assert any(message in each for each in found), found


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('"uri"', '"url"', "'uri' is a required property"),
        ('"uri"', '"url"', "'url' was unexpected"),
        ('"accept"', '"acept"', "'acept' was unexpected"),
        ('{"uri": "${workflow.input.service}/describe"', '{"verb": "x"', "'uri'"),
    ],
)
def test_a_misspelt_key_of_an_http_request_is_an_error(
    right: str, wrong: str, message: str
) -> None:
    """Conductor would send the request to no address, or without the header of the key."""
    text = (FOLDER / "without_workers.json").read_text()
    assert right in text
    found = faults(json.loads(text.replace(right, wrong)))
    assert any(message in each for each in found), found


@pytest.mark.parametrize(
    "text", ["$${plan", "{a: 1", "${a.output.outputs.x} {", "} ${workflow.input.flag}"]
)
def test_braces_that_begin_no_expression_are_text(text: str) -> None:
    """The control of the unclosed expression: JQ and scripts contain many braces."""
    assert faults(workflow(task("a"), task("b", text))) == []


def test_a_join_may_not_wait_for_a_task_after_it() -> None:
    """It would never end; the tests of forks below are the control."""
    join: Document = {"name": "j", "taskReferenceName": "j", "type": "JOIN", "joinOn": ["a", "b"]}
    (fault,) = faults(workflow(task("a"), join, task("b")))
    assert fault.startswith("/tasks/1/joinOn/1: no earlier task is called 'b'")


def task(reference: str, reads: str = "x", **more: JsonValue) -> Document:
    return {
        "name": "pesto_call",
        "taskReferenceName": reference,
        "type": "SIMPLE",
        "inputParameters": {"service": reads, "values": {}},
        **more,
    }


def workflow(*tasks: Document, **outputs: JsonValue) -> Document:
    return {
        "name": "w",
        "version": 1,
        "schemaVersion": 2,
        "ownerEmail": "a@b",
        "timeoutPolicy": "ALERT_ONLY",
        "timeoutSeconds": 0,
        "inputParameters": ["flag"],
        "tasks": [*tasks],
        "outputParameters": outputs,
    }


def switch(*branch: Document, default: tuple[Document, ...] = ()) -> Document:
    return {
        "name": "s",
        "taskReferenceName": "s",
        "type": "SWITCH",
        "evaluatorType": "value-param",
        "expression": "flag",
        "inputParameters": {"flag": "${workflow.input.flag}"},
        "decisionCases": {"yes": [*branch]},
        "defaultCase": [*default],
    }


def test_a_branch_reads_earlier_tasks_before_it_and_in_it() -> None:
    """Inside a branch, its own earlier tasks have always run."""
    inside = switch(task("b", "${a.output.outputs.x}"), task("c", "${b.output.outputs.x}"))
    assert faults(workflow(task("a"), inside)) == []


def test_a_task_after_a_switch_may_not_read_a_branch() -> None:
    """It would receive null; the outputs of the workflow may be null."""
    branch = switch(task("b"))
    assert faults(workflow(branch, b="${b.output.outputs.x}")) == []
    (fault,) = faults(workflow(branch, task("c", "${b.output.outputs.x}")))
    assert "does not always run" in fault


def test_all_branches_of_a_fork_have_run_after_it_and_cannot_read_each_other() -> None:
    """FORK_JOIN runs all of them, in parallel."""

    def forked(*branches: Document) -> Document:
        return {"name": "f", "taskReferenceName": "f", "type": "FORK_JOIN",
                "forkTasks": [[each] for each in branches]}  # fmt: skip

    join: Document = {
        "name": "j", "taskReferenceName": "j", "type": "JOIN", "joinOn": ["a", "b"],
    }  # fmt: skip
    after = task("c", "${a.output.outputs.x}${j.output.b.outputs}")
    assert faults(workflow(forked(task("a"), task("b")), join, after)) == []
    (fault,) = faults(workflow(forked(task("a"), task("b", "${a.output.outputs.x}")), join))
    assert "no earlier task" in fault
    (fault,) = faults(workflow(forked(task("a"), task("b")), join, task("c", "${j.output.d}")))
    assert "has no field 'd'" in fault


def test_outputs_of_a_known_sub_workflow_are_known() -> None:
    """Those of cloud-cover are outputs, result, status and tiles."""
    sub: Document = {
        "name": "sub",
        "taskReferenceName": "sub",
        "type": "SUB_WORKFLOW",
        "subWorkflowParam": {"name": "cloud-cover", "version": 1},
        "inputParameters": {"scene": "${workflow.input.flag}", "folder": "out"},
    }
    assert faults(workflow(sub, x="${sub.output.outputs.cover}")) == []
    (fault,) = faults(workflow(sub, x="${sub.output.cover}"))
    assert "has no field 'cover'" in fault


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"active"', '"actve"'),
        ('"conductor:announce-scene:new_scene"', '"announce-scene"'),
        ('"action": "start_workflow"', '"action": "start_workflw"'),
        ('"input"', '"inputs"'),
    ],
)
def test_a_misspelt_key_of_an_event_handler_is_an_error(right: str, wrong: str) -> None:
    """A handler with a misspelt key would never start a workflow."""
    text = (FOLDER / "on_new_scene.json").read_text()
    assert right in text
    assert faults(json.loads(text)) == []
    assert faults(json.loads(text.replace(right, wrong))) != []
