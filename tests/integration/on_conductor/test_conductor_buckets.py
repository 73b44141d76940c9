"""All places of a run in a bucket, on Conductor: the bytes of a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.buckets import variables
from tests.support.engine_buckets import require_bytes_of_the_disk
from tests.support.file_server import use

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.conductor_workers import Desk

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(300)]


def test_a_run_in_a_bucket_gives_the_bytes_of_the_disk(
    conductor: Desk, bucket_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks share no folder with each other, and none with the command."""
    use(variables(bucket_port), monkeypatch)
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", conductor.url)
    require_bytes_of_the_disk(tmp_path, "conductor")
