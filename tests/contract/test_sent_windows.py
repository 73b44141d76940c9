"""A run sends small windows to a service as pixels, and names large ones by reference."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.support.commands import served
from tests.support.rasters import noise, write_scene
from tests.support.runs import PROCESSES, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]

SIDE = 1100
_IN = re.compile(r'pesto_request_bytes_total\{endpoint="process"\} (\S+)')


def test_a_window_is_sent_up_to_a_mebibyte(tmp_path: Path) -> None:
    """Tiles of 256 x 256 bytes come in bodies; one of 1100 x 1100 in a reference of some bytes.

    A service opens the file for each reference, which costs more than a small body.
    """
    scene = write_scene(tmp_path / "s.tif", noise(SIDE, SIDE))
    with served(f"{PROCESSES}:above") as url:
        received = []
        for tile in (256, SIDE):
            before = bytes_in(url)
            document = chain("above", level=100)
            done = run_local(
                document, tmp_path / str(tile), {"scene": scene},
                tile=tile, max_tasks=1, services=(f"above={url}",), report="none",
            )  # fmt: skip
            assert np.array_equal(done.pixels(), noise(SIDE, SIDE) > 100)
            received.append(bytes_in(url) - before)
    small, large = received
    assert small > SIDE * SIDE
    assert large < 10_000


def bytes_in(url: str) -> float:
    """What the bodies of all calls had, as the service counted."""
    text = httpx.get(url.removesuffix("/api/v1") + "/metrics").text
    return sum(float(each) for each in _IN.findall(text))
