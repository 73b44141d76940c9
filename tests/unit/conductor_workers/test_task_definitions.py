"""Task definitions: limits, schemas and domains of every task type."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft202012Validator

from pesto_conductor.payloads import CloseOutput
from pesto_conductor.taskdefs import (
    GPU_DOMAIN,
    TaskDefinition,
    service_definition,
    task_definition,
    task_definitions,
)
from pesto_runtime.contract import Description
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from pydantic import JsonValue

CHUNK: dict[str, JsonValue] = {"plan": "file:///p", "phase": 0, "start": 0, "stop": 1}
OBJECT = {"type": "object", "properties": {}}


def described(name: str = "cloud-mask", **more: object) -> Description:
    return Description.parse(
        {"name": name, "version": "1", "input": OBJECT, "output": OBJECT, **more}
    )


@pytest.mark.parametrize("definition", task_definitions(), ids=lambda each: each.name)
def test_every_activity_has_limits_retries_and_valid_schemas(definition) -> None:
    """Both schemas are valid; the response timeout is shorter than the time of an attempt.

    Conductor copies a definition into each task of a fan-out: that of chunks has no schemas.
    """
    document = definition.to_json()
    assert document["retryLogic"] == "EXPONENTIAL_BACKOFF"
    assert 0 < document["responseTimeoutSeconds"] < document["timeoutSeconds"]
    schemas = {"inputSchema", "outputSchema"} & document.keys()
    is_of_chunks = definition.name in ("pesto_process", "pesto_process_scenes")
    assert len(schemas) == (0 if is_of_chunks else 2)
    for side in schemas:
        assert document[side]["type"] == "JSON"
        Draft202012Validator.check_schema(document[side]["data"])
        assert document[side]["data"]["properties"]


@pytest.mark.parametrize("definition", task_definitions(), ids=lambda each: each.name)
def test_every_output_but_those_of_chunks_states_the_version_of_the_worker(
    definition: TaskDefinition,
) -> None:
    """Workers of two versions on one server are told apart; a JOIN of chunks has no room for it."""
    properties = definition.output_schema["properties"]
    assert isinstance(properties, dict)
    assert ("package" in properties) is not definition.is_of_chunks
    assert CloseOutput(unmade=[]).package == version("pesto-workflows")


def test_a_definition_has_an_owner_and_a_time_limit_for_polls() -> None:
    """Without one, a task waits for a worker for ever: a fan-out may be long."""
    plain = task_definition("pesto_plan").to_json()
    assert "pollTimeoutSeconds" not in plain
    timed = replace(task_definition("pesto_plan"), poll_timeout_s=600).to_json(owner="a@b.org")
    assert (timed["pollTimeoutSeconds"], timed["ownerEmail"]) == (600, "a@b.org")


def test_a_task_of_a_service_is_a_chunk_or_a_call() -> None:
    """One type for both, with the service filled in by the definition; a typo is neither."""
    definition = service_definition(described(), ["http://a", "http://b"], at_once=3)
    assert definition.name == "pesto_cloud_mask"
    assert definition.to_json()["inputTemplate"] == {"service": ["http://a", "http://b"]}
    assert definition.to_json()["concurrentExecLimit"] == 3
    schema = task_definition(definition.name).input_schema
    service: dict[str, JsonValue] = {"service": ["http://a"]}
    assert not list(schema_faults(schema, {**CHUNK, **service}))
    assert not list(schema_faults(schema, {"values": {"scene": "file:///s"}, **service}))
    assert list(schema_faults(schema, {**CHUNK, **service, "stopp": 2}))
    assert list(schema_faults(schema, service))


def test_a_service_that_requires_a_gpu_has_the_domain_of_gpus() -> None:
    """The control: a service without a GPU has no domain."""
    gpu = service_definition(described("ships", resources={"gpu": 1}), ["http://a"])
    plain = service_definition(described("sieve", resources={"gpu": 0}), ["http://a"])
    assert (gpu.domain, plain.domain) == (GPU_DOMAIN, None)


def test_a_service_named_like_an_activity_has_another_queue_than_the_activity() -> None:
    """A process may be called `merge` or `plan`."""
    assert service_definition(described("plan"), ["http://a"]).name == "pesto_plan_service"


def test_a_task_type_without_our_prefix_has_no_definition() -> None:
    """Workers do not poll for tasks that they cannot run."""
    with pytest.raises(KeyError):
        task_definition("send_mail")
