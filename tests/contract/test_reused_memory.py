"""Memory files of bodies and answers are used again, and nobody ever sees it."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.contract.serving import served

if TYPE_CHECKING:
    from tests.contract.serving import Server

NPY = "application/x-npy"
SIDE = 1200  # 2.9 MB of uint16: of a size that is kept


def npy(value: int, side: int = SIDE) -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((1, side, side), value, np.uint16))
    return file.getvalue()


def call(server: Server, value: int, side: int = SIDE) -> httpx.Response:
    headers = {"Content-Type": NPY, "Accept": NPY}
    return server("POST", "/process", content=npy(value, side), headers=headers)


def files_of(process_id: int) -> set[int]:
    """The memory files that a process has open."""
    folder = f"/proc/{process_id}/fd"
    found = set()
    for name in os.listdir(folder):  # noqa: PTH208  # of /proc
        try:
            if "pesto-spool" in os.readlink(f"{folder}/{name}"):  # noqa: PTH115
                found.add(os.stat(f"{folder}/{name}").st_ino)  # noqa: PTH116
        except FileNotFoundError:
            continue
    return found


def test_an_array_that_a_process_keeps_never_changes() -> None:
    """Its file is not used again. The control: the one of an array that is not kept is."""
    with served("tests/contract/keeper.py:keep") as server:
        for number in range(1, 5):
            headers = {"Content-Type": NPY}
            answer = server("POST", "/process", content=npy(number), headers=headers)
            assert answer.json() == {"result": list(range(1, number + 1))}
        assert not files_of(server.process.pid)
    with served("tests/contract/keeper.py:same") as server:
        files = []
        for number in (7, 8, 9):
            assert call(server, number).content == npy(number)
            files.append(files_of(server.process.pid))
        assert files[0] == files[1] == files[2]
        assert len(files[0]) == 1


@pytest.mark.parametrize("side", [SIDE, 2000])
def test_an_answer_that_is_read_late_is_its_own(side: int) -> None:
    """Others are computed meanwhile by the same worker; 8 MB are beyond the size that is kept."""
    with (
        served("tests/contract/keeper.py:same") as server,
        httpx.Client(trust_env=False, timeout=60) as slow,
    ):
        headers = {"Content-Type": NPY, "Accept": NPY}
        with slow.stream(
            "POST", f"{server.url}/process", content=npy(1, side), headers=headers
        ) as late:
            with ThreadPoolExecutor(3) as threads:
                others = list(threads.map(lambda value: call(server, value, side), range(2, 8)))
            assert [each.content for each in others] == [npy(n, side) for n in range(2, 8)]
            assert late.read() == npy(1, side)
