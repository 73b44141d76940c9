"""Choose among versions of one process: `NAME@PIN` takes the newest version that begins so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PARTS = re.compile(r"\d+|[a-z]+", re.IGNORECASE)


def pinned(name: str) -> tuple[str, str]:
    """Divide `NAME@PIN` into name and pin; a name without a pin has an empty one.

    >>> pinned("cloud-mask@1.2"), pinned("cloud-mask")
    (('cloud-mask', '1.2'), ('cloud-mask', ''))
    """
    process, _, pin = name.partition("@")
    return process, pin


def is_compatible(version: str, pin: str) -> bool:
    """Whether a version is the pinned one, or begins with its parts.

    >>> is_compatible("1.2.7", "1.2"), is_compatible("1.20.0", "1.2"), is_compatible("1.2.7", "")
    (True, False, True)
    """
    return version == pin or not pin or version.startswith((f"{pin}.", f"{pin}-", f"{pin}+"))


def newest(versions: Iterable[str]) -> str | None:
    """Return the newest version, numbers compared as numbers; a final one is newer than its drafts.

    >>> newest(["1.9.0", "1.10.0", "1.10.0.dev0"])
    '1.10.0'
    """
    return max(versions, key=_order, default=None)


def _order(version: str) -> list[tuple[int, int, str]]:
    """Return a key: a text as `dev` or `rc` is lower than the end, the end lower than a number."""
    parts = _PARTS.findall(version.partition("+")[0])
    found = [(2, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
    return [*found, (1, 0, "")]
