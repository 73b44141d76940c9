"""Define the base classes of wire values, and the numbers of rasters: dtypes, nodata, fill."""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from pesto_runtime.errors import shortened

NUMERIC_DTYPES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float32", "float64", "complex64", "complex128",
)  # fmt: skip

_MOST_FLOAT32 = 3.4028234663852886e38
_NOT_IN_JSON = ("nan", "inf", "-inf")


class Value(BaseModel):
    """A frozen value of the wire format; unknown keys are preserved."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class ClosedValue(BaseModel):
    """A frozen value of this package; an unknown key is an error, as it is most often a typo."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _parse_nodata(value: object) -> float | int | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and value in _NOT_IN_JSON:
        return float(value)
    raise ValueError(f"nodata {shortened(value)} is neither a number nor 'nan', 'inf' or '-inf'")


def nodata_to_json(value: float | None) -> float | int | str | None:
    """Return nodata in its JSON form: `nan`, `inf` and `-inf` become strings (RFC 8259)."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


Nodata: TypeAlias = Annotated[
    "float | int | None",
    BeforeValidator(_parse_nodata),
    PlainSerializer(nodata_to_json),
    WithJsonSchema({"oneOf": [{"type": "number"}, {"enum": list(_NOT_IN_JSON)}, {"type": "null"}]}),
]


def _parse_fill(value: object) -> float | int | str | None:
    if value in ("reflect", "edge"):
        return str(value)
    try:
        return _parse_nodata(value)
    except ValueError as error:
        raise ValueError(
            f"fill {shortened(value)} is neither 'reflect' nor 'edge' nor a number"
        ) from error


Fill: TypeAlias = Annotated[
    "float | int | str | None",
    BeforeValidator(_parse_fill),
    PlainSerializer(lambda value: value if isinstance(value, str) else nodata_to_json(value)),
    WithJsonSchema(
        {"oneOf": [{"type": "number"}, {"enum": ["reflect", "edge", *_NOT_IN_JSON]},
                   {"type": "null"}]}
    ),
]  # fmt: skip
"""How pixels beyond a scene are made: mirrored, those of its edge, or a number."""


DeclaredNodata: TypeAlias = Annotated[
    Nodata,
    BeforeValidator(lambda value: None if value == "none" else value),
    WithJsonSchema({"oneOf": [
        {"type": "number"}, {"enum": [*_NOT_IN_JSON, "inherit", "none"]}, {"type": "null"},
    ]}),
]  # fmt: skip


class BandValues(ClosedValue):
    """What a stored number means: its physical value is `number * scale + offset`, in `unit`."""

    scale: float = Field(default=1.0, allow_inf_nan=False)
    offset: float = Field(default=0.0, allow_inf_nan=False)
    unit: str | None = None


def why_no_nodata(nodata: float | None, dtype: str) -> str | None:
    """Explain why a dtype cannot hold a nodata value; None if it can.

    >>> why_no_nodata(-9999, "uint8")
    'nodata -9999 does not fit dtype uint8: a whole number from 0 to 255'
    """
    if nodata is None:
        return None
    if not dtype.startswith(("int", "uint")):
        most = _MOST_FLOAT32 if dtype in ("float32", "complex64") else math.inf
        fits, allowed = not math.isfinite(nodata) or abs(nodata) <= most, f"at most {most}"
    else:
        bits = int(dtype.removeprefix("u").removeprefix("int"))
        low, high = (
            (0, 2**bits - 1) if dtype[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )
        fits = math.isfinite(nodata) and nodata == int(nodata) and low <= nodata <= high
        allowed = f"a whole number from {low} to {high}"
    return None if fits else f"nodata {nodata} does not fit dtype {dtype}: {allowed}"
