"""List what a cache has, and delete its oldest parts.

Both are safe while runs use the cache: a pack that is deleted is missing, and computed again.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path

from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import path_of
from pesto_runtime.run.cache_store import LAYOUT, CacheStore, cache_base
from pesto_runtime.store import Store

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 1 << (10 * power) for power, unit in enumerate("kmgt", 1)}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNFINISHED_S = 86_400
"""Age from which an unfinished file belongs to a writer that was killed."""


@dataclass
class CacheEntry:
    """The objects of one key.

    Attributes:
        key: The key.
        objects: Number of objects.
        size: Bytes of them.
        used: Time of the last use; in a bucket, of the last writing.
        process: Process that made them; empty if it is not recorded.
        scene: Href of the first scene, without credentials; empty if it is not recorded.
    """

    key: str
    objects: int = 0
    size: int = 0
    used: datetime = field(default_factory=lambda: datetime.fromtimestamp(0, UTC))
    process: str = ""
    scene: str = ""


@dataclass(frozen=True)
class Pruned:
    """What was deleted, or would be.

    Attributes:
        objects: Number of objects that were deleted.
        size: Bytes of them.
        kept: Bytes that stay.
    """

    objects: int
    size: int
    kept: int


def parse_size(text: str) -> int:
    """Return the bytes of a size as `500MB`, `20GiB` or `1000`.

    >>> parse_size("1.5GB"), parse_size("2 KiB")
    (1500000000, 2048)

    Raises:
        InvalidInput: it is no size.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidInput(f"size {text!r} is not a number of bytes, as 500MB, 20GiB or 1TB")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def parse_age(text: str) -> timedelta:
    """Return an age as `36h`, `30d` or `2w`.

    >>> parse_age("36h")
    datetime.timedelta(days=1, seconds=43200)

    Raises:
        InvalidInput: it is no age.
    """
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidInput(f"age {text!r} is not a number with s, m, h, d or w, as 36h or 30d")
    return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])


def listed_cache(href: str) -> list[CacheEntry]:
    """Return the entries of a cache, those that were used last at the end.

    Args:
        href: Path or href of the cache.

    Raises:
        StoreRefused: it cannot be a cache.
        PestoError: it cannot be read.
    """
    store = Store(cache_base(href))
    found: dict[str, CacheEntry] = {}
    for name, size, modified in store.entries(LAYOUT):
        kind, key = _kind(name)
        entry = found.setdefault(key, CacheEntry(key))
        if kind != "about":
            entry.objects += 1
            entry.size += size
            entry.used = max(entry.used, modified)
    facts = CacheStore(store)
    for entry in found.values():
        entry.process, entry.scene = facts.described(entry.key)
    return sorted((each for each in found.values() if each.objects), key=lambda each: each.used)


def prune_cache(
    href: str, *, size: int | None = None, age: timedelta | None = None, dry_run: bool = False
) -> Pruned:
    """Delete the objects that were not used for a time, then the oldest ones above a size.

    Args:
        href: Path or href of the cache.
        size: Most bytes that stay; None for any.
        age: Longest time since the last use; in a bucket, since the writing. None for any.
        dry_run: Whether nothing is deleted.

    Raises:
        InvalidInput: neither size nor age is given.
        StoreRefused: it cannot be a cache.
        PestoError: it cannot be read or written.
    """
    if size is None and age is None:
        raise InvalidInput("nothing says what to prune: give --max-size, --max-age or both")
    store = Store(cache_base(href))
    objects = sorted(store.entries(LAYOUT), key=lambda each: each[2], reverse=True)
    named = [(*_kind(name), name, count, used) for name, count, used in objects]
    oldest = datetime.now(UTC) - age if age is not None else datetime.fromtimestamp(0, UTC)
    most, seen, kept = inf if size is None else size, 0, 0
    keys, pruned = set[str](), list[str]()
    for kind, key, name, count, used in named:  # those that were used last first
        seen += count if kind != "about" else 0
        if kind != "about" and used >= oldest and seen <= most:
            kept += count
            keys.add(key)
        elif kind != "about":
            pruned.append(name)
    pruned += [name for kind, key, name, *_ in named if kind == "about" and key not in keys]
    if not dry_run:
        for name in pruned:  # one by one: another prune may be at work
            store.delete([name])
        _tidy(store)
    gone = {*pruned}
    return Pruned(len(pruned), sum(count for name, count, _ in objects if name in gone), kept)


def _kind(name: str) -> tuple[str, str]:
    """Return kind and key of an object: `LAYOUT/SECRET/blocks/KEY/…`, `LAYOUT/…/about/KEY.json`."""
    _, _, kind, key, *_ = name.split("/")
    return kind, key.partition(".")[0]


def _tidy(store: Store) -> None:
    """Delete unfinished files of writers that were killed, and empty folders, on a disk."""
    if not store.base.startswith("file:"):
        return
    # `os.walk` ignores folders that another prune deletes meanwhile.
    for folder, _, files in os.walk(path_of(store.href(LAYOUT)), topdown=False):
        for name in files:
            path = Path(folder, name)
            with suppress(OSError):  # of another user, or gone
                if "#" in name and time.time() - path.stat().st_mtime > _UNFINISHED_S:
                    path.unlink()
        with suppress(OSError):  # not empty
            Path(folder).rmdir()
