"""Check the values of a pipeline, its inputs and literals, against the ports that they feed.

Images are not values: `bindings` compares their types with the ports.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from pesto_runtime.contract import Pipeline, parse_binding
from pesto_runtime.contract.pipeline import InputType
from pesto_runtime.errors import BadField, InvalidContract, InvalidPipeline, json_pointer, shortened
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port

_NARROWING: Mapping[str, Callable[[float, float], float]] = {
    "minimum": max,
    "exclusiveMinimum": max,
    "minLength": max,
    "minItems": max,
    "maximum": min,
    "exclusiveMaximum": min,
    "maxLength": min,
    "maxItems": min,
}
_INHERITED = ("description", "enum", "pattern", "multipleOf", "items")
_TYPES = frozenset(get_args(InputType))


@dataclass(frozen=True)
class FedPort:
    """A port of a stage that an input or a literal of the pipeline feeds.

    Attributes:
        stage: Id of the stage.
        port: The port.
        description: The description of the stage's process.
        in_list: Whether it is one of the images of the port, and not all of them.
    """

    stage: str
    port: Port
    description: Description
    in_list: bool = False

    def __str__(self) -> str:
        return f"{self.port.name!r} of stage {self.stage!r}"

    def faults(self, value: JsonValue, pointer: str) -> Iterator[BadField]:
        """Yield every field of a value that the port does not accept."""
        try:
            yield from schema_faults(self.description.schema_of(self.port), value, pointer=pointer)
        except InvalidContract as error:
            process = self.description.name
            detail = f"the schema that {process} declares is invalid: {error.detail}"
            yield BadField(pointer, detail, shortened(self.port.schema))


def fed_ports(
    pipeline: Pipeline, descriptions: Mapping[str, Description]
) -> dict[str, tuple[FedPort, ...]]:
    """Return input -> the ports that it feeds, in the order of the stages."""
    found: dict[str, tuple[FedPort, ...]] = dict.fromkeys(pipeline.inputs, ())
    for stage in pipeline.stages:
        description = descriptions.get(stage.process)
        for name, value in stage.inputs.items():
            port = description.input(name) if description else None
            if description is None or port is None:
                continue
            in_list = port.kind == "images" and isinstance(value, list)
            for source in map(_source, value if in_list and isinstance(value, list) else [value]):
                if source in found:
                    fed = FedPort(stage.id, port, description, in_list)
                    found[source] = (*found[source], fed)
    return found


def completed(
    pipeline: Pipeline,
    descriptions: Mapping[str, Description],
    *,
    given: Collection[str] | None = None,
) -> Pipeline:
    """Return a pipeline with what its inputs inherit from the ports that they feed.

    An input of type `inherit` gets the one type of its ports; a type that is not a single word,
    such as a union, stays `inherit`. An optional input that is not given is removed, with its
    bindings.

    Args:
        pipeline: The pipeline.
        descriptions: Process name -> its description.
        given: Names of the inputs that have a value; None if they are not known yet.
    """
    fed = fed_ports(pipeline, descriptions)
    absent = {name for name in fed if given is not None and _is_absent(name, fed[name], given)}
    inputs = {
        name: _inherited_type(fed[name]) if kind == "inherit" else kind
        for name, kind in pipeline.inputs.items()
        if name not in absent
    }
    stages = [
        stage.model_copy(
            update={"inputs": {k: v for k, v in stage.inputs.items() if _source(v) not in absent}}
        )
        for stage in pipeline.stages
    ]
    return pipeline.model_copy(update={"inputs": inputs, "stages": tuple(stages)})


def input_defaults(
    pipeline: Pipeline, descriptions: Mapping[str, Description]
) -> dict[str, JsonValue]:
    """Return the default of each input whose ports all have one, and the same."""

    def is_default(value: JsonValue, ports: Iterable[FedPort]) -> bool:
        return all(each.port.has_default and each.port.schema["default"] == value for each in ports)

    firsts = {
        name: (ports[0].port.schema.get("default"), ports)
        for name, ports in fed_ports(pipeline, descriptions).items()
        if ports and pipeline.inputs[name] not in ("image", "images")
    }
    return {name: value for name, (value, ports) in firsts.items() if is_default(value, ports)}


def literal_faults(fed: FedPort, value: JsonValue, pointer: str) -> Iterator[BadField]:
    """Yield every field of a literal that its port does not accept."""
    for fault in fed.faults(value, pointer):
        yield _named(fault, [fed], "correct the literal")


def input_faults(
    pipeline: Pipeline,
    descriptions: Mapping[str, Description],
    values: Mapping[str, JsonValue],
    *,
    given: Collection[str],
) -> Iterator[BadField]:
    """Yield an error for each unknown input, each input without a value, and each wrong value.

    Args:
        pipeline: The pipeline.
        descriptions: Process name -> its description.
        values: Input -> value, as far as it is known and is not an image.
        given: Names of all inputs that are given.
    """
    for name in sorted(set(given) - set(pipeline.inputs)):
        known = ", ".join(pipeline.inputs) or "none"
        detail = f"the pipeline has no such input; it has {known}"
        yield BadField(json_pointer("inputs", name), detail)
    fed = fed_ports(pipeline, descriptions)
    for name, kind in pipeline.inputs.items():
        if name not in given and not _is_absent(name, fed[name], given):
            fault = BadField(json_pointer("inputs", name), "requires a value")
            yield _named(fault, fed[name], f"-i {name}=…")
        elif name in values:
            yield from _value_faults(name, kind, values[name], fed[name])


def input_schema(kind: str, ports: Iterable[FedPort]) -> dict[str, JsonValue]:
    """Return a schema for the form of an input: its type, with the limits of the ports it feeds.

    The limits of several ports are intersected, as far as forms understand them. A value that the
    schema accepts can still violate a port; `input_faults` decides.
    """
    schema = type_schema(kind)
    for declared in (_branch(each.port.schema, kind) for each in ports):
        for key, value in declared.items():
            before = schema.get(key)
            if key not in schema and (key in _NARROWING or key in _INHERITED):
                schema[key] = value
            elif key == "enum" and isinstance(value, list) and isinstance(before, list):
                schema[key] = [each for each in before if each in value]
            elif isinstance(value, (int, float)) and isinstance(before, (int, float)):
                schema[key] = _NARROWING.get(key, min)(value, before)
    return schema


def way_to_write(name: str, fault: BadField) -> str:
    """Return how an input with a fault is written on a command line."""
    if fault.detail.startswith("must be array"):
        return f"write a list as -i {name}='[1, 2]', or repeat -i {name}=…"
    if fault.detail.startswith("must be object"):
        return f"write an object as -i {name}='{{\"key\": 1}}', or read it by -i {name}=@FILE"
    return f"correct -i {name}=…"


def type_schema(kind: str) -> dict[str, JsonValue]:
    """Return the JSON Schema of an input's own type; that of a port's type is not restricted."""
    return {} if kind in ("inherit", "images") else {"type": kind}


def _value_faults(
    name: str, kind: str, value: JsonValue, ports: Collection[FedPort]
) -> Iterator[BadField]:
    """Yield each fault of a value once, with all ports that state it."""
    where = json_pointer("inputs", name)
    # A value of another type than the input's would violate each port again. Whether null is
    # accepted is decided by the ports: it is the default of many.
    is_of_ports = value is None and ports
    own = () if is_of_ports else tuple(schema_faults(type_schema(kind), value, pointer=where))
    found: dict[BadField, list[FedPort]] = {fault: [] for fault in own}
    for each in (each for each in ports if each.port.kind in ("json", "vector")):
        for fault in own or each.faults(value, where):
            found.setdefault(fault, []).append(each)
    for fault, places in found.items():
        yield _named(fault, places, way_to_write(name, fault))


def _is_absent(name: str, ports: Collection[FedPort], given: Collection[str]) -> bool:
    """Return whether an input is not given, and its ports have neither need nor default of it."""
    optional = not any(
        each.port.required or each.port.has_default or each.in_list for each in ports
    )
    return name not in given and bool(ports) and optional


def _inherited_type(ports: Iterable[FedPort]) -> str:
    """Return the one type of some ports; `inherit` if they have none, or several."""
    kinds = {
        "image"
        if each.in_list
        else each.port.kind
        if each.port.kind in ("image", "images")
        else str(each.port.schema.get("type", "inherit"))
        for each in ports
    }
    if kinds == {"integer", "number"}:
        return "integer"
    return kinds.pop() if len(kinds) == 1 and kinds <= _TYPES else "inherit"


def _branch(schema: Mapping[str, JsonValue], kind: str) -> Mapping[str, JsonValue]:
    """Return a schema, or of an `anyOf` the branch of a type."""
    branches = schema.get("anyOf")
    of_kind = (
        {**schema, **each}
        for each in (branches if isinstance(branches, list) else ())
        if isinstance(each, dict) and each.get("type") == kind
    )
    return next(of_kind, schema)


def _source(value: JsonValue) -> str:
    """Return the input of the pipeline that a binding names; empty if it names none."""
    try:
        reference = parse_binding(value)
    except InvalidPipeline:  # reported where the stage is bound
        return ""
    return reference.port if reference is not None and reference.is_input else ""


def _named(fault: BadField, ports: Iterable[FedPort], way_out: str) -> BadField:
    """Return a fault with the value, the ports and the way to correct it in its detail."""
    parts = [fault.detail]
    if fault.detail.startswith("must "):
        parts.append(f", not {fault.value},")
    if places := " and ".join(map(str, ports)):
        parts.append(f" for {places}")
    return replace(fault, detail=f"{''.join(parts).rstrip(',')}: {way_out}")
