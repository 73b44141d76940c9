"""Define a pipeline, and compare the descriptions that it was checked against.

Processes are bound to each other by name. How and where a pipeline runs is not part of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, JsonValue, StringConstraints, ValidationError, field_validator

from pesto_runtime.contract.base import ClosedValue
from pesto_runtime.contract.call import bad_fields
from pesto_runtime.contract.raster import RasterContract
from pesto_runtime.errors import InvalidPipeline, json_pointer, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pesto_runtime.contract.description import Description
    from pesto_runtime.contract.process_ports import Port

Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
InputType: TypeAlias = Literal[
    "image", "images", "number", "integer", "string", "boolean", "object", "array", "inherit"
]
LIVE = "live:"
"""Prefix of the target of a function that exists only in one process, as in a notebook."""
PROFILES = "#profiles="
"""Stands between the directory of a PESTO project and its profiles in a target."""

_REFERENCE = re.compile(
    r"^\$(?P<owner>[A-Za-z][A-Za-z0-9_-]*)\.(?P<port>[A-Za-z_][A-Za-z0-9_-]*(\.\d+)?)$"
)

_TEXT = ("title", "description", "examples", "example")
_GEOMETRY = (
    "bands", "dtype", "nodata", "values", "scaled", "margin", "edge", "fill", "scale", "align",
    "exactness", "tile", "mask",
)  # fmt: skip
_COMPARED = ("name", "version", "tileable", "x-reduce", "input", "output", "_links")


class Reference(ClosedValue):
    """`$inputs.NAME` or `$STAGE.OUTPUT`; `$inputs.LIST.2` is an image of a list, counted from 0.

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
        """Whether the reference names an input of the pipeline."""
        return self.owner == "inputs"


class Stage(ClosedValue):
    """One process in a pipeline, its inputs bound."""

    id: Name
    process: str = Field(min_length=1)
    inputs: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Input port -> `$inputs.NAME`, `$STAGE.OUTPUT` or a literal; `$$` escapes `$`. "
        "A list of images is an input of type `images`, or a list of these.",
    )


class Pipeline(ClosedValue):
    """Stages in order, what they are given and what is kept of them."""

    name: Name
    description: str = ""
    inputs: dict[Name, InputType] = Field(
        default_factory=dict,
        description="Name -> type; `inherit` for the type of the ports that it feeds.",
    )
    services: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="Process name -> target, URL, or URLs of replicas."
    )
    pins: dict[str, str] = Field(default_factory=dict, description="Process name -> digest.")
    stages: tuple[Stage, ...] = Field(min_length=1)
    outputs: dict[Name, str] = Field(min_length=1, description="Name -> `$STAGE.OUTPUT`.")

    @field_validator("inputs", mode="before")
    @classmethod
    def _a_list_inherits(cls, inputs: object) -> object:
        if isinstance(inputs, (list, tuple)) and all(isinstance(name, str) for name in inputs):
            return dict.fromkeys(inputs, "inherit")
        return inputs

    @classmethod
    def parse(cls, document: object) -> Pipeline:
        """Parse the JSON of a pipeline.

        Raises:
            InvalidPipeline: fields do not fit the schema; the error lists all of them.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidPipeline.of("pipeline", bad_fields(error, value=document)) from error

    def to_json(self) -> dict[str, JsonValue]:
        """Return the pipeline as JSON, without fields that have their default value."""
        document: dict[str, JsonValue] = self.model_dump(mode="json", exclude_defaults=True)
        return document

    def stage(self, stage_id: str) -> Stage | None:
        """Return the stage with this id; None if there is none."""
        return next((stage for stage in self.stages if stage.id == stage_id), None)


def parse_binding(value: JsonValue) -> Reference | None:
    """Parse a binding: a reference, or None if the value is a literal.

    >>> parse_binding("$mask.cloud")
    Reference(owner='mask', port='cloud')
    >>> parse_binding("$$5")

    Raises:
        InvalidPipeline: a string starts with a single `$` and is not a reference.
    """
    if not isinstance(value, str) or not value.startswith("$") or value.startswith("$$"):
        return None
    return _reference(value)


@lru_cache(maxsize=1024)  # every tile looks for the scenes of its references
def _reference(text: str) -> Reference:
    match = _REFERENCE.match(text)
    if match is None:
        raise InvalidPipeline(
            f"{shortened(text)} is neither $inputs.NAME nor $STAGE.OUTPUT; "
            "write $$ for a literal dollar sign"
        )
    return Reference(owner=match["owner"], port=match["port"])


def literal(value: JsonValue) -> JsonValue:
    """Return the literal of a binding: `$x` for `$$x`, and any other value unchanged."""
    if isinstance(value, str) and value.startswith("$$"):
        return value[1:]
    return value


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two descriptions of a process.

    Attributes:
        pointer: JSON pointer to the changed value.
        breaking: Whether a pipeline that was checked against the old description may fail, or
            compute other pixels.
        detail: The change, old value first.
    """

    pointer: str
    breaking: bool
    detail: str


def drift(saved: Description, live: Description) -> tuple[Change, ...]:
    """Compare a saved description with the live one; empty if no relevant value changed.

    Compatible are a new optional input, a new output, changed texts, and keys that no check reads
    (`resources`, unknown keys). Breaking are a removed port, a newly required port, another type,
    and each field of the raster contract that decides pixels. A default that is written out is not
    a change.
    """
    return (
        *_document_changes(saved, live),
        *_port_changes(saved.inputs, live.inputs, "/input/properties", side="input"),
        *_port_changes(saved.outputs, live.outputs, "/output/properties", side="output"),
        *_definition_changes(saved.known.input, live.known.input, "/input/definitions"),
        *_definition_changes(saved.known.output, live.known.output, "/output/definitions"),
    )


def is_breaking(changes: tuple[Change, ...]) -> bool:
    """Return whether any of the changes is breaking."""
    return any(change.breaking for change in changes)


def _document_changes(saved: Description, live: Description) -> Iterator[Change]:
    for pointer, old, new, breaking in (
        ("/name", saved.name, live.name, True),
        ("/version", saved.version, live.version, False),
        ("/tileable", saved.tileable, live.tileable, True),
        ("/x-reduce", dict(saved.folds), dict(live.folds), True),
    ):
        if old != new:
            yield Change(pointer, breaking, f"{old!r} became {new!r}")
    for key in sorted({*saved.document, *live.document} - {*_COMPARED}):
        if saved.document.get(key) != live.document.get(key):
            detail = "the text changed" if key in _TEXT else "changed"
            yield Change(json_pointer(key), breaking=False, detail=detail)


def _port_changes(
    saved: tuple[Port, ...],
    live: tuple[Port, ...],
    pointer: str,
    *,
    side: Literal["input", "output"],
) -> Iterator[Change]:
    old, new = {p.name: p for p in saved}, {p.name: p for p in live}
    for name in sorted(old.keys() - new.keys()):
        where = pointer + json_pointer(name)
        yield Change(where, breaking=True, detail=f"the {side} was removed")
    for name in sorted(new.keys() - old.keys()):
        needed = new[name].required
        detail = f"a new {'required' if needed else 'optional'} {side}"
        yield Change(pointer + json_pointer(name), breaking=needed, detail=detail)
    for name in (name for name in old if name in new):
        yield from _one_port_changes(old[name], new[name], pointer + json_pointer(name))


def _definition_changes(
    saved: Mapping[str, JsonValue], live: Mapping[str, JsonValue], pointer: str
) -> Iterator[Change]:
    """Compare the types that ports refer to; an added or removed one is reported at its port."""
    old, new = _object(saved.get("definitions")), _object(live.get("definitions"))
    for name in (name for name in old if name in new):
        before, after = _object(old[name]), _object(new[name])
        same_type = _without(before, _TEXT) == _without(after, _TEXT)
        if before != after:
            detail = "the text changed" if same_type else f"{before} became {after}"
            yield Change(pointer + json_pointer(name), breaking=not same_type, detail=detail)


def _one_port_changes(old: Port, new: Port, pointer: str) -> Iterator[Change]:
    if new.required and not old.required:
        yield Change(pointer, breaking=True, detail="became required")
    elif old.required and not new.required:
        yield Change(pointer, breaking=False, detail="became optional")
    if old.kind != new.kind:
        yield Change(pointer, breaking=True, detail=f"{old.kind} became {new.kind}")
    yield from _raster_changes(old, new, pointer)
    before = _without(old.schema, (*_TEXT, "x-raster"))
    after = _without(new.schema, (*_TEXT, "x-raster"))
    if before != after:
        yield Change(pointer, breaking=True, detail=f"{before} became {after}")
    elif _texts(old.schema) != _texts(new.schema):
        yield Change(pointer, breaking=False, detail="the text changed")


def _raster_changes(old: Port, new: Port, pointer: str) -> Iterator[Change]:
    before, after = (_raster_fields(each.raster or RasterContract()) for each in (old, new))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            detail = f"{before.get(key)!r} became {after.get(key)!r}"
            where = f"{pointer}/x-raster{json_pointer(key)}"
            yield Change(where, breaking=key in _GEOMETRY, detail=detail)


def _raster_fields(raster: RasterContract) -> dict[str, JsonValue]:
    """Return all fields, so that a default that is written out is not a change."""
    fields: dict[str, JsonValue] = raster.model_dump(mode="json")
    return {**fields, "nodata": "inherit"} if raster.inherits_nodata else fields


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _without(schema: Mapping[str, JsonValue], keys: Iterable[str]) -> dict[str, JsonValue]:
    return {key: value for key, value in schema.items() if key not in keys}


def _texts(schema: Mapping[str, JsonValue]) -> list[JsonValue]:
    return [schema.get(key) for key in _TEXT]
