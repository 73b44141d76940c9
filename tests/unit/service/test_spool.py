"""Large bytes without a name: the same for all who hold them, gone with the last of them."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest

from pesto_runtime.service.runner import KEPT_BYTES, Spool, SpoolPool
from pesto_runtime.service.workers.frames import open_channel, receive, send


def test_what_is_written_is_read_however_it_is_cut() -> None:
    """Whole, in pieces of any size, and as a map."""
    data = np.random.default_rng(1).bytes(2_500_001)
    spool = Spool.create()
    for begin in range(0, len(data), 300_000):
        spool.write(data[begin : begin + 300_000])
    assert len(spool) == len(data)
    assert spool.whole() == data
    assert [len(each) for each in spool.pieces(1_000_000)] == [1_000_000, 1_000_000, 500_001]
    assert spool.mapped()[:] == data


def test_a_map_outlives_its_spool_and_is_its_writers_own() -> None:
    """The file is closed and written over in one map; the other one sees what was there."""
    spool = Spool.of(b"a" * 5000)
    mine, other = spool.mapped(), spool.mapped()
    spool.close()
    mine[:5] = b"mine!"
    assert (mine[:6], other[:6]) == (b"mine!a", b"aaaaaa")


def test_a_spool_that_somebody_cut_is_no_short_answer() -> None:
    """Its reader is told, rather than given less."""
    spool = Spool.of(b"a" * 5000)
    os.ftruncate(spool.descriptor, 10)
    with pytest.raises(EOFError, match="5000 bytes ends at 10"):
        spool.whole()


def test_a_descriptor_is_closed_with_its_spool() -> None:
    """A thousand spools leave as many open files as there were."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names alone
    for _ in range(1000):
        Spool.of(b"a")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_spool_goes_with_the_bytes_it_was_sent_with() -> None:
    """Over a socket, as another descriptor of the same memory; a frame without one has none."""
    ours, theirs = open_channel()
    with ours, theirs:
        spool = Spool.of(b"large")
        assert send(ours, b"frame", spool) == 5
        data, found = receive(theirs)
        assert found is not None
        assert (data, found.descriptor != spool.descriptor) == (b"frame", True)
        found.size = 5
        spool.close()
        assert found.whole() == b"large"
        assert not os.get_inheritable(found.descriptor)
        send(theirs, b"answer")
        assert receive(ours) == (b"answer", None)
        theirs.shutdown(socket.SHUT_RDWR)
        assert receive(ours) == (b"", None)


def file_of(spool: Spool) -> int:
    """Which memory file it is."""
    return os.fstat(spool.descriptor).st_ino


def test_a_file_is_used_again_once_it_is_given_back() -> None:
    """Shorter content ends where it ends; one that is large, or one too many, is closed."""
    pool = SpoolPool(1)
    first = Spool.of(b"a" * 5000, pool)
    number, other = file_of(first), Spool.of(b"b", pool)
    first.give_back()
    first.give_back()
    other.give_back()
    again = Spool.of(b"short", pool)
    assert file_of(again) == number
    assert (again.whole(), len(again), again.mapped()[:]) == (b"short", 5, b"short")
    assert file_of(pool.take()) != number
    again.write(bytes(KEPT_BYTES))
    again.give_back()
    with pytest.raises(IndexError):
        pool._kept.pop()


def test_a_map_is_known_while_an_array_has_it() -> None:
    """Such a file must not be written again: the array would change."""
    spool = Spool.of(b"a" * 5000)
    assert not spool.is_mapped
    array = np.frombuffer(spool.mapped(), np.uint8)[10:20]
    assert spool.is_mapped
    del array
    assert not spool.is_mapped
