"""The lint against planted mistakes and against right definitions, each a row of a table.

The rows are those that a team tried on a real server before it adopted the project: mistakes that
Conductor accepts, and definitions that it runs.
"""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.deploy import descriptions_of, lint_all
from pesto_runtime.errors import InvalidInput
from tests.support.commands import pesto
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import JsonValue

    Document = dict[str, JsonValue]

FOLDER = ROOT / "workflows" / "conductor"
RENDERED = json.loads((FOLDER / "cloud_cover.json").read_text())
BY_HAND = json.loads((FOLDER / "cloud_cover_by_hand.json").read_text())
GATE = json.loads((FOLDER / "cloud_gate.json").read_text())
FILES = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
TARGETS = ("cloud-mask=examples/cloud_mask.py:cloud_mask", "sieve=examples/sieve.py:sieve",
           "cloud-cover=examples/cloud_cover.py:cloud_cover")  # fmt: skip
DESCRIBE = descriptions_of(ROOT, TARGETS)


def rules(document: Document, *, allow: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Return rule and text of each finding; all committed definitions are at hand."""
    others = [each for each in FILES if each["name"] != document["name"]]
    found = lint_all({"it": [document], "others": others}, describe=DESCRIBE, allow=allow)
    return [(each.rule, str(each)) for each in found["it"]]


def task(kind: str, reference: str, **more: JsonValue) -> Document:
    return {"name": reference, "taskReferenceName": reference, "type": kind, **more}


def simple(name: str, reference: str, **inputs: JsonValue) -> Document:
    return task("SIMPLE", reference, inputParameters=inputs) | {"name": name}


def call(reference: str, reads: str = "x") -> Document:
    return simple("pesto_call", reference, service=reads, values={})


def workflow(*tasks: Document, **more: JsonValue) -> Document:
    return {"name": "w", "inputParameters": ["flag", "scenes"], "tasks": [*tasks], **more}


def sub(name: str = "cloud-cover", version: int = 1, **inputs: JsonValue) -> Document:
    return task(
        "SUB_WORKFLOW", "sub", subWorkflowParam={"name": name, "version": version},
        inputParameters={"scene": "s.tif", "folder": "out", **inputs},
    )  # fmt: skip


def switch(expression: str, *cases: str, kind: str = "graaljs", **inputs: JsonValue) -> Document:
    return task(
        "SWITCH", "s", evaluatorType=kind, expression=expression, inputParameters=inputs,
        decisionCases={case: [call(f"in_{case}")] for case in cases}, defaultCase=[],
    )  # fmt: skip


def inline(expression: str, **inputs: JsonValue) -> Document:
    given = {"evaluatorType": "graaljs", "expression": expression, **inputs}
    return task("INLINE", "i", inputParameters=given)


def loop(condition: str, *body: Document, **inputs: JsonValue) -> Document:
    return task(
        "DO_WHILE", "loop", loopCondition=condition, loopOver=[*body], inputParameters=inputs
    )


def fork(*branches: Document) -> Document:
    return task("FORK_JOIN", "fork", forkTasks=[[each] for each in branches])


def join(*names: str, **more: JsonValue) -> Document:
    return task("JOIN", "join", joinOn=[*names], **more)


def http(**request: JsonValue) -> Document:
    return task("HTTP", "h", inputParameters={"http_request": {"uri": "http://x/", **request}})


def changed(document: Document, right: str, wrong: str) -> Document:
    text = json.dumps(document)
    assert right in text, right
    found: Document = json.loads(text.replace(right, wrong))
    return found


LOOP_END = "$.loop['iteration'] < 3"
STATUS = "${sub.output.status}"

MISTAKES: list[tuple[str, Callable[[], Document]]] = [
    # Conductor's expressions and names
    ("expression", lambda: workflow(sub(), outputParameters={"x": "${sub.output.cover}"})),
    ("script", lambda: workflow(switch("flg", "yes", kind="value-param", flag="x"))),
    ("join", lambda: workflow(fork(call("a"), call("b")), join("a", "c"))),
    (
        "expression",
        lambda: workflow(
            fork(call("a"), call("b")), join("a"), call("c", "${join.output.b.outputs}")
        ),
    ),
    (
        "expression",
        lambda: workflow(
            call("z"), fork(call("a"), call("b")), join("a", "z"), call("c", "${join.output.b}")
        ),
    ),
    ("input", lambda: workflow(simple("pesto_call", "a", servce="x", values={}))),
    ("reference-name", lambda: workflow(call("a"), call("a"))),
    (
        "expression",
        lambda: workflow(fork(call("a"), call("b", "${a.output.outputs}")), join("a", "b")),
    ),
    ("script", lambda: workflow(loop("$.lop['iteration'] < 3", call("a")))),
    # Other workflows
    ("workflow-input", lambda: workflow(sub(scne="s.tif"))),
    ("workflow-input", lambda: workflow(sub() | {"inputParameters": {"scene": "s.tif"}})),
    ("workflow-input", lambda: workflow(sub(workers="four"))),
    ("workflow", lambda: workflow(sub("cloud-covr"))),
    ("workflow", lambda: workflow(sub(version=7))),
    (
        "workflow",
        lambda: workflow(
            task(
                "FORK_JOIN_DYNAMIC",
                "f",
                inputParameters={
                    "forkTaskWorkflow": "cloud_cover",
                    "forkTaskInputs": "${workflow.input.scenes}",
                },
            ),
            join(),
        ),
    ),
    ("workflow", lambda: workflow(call("a"), failureWorkflow="pesto_failur")),
    # Pipelines
    ("pipeline", lambda: changed(BY_HAND, "$mask.cloud", "$mask.clouds")),
    ("pipeline", lambda: changed(BY_HAND, '"process": "sieve"', '"process": "sieve", "tiel": 3')),
    ("pipeline", lambda: changed(BY_HAND, "$mask.cloud", "$msk.cloud")),
    ("pipeline", lambda: changed(BY_HAND, '"scene": "${workflow.input.scene}"', '"": ""')),
    ("pipeline", lambda: changed(BY_HAND, '"raster": "$clean.cloud"', '"raster": "$clen.cloud"')),
    ("pipeline", lambda: changed(BY_HAND, '"stage": "cover"', '"stage": "covr"')),
    # Types at both ends
    ("type", lambda: changed(RENDERED, "${plan.output.chunks[0]}", "${plan.output.chunks}")),
    ("type", lambda: changed(RENDERED, '"phase": 0', '"phase": "${plan.output.run}"')),
    # Scripts
    ("script", lambda: workflow(switch("$.covr > 0.5 ? 'a' : 'b'", "a", cover=1))),
    ("script", lambda: workflow(inline("$.covr + 1", cover=1))),
    ("script", lambda: workflow(loop("$.cont < 3", call("a"), count=1))),
    ("script", lambda: workflow(inline("(function () { return $.a + ; })()", a=1))),
    (
        "script",
        lambda: workflow(
            task("JSON_JQ_TRANSFORM", "j", inputParameters={"queryExpression": ".a | map(", "a": 1})
        ),
    ),
    (
        "case",
        lambda: workflow(sub(), switch("status", "DONE", kind="value-param", status=STATUS)),
    ),
    ("case", lambda: workflow(switch("$.a > 1 ? 'cloudy' : 'clear'", "coudy", a=1))),
    # Texts of which Conductor knows some
    ("join", lambda: workflow(fork(call("a"), call("b")), join())),
    ("literal", lambda: workflow(task("WAIT", "w", inputParameters={"duration": "2 secnds"}))),
    ("literal", lambda: workflow(http(method="PSOT"))),
    (
        "literal",
        lambda: workflow(task("TERMINATE", "t", inputParameters={"terminationStatus": "DONE"})),
    ),
    ("variable", lambda: workflow(call("a", "${workflow.variables.cover}"))),
    ("task-type", lambda: workflow(simple("pestoplan", "p", pipeline={}))),
    ("not-executed", lambda: workflow(http() | {"type": "HTTP_POLL"})),
]


@pytest.mark.parametrize(("rule", "build"), MISTAKES, ids=map(str, range(1, 39)))
def test_each_planted_mistake_is_found_by_its_rule(
    rule: str, build: Callable[[], Document]
) -> None:
    """Only by this rule: with the rule allowed, the definition has no finding."""
    document = build()
    found = rules(document)
    assert {name for name, _ in found} == {rule}, found
    assert rules(document, allow=(rule,)) == []


def started(*handler_actions: Document) -> Document:
    return {"name": "h", "event": "conductor:w:e", "active": True, "actions": [*handler_actions]}


COMPLETE: Document = {
    "action": "complete_task",
    "complete_task": {"workflowId": "${id}", "taskRefName": "approve", "output": {"by": "${by}"}},
}
RIGHT: dict[str, Callable[[], Document]] = {
    "a loop's body reads its counter": lambda: workflow(
        loop(LOOP_END, call("a", "${loop.output.iteration}"))
    ),
    "a loop's body reads a later task of the iteration before": lambda: workflow(
        loop(LOOP_END, call("a", "${b.output.outputs.x}"), call("b"))
    ),
    "a loop ends by an output of its body": lambda: workflow(
        loop("if ($.a['outputs']['n'] > 3) { false; } else { true; }", call("a"))
    ),
    "an event completes a task": lambda: started(COMPLETE),
    "events end and change workflows": lambda: started(
        {"action": "fail_task", "fail_task": {"taskId": "${id}"}},
        {"action": "terminate_workflow", "terminate_workflow": {"workflowId": "${id}"}},
        {
            "action": "update_workflow_variables",
            "update_workflow_variables": {"workflowId": "${id}", "variables": {"a": 1}},
        },
    ),
    "an optional notification": lambda: workflow(http() | {"optional": True}),
    "an optional task of others": lambda: workflow(simple("send_mail", "m") | {"optional": True}),
    "only a name and tasks": lambda: {"name": "w", "tasks": [http()]},
    "an inline task definition and a listener": lambda: workflow(
        simple("send_mail", "m") | {"taskDefinition": {"name": "send_mail", "retryCount": 1}},
        workflowStatusListenerEnabled=True,
    ),
    "an inline sub-workflow": lambda: workflow(
        task("SUB_WORKFLOW", "s", subWorkflowParam={"name": "n", "workflowDefinition": workflow()})
    ),
    "messages to Kafka, HTTP that completes later": lambda: workflow(
        task("KAFKA_PUBLISH", "k", inputParameters={"kafka_request": {"topic": "t"}}),
        http(asyncComplete=True),
    ),
    "times and counts of tasks": lambda: workflow(
        call("a"),
        inline(
            "$.a - $.b + $.c + $.d",
            a="${a.endTime}",
            b="${a.startTime}",
            c="${a.retryCount}",
            d="${a.iteration}",
        ),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_definition_has_no_finding(name: str) -> None:
    """Each of these was refused by an earlier lint."""
    assert rules(RIGHT[name]()) == []


def test_the_definitions_that_mistakes_are_planted_in_are_right() -> None:
    """The control of the table."""
    for document in (RENDERED, BY_HAND, GATE, workflow(sub()), workflow(call("a"))):
        assert rules(deepcopy(document)) == []
    assert len(MISTAKES) == 38


def test_the_command_lints_without_a_server(tmp_path: Path) -> None:
    """Exit code 2 and a line per finding, or JSON; 0 if its rule is allowed, or nothing found."""
    file = tmp_path / "w.json"
    file.write_text(json.dumps(workflow(call("a"), http(method="PSOT"))))
    done = pesto("conductor", "lint", file)
    assert (done.returncode, done.stdout.count("\n")) == (2, 1)
    assert f"{file}: /tasks/1/inputParameters/http_request/method: 'PSOT'" in done.stdout
    assert json.loads(pesto("conductor", "lint", file, "--json").stdout)[0]["rule"] == "literal"
    assert pesto("conductor", "lint", file, "--allow", "literal").returncode == 0
    assert pesto("conductor", "lint", FOLDER / "cloud_cover.json").returncode == 0


def test_a_rule_that_does_not_exist_cannot_be_allowed() -> None:
    """A misspelt rule would allow nothing, silently."""
    with pytest.raises(InvalidInput, match="no rule litteral, only structure"):
        lint_all({}, allow=["litteral"])
