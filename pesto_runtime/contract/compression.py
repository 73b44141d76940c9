"""Define how the blocks of products are compressed: a codec and its level, as text `CODEC:LEVEL`.

It does not compress anything: `raster/block_codec.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias, get_args

from pesto_runtime.errors import InvalidInput

Codec: TypeAlias = Literal["deflate", "zstd", "none"]

_LEVELS = {"deflate": range(1, 13), "zstd": range(1, 23)}
_DEFAULTS = {"deflate": 4, "zstd": 3, "none": 0}


@dataclass(frozen=True, slots=True)
class Compression:
    """Codec and level of the blocks of a product.

    Attributes:
        codec: Name of the codec.
        level: 1 to 12 of libdeflate, 1 to 22 of zstd; 0 for `none`.
    """

    codec: Codec = "deflate"
    level: int = _DEFAULTS["deflate"]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `deflate`, `zstd` or `none`, with or without `:LEVEL`.

        Raises:
            InvalidInput: there is no such codec or level; the message has those that exist.

        >>> str(Compression.parse("zstd")), str(Compression.parse("deflate:12"))
        ('zstd:3', 'deflate:12')
        """
        name, colon, digits = text.partition(":")
        for codec in get_args(Codec):
            levels = _LEVELS.get(codec, range(0))
            if name == codec and not colon:
                return cls(codec, _DEFAULTS[codec])
            if name == codec and digits in map(str, levels):
                return cls(codec, int(digits))
        raise InvalidInput(
            f"compress {text!r} is not known: write deflate or deflate:1 to deflate:12 (default "
            f"{cls()}), zstd or zstd:1 to zstd:22, or none"
        )

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return f"{self.codec}:{self.level}" if self.level else self.codec
