"""Tiles are sized by the memory that a run may use: of the machine, or of its container."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pesto_runtime import machine
from pesto_runtime.run import local
from pesto_runtime.service.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("text", "memory"),
    [("1073741824\n", 1 << 30), ("max\n", MACHINE), ("9223372036854771712\n", MACHINE)],
)
def test_a_limit_of_the_container_is_respected(
    text: str, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter is for tiles; without a limit, or without control groups, that of the machine."""
    limit = tmp_path / "memory.max"
    limit.write_text(text)
    monkeypatch.setattr(machine, "_CONTAINER_LIMITS", (tmp_path / "absent", limit))
    sizing = local.sizing_of(workers=2, tile=None, max_tasks=64)
    assert sizing.memory_bytes == memory // 4
    limits = Limits.of_machine(2)
    assert limits.image_bytes == min(4 << 30, memory // 8)
    assert limits.request_bytes == min(8 << 30, memory // 8)
    assert Limits.of_machine(1).image_bytes == min(4 << 30, memory // 4)
