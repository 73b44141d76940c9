"""Publishing disturbed at every step that it takes on files: killed, or refused by the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.runs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("how", ["kill", "ENOSPC", "EIO"])
def test_a_disturbance_at_any_step_is_mended_by_the_same_command(tmp_path: Path, how: str) -> None:
    """The products, the report, the result and nothing else; no result before its files."""
    words = [sys.executable, "-m", "tests.support.saboteur", str(tmp_path), how]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["complaints"] == []
    assert found["steps"] > 25
    if how != "kill":  # refused steps are told, unless the run can do without them
        assert found["told"] > 10
