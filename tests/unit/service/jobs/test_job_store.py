"""Records that outlive the process that wrote them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import KeyConflict, StoreFailed, StoreRefused
from pesto_runtime.service.jobs.database import JobStore
from pesto_runtime.service.jobs.states import (
    Deleted,
    Dismissed,
    Expired,
    Failed,
    Record,
    Result,
    Started,
    Succeeded,
    advance,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.service.jobs.states import Event

RESULTS = (Result("tiles", "tiles0", "image/tiff", 0), Result("cover", "cover", "text/plain"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    """A new store."""
    opened = JobStore(tmp_path / "jobs.sqlite", process="mask")
    yield opened
    opened.close()


def job(job_id: str, key: str | None = None, digest: str = "d") -> Record:
    """A new job."""
    return Record(id=job_id, digest=digest, created=1.5, key=key, lease_s=3.0)


def test_a_record_comes_back_as_it_was(store: JobStore) -> None:
    """With results, log and error, after each change."""
    record = store.add(job("a"), {"accept": "image/tiff"})
    assert store.find("a") == record
    record = replace(advance(record, Started(2), 60), log=("one", "two"), progress=12.5)
    store.put(record)
    assert store.find("a") == record
    changed = store.change("a", Succeeded(3, RESULTS, "application/json"), 60)
    assert changed == store.find("a") != record
    assert changed is not None
    assert changed.results == RESULTS
    assert store.request("a") == {"accept": "image/tiff"}
    assert store.find("b") is store.change("b", Expired(), 60) is None


def test_one_key_is_one_job(store: JobStore) -> None:
    """The same request is given the job that is there; another one is refused by both names."""
    first = store.add(job("a", "k"), {})
    assert store.add(job("b", "k"), {}) == first
    assert store.find("b") is None
    with pytest.raises(KeyConflict, match=r"'k' was used before with another request \(job a"):
        store.add(job("c", "k", "other"), {})
    assert store.add(job("d"), {}).id == "d"
    assert store.add(job("e"), {}).id == "e"


def test_a_key_that_is_let_go_starts_a_new_job(store: JobStore) -> None:
    """What was dismissed, has expired, or failed for now is no answer."""
    busy: dict[str, JsonValue] = {"detail": "full", "status": 503, "retryable": True}
    ends: list[Event] = [Dismissed(2, "why"), Expired(), Failed(2, busy)]
    for number, event in enumerate(ends):
        store.add(job(f"a{number}", f"k{number}"), {})
        store.change(f"a{number}", Started(2), 60)
        if isinstance(event, Expired):
            store.change(f"a{number}", Succeeded(2, RESULTS, ""), 60)
        store.change(f"a{number}", event, 60)
        assert store.find_by_key(f"k{number}") is None
        assert store.add(job(f"b{number}", f"k{number}", "other"), {}).id == f"b{number}"


def test_jobs_are_told_in_the_order_in_which_they_came(store: JobStore) -> None:
    """Whatever their ids are."""
    for job_id in "zamb":
        store.add(job(job_id), {})
    store.change("m", Started(2), 60)
    store.change("a", Started(2), 60)
    store.change("a", Succeeded(3, RESULTS, ""), 60)
    assert [each.id for each in store.unfinished()] == ["z", "m", "b"]
    assert store.ids() == ["z", "a", "m", "b"]
    assert [each.id for each in store.expired(63)] == ["a"]
    assert store.expired(62.9) == []


def test_what_expired_is_told_of_until_it_is_forgotten(store: JobStore) -> None:
    """A job that is gone is `Gone`; one that has been for long is unknown."""
    store.add(job("a"), {})
    store.change("a", Started(2), 60)
    store.change("a", Succeeded(3, RESULTS, ""), 60)
    store.delete_expired(1e9)
    assert store.find("a") is not None
    store.change("a", Expired(), 60)
    assert store.expired(1e9) == []
    store.delete_expired(62)
    assert store.find("a") is not None
    store.delete_expired(64)
    assert store.find("a") is None


def test_deletions_do_not_undo_each_other(store: JobStore) -> None:
    """Each is made on the record as it is, not as its caller last saw it."""
    store.add(job("a"), {})
    store.change("a", Started(2), 60)
    store.change("a", Succeeded(3, RESULTS, ""), 60)
    store.change("a", Deleted("tiles0"), 60)
    changed = store.change("a", Deleted("cover"), 60)
    assert changed is not None
    assert [each.is_deleted for each in changed.results] == [True, True]


def test_another_process_is_refused(store: JobStore, tmp_path: Path) -> None:
    """Its jobs would be run by the wrong code. The control: the same process is welcome."""
    JobStore(tmp_path / "jobs.sqlite", process="mask").close()
    with pytest.raises(StoreRefused, match=r"jobs of process 'mask', not 'sieve'"):
        JobStore(tmp_path / "jobs.sqlite", process="sieve")


def test_what_cannot_be_kept_says_so(tmp_path: Path) -> None:
    """A file that is no database, and one that is not there any more."""
    (tmp_path / "jobs.sqlite").write_text("no database at all, but long enough to be looked at")
    with pytest.raises(StoreFailed, match="not a database"):
        JobStore(tmp_path / "jobs.sqlite", process="mask")
    with pytest.raises(StoreFailed, match=r"cannot be stored.*No such file"):
        JobStore(tmp_path / "none" / "jobs.sqlite", process="mask")


def test_a_record_is_safe_against_power_cuts(store: JobStore, tmp_path: Path) -> None:
    """The journal is a write-ahead log, synced at each commit, as the promise of 201 needs."""
    with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
