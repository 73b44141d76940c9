"""A network that requires multiples of 32, on Conductor: the local engine's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.engine_networks import require_same_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.conductor_workers import Desk

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(300)]


def test_conductor_gives_the_bytes_of_the_local_engine(
    conductor: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks of a real Conductor, with workers of the run."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", conductor.url)
    require_same_bytes(tmp_path, "conductor")
