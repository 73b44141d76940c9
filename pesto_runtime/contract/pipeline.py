"""A pipeline: services bound to each other by name, and nothing about how it is run."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue, StringConstraints, ValidationError

from pesto_runtime.contract.call import bad_fields
from pesto_runtime.contract.raster import ClosedValue
from pesto_runtime.errors import InvalidPipeline, shortened

Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
InputType: TypeAlias = Literal["image", "number", "integer", "string", "boolean", "object", "array"]
_REFERENCE = re.compile(r"^\$(?P<owner>[A-Za-z][A-Za-z0-9_-]*)\.(?P<port>[A-Za-z_][A-Za-z0-9_-]*)$")


class Reference(ClosedValue):
    """`$inputs.NAME` or `$STAGE.OUTPUT`.

    Attributes:
        owner: A stage's id, or `inputs`.
        port: The input's or output's name.
    """

    owner: str
    port: str

    def __str__(self) -> str:
        return f"${self.owner}.{self.port}"

    @property
    def is_input(self) -> bool:
        """Whether it names an input of the pipeline."""
        return self.owner == "inputs"


class Stage(ClosedValue):
    """One process in a pipeline, its inputs bound."""

    id: Name
    process: str = Field(min_length=1)
    inputs: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Input port -> `$inputs.NAME`, `$STAGE.OUTPUT` or a literal; `$$` escapes `$`.",
    )


class Pipeline(ClosedValue):
    """Stages in order, what they are given and what is kept of them."""

    name: Name
    description: str = ""
    inputs: dict[Name, InputType] = Field(default_factory=dict)
    services: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="Process name -> target, URL, or URLs of replicas."
    )
    pins: dict[str, str] = Field(default_factory=dict, description="Process name -> digest.")
    stages: tuple[Stage, ...] = Field(min_length=1)
    outputs: dict[Name, str] = Field(min_length=1, description="Name -> `$STAGE.OUTPUT`.")

    @classmethod
    def parse(cls, document: object) -> Pipeline:
        """Read a pipeline's JSON.

        Raises:
            InvalidPipeline: with every field that does not fit the schema.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidPipeline.of("pipeline", bad_fields(error, value=document)) from error

    def to_json(self) -> dict[str, JsonValue]:
        """The pipeline as JSON, without what is at its default."""
        document: dict[str, JsonValue] = self.model_dump(mode="json", exclude_defaults=True)
        return document

    def stage(self, stage_id: str) -> Stage | None:
        """The stage of this id."""
        return next((stage for stage in self.stages if stage.id == stage_id), None)


def parse_binding(value: JsonValue) -> Reference | None:
    """Read a binding: a reference, or None where the value is a literal.

    >>> parse_binding("$mask.cloud")
    Reference(owner='mask', port='cloud')
    >>> parse_binding("$$5")

    Raises:
        InvalidPipeline: a string that starts with a single `$` and is no reference.
    """
    if not isinstance(value, str) or not value.startswith("$") or value.startswith("$$"):
        return None
    match = _REFERENCE.match(value)
    if match is None:
        raise InvalidPipeline(
            f"{shortened(value)} is neither $inputs.NAME nor $STAGE.OUTPUT; "
            "write $$ for a literal dollar sign"
        )
    return Reference(owner=match["owner"], port=match["port"])


def literal(value: JsonValue) -> JsonValue:
    """The literal that a binding stands for: `$$x` is `$x`, all else is itself."""
    if isinstance(value, str) and value.startswith("$$"):
        return value[1:]
    return value
