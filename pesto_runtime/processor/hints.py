"""Analyse type hints: the type under `Annotated` and `Optional`, and its JSON schema.

Inputs and outputs of a process are made from the parts in `ports`.
"""

from __future__ import annotations

import functools
import json
import operator
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
import typing_extensions
from annotated_types import Len, MaxLen, MinLen
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo

from pesto_runtime.contract import NUMERIC_DTYPES
from pesto_runtime.errors import InvalidContract
from pesto_runtime.processor.annotations import Named, Raster, Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pesto_runtime.contract import Fold

_MODES: tuple[Literal["validation"], Literal["serialization"]] = ("validation", "serialization")


@dataclass(frozen=True)
class Hint:
    """A type hint, separated into its parts.

    Attributes:
        whole: The hint as written.
        base: The type without `Annotated` and `None`.
        optional: Whether None is allowed.
        metadata: All metadata of `Annotated`, outermost last.
    """

    whole: object
    base: object
    optional: bool
    metadata: tuple[object, ...]

    @classmethod
    def of(cls, whole: object) -> Hint:
        """Separate the type from `Annotated`, `Required` and `Optional`, in any order.

        >>> Hint.of(Annotated[float, "metres"] | None).base
        <class 'float'>
        """
        base, optional, metadata = whole, False, ()
        while True:
            origin, arguments = get_origin(base), get_args(base)
            if origin is Annotated:
                base, metadata = arguments[0], (*arguments[1:], *metadata)
            elif origin in (Required, NotRequired):
                base = arguments[0]
            elif origin in (Union, types.UnionType) and type(None) in arguments:
                others = [each for each in arguments if each is not type(None)]
                optional, base = True, functools.reduce(operator.or_, others)
            else:
                return cls(whole, base, optional, metadata)

    @property
    def raster(self) -> Raster | None:
        """The `Raster` of the hint; None without one."""
        return next((each for each in self.metadata if isinstance(each, Raster)), None)

    @property
    def vector(self) -> Vector | None:
        """The `Vector` of the hint; None without one."""
        return next((each for each in self.metadata if isinstance(each, Vector)), None)

    @property
    def name(self) -> str | None:
        """The name of an output, from `Named`, `Raster` or `Vector`; None without one."""
        named = next((each.name for each in self.metadata if isinstance(each, Named)), None)
        described = self.raster or self.vector
        return named or (described.name if described else None)

    @property
    def fold(self) -> Fold | None:
        """How the values of tiles become one, from `Named`; None without it."""
        return next((each.fold for each in self.metadata if isinstance(each, Named)), None)

    @property
    def text(self) -> str:
        """The plain strings of the metadata: the description."""
        return " ".join(each for each in self.metadata if isinstance(each, str))

    @property
    def field(self) -> FieldInfo | None:
        """The pydantic field of the hint that states a default; None without one."""
        fields = (each for each in self.metadata if isinstance(each, FieldInfo))
        return next((each for each in fields if not each.is_required()), None)

    @property
    def lengths(self) -> dict[str, int]:
        """`minItems` and `maxItems` of a list, from `Field(min_length=…)` or annotated-types."""
        parts = [
            p for m in self.metadata for p in (m.metadata if isinstance(m, FieldInfo) else [m])
        ]
        found: dict[str, int] = {}
        for part in parts:
            if isinstance(part, (MinLen, Len)) and part.min_length:
                found["minItems"] = part.min_length
            if isinstance(part, (MaxLen, Len)) and part.max_length is not None:
                found["maxItems"] = part.max_length
        return found

    @property
    def is_array(self) -> bool:
        """Whether the type is a numpy array."""
        return _array_type(self.base)

    @property
    def items(self) -> Hint | None:
        """The item type of a list, tuple or sequence of one type; None for any other type."""
        arguments = get_args(self.base)
        origin = get_origin(self.base)
        several = origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,))
        return Hint.of(arguments[0]) if several and arguments else None

    @property
    def dtype(self) -> str | None:
        """The dtype of `NDArray[np.uint8]`; None if the hint has no dtype."""
        arguments = get_args(self.base)
        scalar = get_args(arguments[1]) if len(arguments) == 2 else ()
        if scalar and isinstance(scalar[0], type) and issubclass(scalar[0], np.generic):
            name = getattr(scalar[0], "__name__", "")
            return name if name in NUMERIC_DTYPES else None
        return None


def _array_type(base: object) -> bool:
    kind = get_origin(base) or base
    return isinstance(kind, type) and issubclass(kind, np.ndarray)


def hints_of(function: Callable[..., object] | type, where: str) -> Mapping[str, object]:
    """Return the resolved type hints of a function or a TypedDict, with their metadata.

    Raises:
        InvalidContract: a name in a hint cannot be resolved.
    """
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        raise InvalidContract(
            f"{where}: its type hints cannot be read: {error}; import the names at the top of the "
            "module, not under TYPE_CHECKING, and define classes at module level"
        ) from error


def adapter_of(hint: object, where: str) -> TypeAdapter[object]:
    """Return pydantic's adapter for a hint.

    Raises:
        InvalidContract: the type has no JSON schema.
    """
    try:
        adapter: TypeAdapter[object] = TypeAdapter(_portable(hint))  # type: ignore[arg-type]  # a type form
        for mode in _MODES:
            adapter.json_schema(mode=mode)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError) as error:
        reason = str(error).partition(". Set `arbitrary")[0].partition("\n")[0]
        raise InvalidContract(
            f"{where}: {reason}; use numbers, str, bool, Literal, list, dict, a dataclass, a "
            "TypedDict or a pydantic model, np.ndarray for an image, list[np.ndarray] for images"
        ) from error
    return adapter


def validate_json(adapter: TypeAdapter[object], text: str) -> object:
    """Validate JSON text strictly; 2.0 is an integer, as in JSON Schema.

    Raises:
        ValidationError: the value does not fit the type.
    """
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError:
        whole = json.dumps(json.loads(text, parse_float=_whole_number))
        if whole == text:
            raise
        try:
            return adapter.validate_json(whole, strict=True)
        except ValidationError:
            pass  # the first error has the values as they were given
        raise


def _whole_number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() else number


def _portable(hint: object) -> object:
    """Return the hint with every `typing.TypedDict` replaced by one of `typing_extensions`.

    Before Python 3.12, pydantic accepts only the latter
    (https://docs.pydantic.dev/latest/errors/usage_errors/#typed-dict-version).
    """
    if sys.version_info >= (3, 12):
        return hint
    if typing_extensions.is_typeddict(hint) and isinstance(hint, type):
        return _retyped(hint)
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        return Annotated[(_portable(arguments[0]), *arguments[1:])]
    if not any(map(_contains_typed_dict, arguments)):
        return hint
    if get_origin(hint) in (Union, types.UnionType):
        return functools.reduce(operator.or_, map(_portable, arguments))
    origin = get_origin(hint)
    return types.GenericAlias(origin, tuple(_portable(each) for each in arguments))  # type: ignore[arg-type]  # a generic has an origin


def _contains_typed_dict(hint: object) -> bool:
    return typing_extensions.is_typeddict(hint) or any(map(_contains_typed_dict, get_args(hint)))


@cache
def _retyped(kind: type) -> object:
    if kind.__class__.__module__ == "typing_extensions":
        return kind
    required: frozenset[str] = getattr(kind, "__required_keys__", frozenset())
    fields = {
        name: Required[_portable(hint)] if name in required else NotRequired[_portable(hint)]
        for name, hint in get_type_hints(kind, include_extras=True).items()
    }
    return typing_extensions.TypedDict(kind.__name__, fields)  # type: ignore[operator]  # functional form with computed fields
