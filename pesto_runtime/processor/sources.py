"""The identity of an author's sources: what changes when any of them does."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def sources_digest(root: Path, files: Sequence[Path], *, profiles: Sequence[str] = ()) -> str:
    """`sha256:…` over profiles in order, and files sorted, each with its name below the root."""
    total = hashlib.sha256()
    for profile in profiles:
        total.update(f"profile\0{profile}\0".encode())
    for file in sorted(set(files)):
        content = file.read_bytes()
        total.update(f"file\0{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return "sha256:" + total.hexdigest()
