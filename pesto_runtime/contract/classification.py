"""Define the classes of a raster: value, name and colour, as STAC's classification extension.

https://github.com/stac-extensions/classification
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Sequence


class RasterClass(BaseModel):
    """The meaning of one value of a raster."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    value: int = Field(description="The value of the pixels of the class.")
    name: str = Field(
        pattern=r"^[0-9A-Za-z_-]+$", description="A short name of letters, digits, `-` and `_`."
    )
    color_hint: str | None = Field(
        default=None,
        pattern="^[0-9A-Fa-f]{6}$",
        description="Its colour, six hexadecimal digits: red, green, blue.",
    )
    description: str | None = Field(default=None, description="The class for people.")

    @property
    def colour(self) -> tuple[int, int, int] | None:
        """Red, green, blue, 0 to 255; None without a colour."""
        if self.color_hint is None:
            return None
        red, green, blue = bytes.fromhex(self.color_hint)
        return (red, green, blue)


def require_classes(classes: Sequence[RasterClass], dtypes: Sequence[str]) -> None:
    """Require that classes are distinct, and that each dtype has their values.

    Args:
        classes: The classes of a raster.
        dtypes: Names of its possible dtypes; empty for any.

    Raises:
        ValueError: names the value.
    """
    for field in ("value", "name"):
        often, count = Counter(getattr(each, field) for each in classes).most_common(1)[0]
        if count > 1:
            raise ValueError(f"classes: the {field} {often!r} occurs {count} times")
    for dtype in dtypes:
        for each in classes:
            if each.value not in _integers(dtype):
                raise ValueError(f"classes: {dtype} does not have the value {each.value}")


def _integers(dtype: str) -> range:
    """Return the integers that a dtype has without gaps; none for a complex one."""
    kind, bits = dtype.rstrip("0123456789"), int(dtype.lstrip("abcdefghijklmnopqrstuvwxyz"))
    if kind == "uint":
        return range(2**bits)
    if kind == "int":
        return range(-(2 ** (bits - 1)), 2 ** (bits - 1))
    digits = {"float32": 24, "float64": 53}.get(dtype)
    return range(0) if digits is None else range(-(2**digits), 2**digits + 1)
