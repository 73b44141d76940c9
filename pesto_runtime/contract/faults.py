"""Say what pydantic found wrong with a value: one wrong field per place, by JSON pointer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pesto_runtime.errors import BadField, json_pointer, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_NOT_GIVEN = object()


def bad_fields(
    error: ValidationError, *, prefix: str = "", value: object = _NOT_GIVEN
) -> Iterator[BadField]:
    """Translate pydantic's errors: JSON pointer, reason, value.

    Args:
        error: What pydantic raised.
        prefix: Pointer to what was validated.
        value: What was validated. Where given, it tells the value's own keys from the names of
            union branches that pydantic mixes into its locations; branches become one field.
    """
    reasons: dict[str, list[str]] = {}
    values: dict[str, str | None] = {}
    for each in error.errors(include_url=False):
        where = prefix + json_pointer(*_place(each, value))
        reasons.setdefault(where, []).append(each["msg"].removeprefix("Value error, "))
        values[where] = None if each["type"] == "missing" else shortened(each["input"])
    for where, said in reasons.items():
        if not any(other.startswith(where + "/") for other in reasons):  # it says more exactly
            yield BadField(where, "; or ".join(dict.fromkeys(said)), values[where])


def _place(error: ErrorDetails, value: object) -> Iterator[int | str]:
    """The parts of a location that are keys and indices of the value."""
    for part in error["loc"]:
        if value is _NOT_GIVEN:
            yield part
        elif isinstance(value, Mapping):
            if part in value or error["type"] == "missing":
                yield part
                value = value.get(part)
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(part, int):
            yield part
            value = value[part] if part < len(value) else None
