"""Temporary folders of killed services go, those of living ones stay."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.service.jobs.files import LOCK, JobFolder, sweep_leftovers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def gone() -> int:
    """The number of a process that was."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def folder_of(here: Path, pid: int, name: str = "abc") -> Path:
    """A folder as a service makes it."""
    folder = here / f"pesto-jobs-{pid}-{name}"
    folder.mkdir()
    (folder / LOCK).touch()
    (folder / "jobs.sqlite").touch()
    return folder


def test_what_a_killed_service_left_is_deleted_by_the_next(here: Path) -> None:
    """A folder of a process that is gone."""
    left = folder_of(here, gone())
    made = JobFolder(None)
    assert not left.exists()
    assert [each.name for each in here.iterdir()] == [made.root.name]
    made.close()
    assert list(here.iterdir()) == []


def test_what_may_be_somebodys_stays(here: Path) -> None:
    """Of a living process; locked; of another name; a link to elsewhere."""
    pid = gone()
    living, locked = folder_of(here, os.getpid()), folder_of(here, pid, "locked")
    other, outside = here / "pesto-jobs-mine", here / "elsewhere"
    other.mkdir()
    outside.mkdir()
    link = here / f"pesto-jobs-{pid}-link"
    link.symlink_to(outside)
    holder = os.open(locked / LOCK, os.O_RDWR)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        sweep_leftovers("pesto-jobs-")
        assert all(each.exists() for each in (living, locked, other, outside, link))
    finally:
        os.close(holder)
    sweep_leftovers("pesto-jobs-")
    assert not locked.exists()
