"""Read the inputs and outputs of a function from its signature.

Every contradiction is an `InvalidContract` with the function, the parameter and the solution. No
value is read or written here.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, cast

import typing_extensions
from pydantic import TypeAdapter, ValidationError

from pesto_runtime.contract import RasterContract, TileInfo, VectorContract
from pesto_runtime.errors import InvalidContract, PestoError, shortened
from pesto_runtime.processor.data_types import DataType, data_type_of
from pesto_runtime.processor.hints import Hint, hints_of
from pesto_runtime.processor.values import encode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Fold, PortKind

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RESERVED = ("pesto",)
_INPUT_ONLY = ("margin", "edge", "fill", "align", "mask", "tile", "scaled")
_OUTPUT_ONLY = ("scale", "values")
_RETURNS = "annotate the return value: `-> float`, `-> Annotated[np.ndarray, Raster(...)]`"


@dataclass(frozen=True)
class PortSpec:
    """One input or output as its author declared it.

    Attributes:
        name: Name of the port.
        type: The type of its values: how they travel, are decoded and encoded.
        text: Its description; may be empty.
        required: Whether a call must have it.
        optional: Whether None is allowed.
        declared: Fields of its raster contract; None without a `Raster`.
        default: Its default as JSON; valid only if `has_default`.
        has_default: Whether the description has a default.
        make_default: Makes the default that the hint states, `Field(default=…)`, and the function
            does not have itself.
        vector: Its vector contract; None for any other kind.
        lengths: `minItems` and `maxItems` of a list of images, as far as they are declared.
        fold: How the values of tiles become one; None for an output that is not folded.
    """

    name: str
    type: DataType
    text: str
    required: bool
    optional: bool = False
    declared: Mapping[str, object] | None = None
    default: JsonValue = None
    has_default: bool = False
    make_default: Callable[[], object] | None = None
    vector: VectorContract | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)
    fold: Fold | None = None

    @property
    def kind(self) -> PortKind:
        """`image`, `images`, `vector` (GeoJSON), or `json` for any other value."""
        return self.type.kind

    @property
    def adapter(self) -> TypeAdapter[object] | None:
        """Pydantic's adapter for its values; None for images, and for types of other packages."""
        return self.type.adapter

    @cached_property
    def raster(self) -> RasterContract | None:
        """The raster contract, if one was declared."""
        return None if self.declared is None else RasterContract.model_validate(self.declared)

    @property
    def is_mask(self) -> bool:
        """Whether it receives the valid pixels of another image."""
        return bool((self.declared or {}).get("mask"))

    def declaring(self, fields: Mapping[str, object]) -> PortSpec:
        """Return the port with these fields of the raster contract; its own take precedence."""
        return replace(self, declared={**fields, **(self.declared or {})}) if fields else self


@dataclass(frozen=True)
class Signature:
    """The inputs of a function.

    Attributes:
        inputs: In the order of its parameters.
        tile: The parameter that receives the `TileInfo`; None without one.
    """

    inputs: tuple[PortSpec, ...]
    tile: str | None


@dataclass(frozen=True)
class Returns:
    """The outputs of a function.

    Attributes:
        ports: In their order.
        keyed: Whether it returns a dict of outputs (a TypedDict) and not one output itself.
    """

    ports: tuple[PortSpec, ...]
    keyed: bool


def read_signature(function: Callable[..., object]) -> Signature:
    """Read the parameters of a function.

    Raises:
        InvalidContract: a parameter cannot be an input.
    """
    title = f"{function.__name__}()"
    hints = hints_of(function, title)
    inputs, tiles = [], []
    for parameter in inspect.signature(function).parameters.values():
        where = f"{title}, parameter {parameter.name!r}"
        _require_named(parameter, where)
        if parameter.name in ("self", "cls") and parameter.name not in hints:
            raise InvalidContract(
                f"{title}: a method cannot be a process: decorate a function; setup= prepares what "
                "it needs, once for each worker"
            )
        if parameter.name not in hints:
            raise InvalidContract(f"{where}: has no type hint; write `{parameter.name}: float`")
        hint = Hint.of(hints[parameter.name])
        if hint.base is TileInfo:
            tiles.append(parameter.name)
        else:
            inputs.append(_input(parameter, hint, where))
    if len(tiles) > 1:
        raise InvalidContract(f"{title}: {tiles} are all TileInfo; one parameter receives the tile")
    if tiles and not any(port.kind == "image" and port.required for port in inputs):
        raise InvalidContract(
            f"{title}, parameter {tiles[0]!r}: a process without a required image has no tile; "
            "remove the parameter"
        )
    return Signature(tuple(inputs), tiles[0] if tiles else None)


def read_returns(function: Callable[..., object]) -> Returns:
    """Read the outputs of a function: a TypedDict of outputs, or one output.

    Raises:
        InvalidContract: the return annotation is missing, or cannot be an output.
    """
    title = f"{function.__name__}()"
    hints = hints_of(function, title)
    if hints.get("return") in (None, type(None)):
        raise InvalidContract(f"{title}, return: there is no output; {_RETURNS}")
    single = Hint.of(hints["return"])
    if typing_extensions.is_typeddict(single.base) and isinstance(single.base, type):
        members = _members(single.base, title)
        ports = [_output(n, Hint.of(h), f"{title}, output {n!r}") for n, h in members.items()]
        return Returns(tuple(ports), keyed=True)
    return Returns((_output(single.name or "result", single, f"{title}, return"),), keyed=False)


def partial_keys(function: Callable[..., object]) -> tuple[str, ...] | None:
    """Return the keys of a reduce's partial; None if its return annotation does not name them.

    Raises:
        InvalidContract: the annotation is neither a dict with str keys nor a TypedDict.
    """
    title = f"{function.__name__}()"
    hint = Hint.of(hints_of(function, title).get("return"))
    if typing_extensions.is_typeddict(hint.base) and isinstance(hint.base, type):
        return tuple(hints_of(hint.base, title))
    if getattr(hint.base, "__origin__", hint.base) is dict:
        return None
    raise InvalidContract(
        f"{title}, return: a reduce returns its partial; annotate it `-> dict[str, int]` or a "
        "TypedDict of its keys"
    )


def _members(kind: type, title: str) -> Mapping[str, object]:
    members = hints_of(kind, f"{title}, return {kind.__name__}")
    if not members:
        raise InvalidContract(f"{title}, return: {kind.__name__} has no key; name the outputs")
    optional = sorted(getattr(kind, "__optional_keys__", ()))
    if optional:
        raise InvalidContract(
            f"{title}, return: {optional} of {kind.__name__} may be absent; an output must not "
            "be absent: use `| None` for a value that may be missing"
        )
    return members


def _require_named(parameter: inspect.Parameter, where: str) -> None:
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        raise InvalidContract(f"{where}: inputs are named one by one; replace * and ** parameters")
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise InvalidContract(f"{where}: inputs are passed by name; remove the `/`")
    if parameter.name in _RESERVED:
        raise InvalidContract(f"{where}: the name is reserved in requests; choose another")


def _input(parameter: inspect.Parameter, hint: Hint, where: str) -> PortSpec:
    absent, field = parameter.default is inspect.Parameter.empty, hint.field
    port = _port(parameter.name, hint, where)
    _require_input(port, hint, where)
    if port.is_mask and not absent:
        raise InvalidContract(f"{where}: a mask is always passed; remove its default")
    if port.is_mask:
        return replace(port, required=False)
    if absent and field is not None and port.kind not in ("image", "images"):
        make = partial(field.get_default, call_default_factory=True, validated_data={})
        return _with_made_default(port, make, where)
    port = replace(port, required=absent)
    if absent:
        return port
    if port.kind in ("image", "images"):
        if parameter.default is not None or not hint.optional:
            raise InvalidContract(f"{where}: an image has no default but None; add `| None = None`")
        return port
    return _with_default(port, parameter.default, where)


def _require_input(port: PortSpec, hint: Hint, where: str) -> None:
    if hint.name:
        raise InvalidContract(
            f"{where}: an input is named by its parameter; rename it instead of name={hint.name!r}"
        )
    misplaced = [name for name in _OUTPUT_ONLY if name in (port.declared or {})]
    if misplaced:
        raise InvalidContract(f"{where}: {misplaced[0]} belongs to the output; move it there")


def _with_made_default(port: PortSpec, make: Callable[[], object], where: str) -> PortSpec:
    port = replace(port, required=False, make_default=make)
    found = _with_default(port, make(), where)
    if found.default != _with_default(port, make(), where).default:
        raise InvalidContract(
            f"{where}: its default_factory returns another value each time, but a default is a "
            "part of the description; make it `... | None = None` and compute it inside"
        )
    return found


def _with_default(port: PortSpec, default: object, where: str) -> PortSpec:
    adapter = port.adapter or TypeAdapter(object)
    try:
        adapter.validate_python(default)
        encode = port.type.encoded if port.adapter is None and default is not None else encode_value
        encoded = cast("JsonValue", encode(port.name, default))
    except ValidationError as error:
        if default is None:
            message = f"{where}: its default is None; annotate it `... | None`"
            raise InvalidContract(message) from error
        reason = error.errors(include_url=False)[0]["msg"]
        raise InvalidContract(
            f"{where}: its default {shortened(default)} breaks its own contract: {reason}"
        ) from error
    except PestoError as error:
        raise InvalidContract(f"{where}: its default cannot be JSON: {error.detail}") from error
    return replace(port, default=encoded, has_default=True)


def _output(name: str, hint: Hint, where: str) -> PortSpec:
    if not NAME.fullmatch(name):
        raise InvalidContract(
            f"{where}: {name!r} is not a name for an output; use letters, digits, _"
        )
    if getattr(hint.base, "__origin__", None) is tuple and any(
        each.is_array for each in map(Hint.of, getattr(hint.base, "__args__", ()))
    ) and hint.items is None:  # fmt: skip
        raise InvalidContract(f"{where}: several outputs are a TypedDict, which names them")
    port = _port(name, hint, where)
    wrong = [field for field in _INPUT_ONLY if field in (port.declared or {})]
    if wrong:
        raise InvalidContract(f"{where}: {wrong[0]} belongs to the image inputs; move it there")
    return port


def _port(name: str, hint: Hint, where: str) -> PortSpec:
    data_type = data_type_of(hint, where)
    if data_type.kind not in ("image", "images"):
        if hint.raster:
            raise InvalidContract(f"{where}: Raster is for np.ndarray or list[np.ndarray]")
        return PortSpec(name, data_type, hint.text, required=True, optional=hint.optional,
                        vector=_vector(hint, where), fold=hint.fold)  # fmt: skip
    image = hint if hint.items is None else hint.items
    declared = dict(_declared((hint, image), where)) or None
    return PortSpec(
        name, data_type, hint.text or image.text,
        required=True, optional=hint.optional, declared=declared, lengths=hint.lengths,
    )  # fmt: skip


def _vector(hint: Hint, where: str) -> VectorContract | None:
    try:
        return None if hint.vector is None else hint.vector.contract()
    except InvalidContract as error:
        raise InvalidContract(f"{where}: {error.detail}", fields=error.fields) from error


def _declared(hints: tuple[Hint, Hint], where: str) -> Iterator[tuple[str, object]]:
    raster = next((hint.raster for hint in hints if hint.raster), None)
    dtype = hints[1].dtype
    if raster is not None:
        if raster.dtype is None and dtype:
            raster = replace(raster, dtype=dtype)
        try:
            contract = raster.contract()
        except InvalidContract as error:
            raise InvalidContract(f"{where}: {error.detail}", fields=error.fields) from error
        if dtype and contract.dtype and dtype not in contract.dtype:
            raise InvalidContract(
                f"{where}: its hint has the dtype {dtype}, its Raster {', '.join(contract.dtype)}; "
                "use the same dtype"
            )
        yield from raster.declared.items()
    elif dtype:
        yield "dtype", dtype
