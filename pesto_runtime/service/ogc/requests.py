"""Read execute requests of OGC API - Processes (OGC 18-062r2, section 7.11) as calls of PESTO."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationError

from pesto_runtime.contract import bad_fields
from pesto_runtime.contract.base import Value
from pesto_runtime.errors import InvalidInput, shortened
from pesto_runtime.service.request import Faults, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.contract import Description, Port
    from pesto_runtime.service.input_values import ValueValidator

_QUALIFIED = frozenset({"value", "mediaType", "encoding", "schema", "format"})
_REFERENCE = ("href", "window", "bands", "identity")


class OutputChoice(Value):
    """How one output is to be returned."""

    model_config = ConfigDict(extra="ignore")
    transmission_mode: Literal["value", "reference"] = Field("value", alias="transmissionMode")


class Subscriber(Value):
    """Where the end of a job is reported."""

    model_config = ConfigDict(extra="ignore")
    success_uri: str | None = Field(None, alias="successUri")
    in_progress_uri: str | None = Field(None, alias="inProgressUri")
    failed_uri: str | None = Field(None, alias="failedUri")


class ExecuteRequest(Value):
    """The body of an execution.

    Attributes:
        inputs: Input name -> value, `{"value": …}`, `{"href": …}`, or a list of them.
        outputs: Output name -> how it is returned; None for all outputs, by value.
        response: `raw` for the outputs themselves, `document` for a JSON document with them.
        subscriber: Where the end of the job is reported.
    """

    model_config = ConfigDict(extra="ignore")
    inputs: dict[str, JsonValue] = Field(default_factory=dict)
    outputs: dict[str, OutputChoice] | None = None
    response: Literal["raw", "document"] = "raw"
    subscriber: Subscriber | None = None

    @classmethod
    def of(cls, body: bytes) -> ExecuteRequest:
        """Read a body.

        Raises:
            BadRequest: it is not JSON.
            InvalidInput: a field is wrong.
        """
        document = read_json(body, "the body")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidInput.of("execute request", bad_fields(error, value=document)) from error

    def call(self, description: Description, validator: ValueValidator) -> bytes:
        """Return the body of PESTO's call with these inputs.

        Args:
            description: Of the process.
            validator: Of its values.

        Raises:
            InvalidInput: an input or output is unknown, absent, or does not match its schema.
        """
        faults = Faults()
        names = [each.name for each in description.inputs]
        for name in self.inputs:
            if name not in names:
                faults.add(f"/inputs/{name}", f"is unknown; inputs are {', '.join(names)}")
        outputs = [each.name for each in description.outputs]
        for name in self.outputs or {}:
            if name not in outputs:
                faults.add(f"/outputs/{name}", f"is unknown; outputs are {', '.join(outputs)}")
        values = {
            port.name: _value(port, self.inputs[port.name])
            for port in description.inputs if port.name in self.inputs
        }  # fmt: skip
        validator.validate(values, faults)
        faults.raise_any(f"execution of {description.name!r}")
        return json.dumps(values).encode()


def _value(port: Port, given: JsonValue) -> JsonValue:
    """Return an input as PESTO has it: without what qualifies it."""
    if port.kind == "images":
        return [_one(port, each) for each in (given if isinstance(given, list) else [given])]
    if isinstance(given, list) and port.kind != "image":
        return [_one(port, each) for each in given]
    return _one(port, given)


def _one(port: Port, given: JsonValue) -> JsonValue:
    if not isinstance(given, dict):
        return given
    if "value" in given and given.keys() <= _QUALIFIED:
        return given["value"]
    if port.kind in ("image", "images") and "href" in given:
        return {name: given[name] for name in _REFERENCE if name in given}
    if isinstance(given.get("href"), str) and given.keys() <= {"href", "rel", "type", "title"}:
        raise InvalidInput(
            f"input {port.name!r} is a value of JSON, and is not fetched from "
            f"{shortened(given['href'])}; send the value"
        )
    return given


def choice_of(request: ExecuteRequest) -> dict[str, JsonValue]:
    """Return what is stored with a job of its request: how its results are returned."""
    chosen: Mapping[str, object] = request.model_dump(
        mode="json", by_alias=True, exclude={"inputs"}, exclude_none=True
    )
    return dict(chosen)  # type: ignore[arg-type]  # JSON
