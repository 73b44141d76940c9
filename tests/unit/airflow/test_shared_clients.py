"""Many triggers of one triggerer, and the connections that they open."""

from __future__ import annotations

import asyncio
import json
import selectors
from itertools import pairwise
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it has no types

from pesto_airflow.hooks import PestoHook
from pesto_airflow.shared_clients import AT_ONCE, RATE, SharedClient, shared_client
from pesto_airflow.triggers import PestoJobTrigger
from pesto_runtime.client.async_client import AsyncClient
from tests.unit.airflow.test_waiting import submitted

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.contract.serving import Server

TRIGGERS = 30


def connections_to(port: int) -> int:
    """Open TCP connections of this process to a port."""
    found = psutil.Process().net_connections(kind="tcp")
    return sum(each.status == "ESTABLISHED" and bool(each.raddr) and each.raddr.port == port
               for each in found)  # fmt: skip


async def event_of(trigger: PestoJobTrigger) -> object:
    """The one event of a trigger."""
    (payload,) = [event.payload async for event in trigger.run()]
    return payload


def test_triggers_of_one_service_share_a_few_connections(errands: Server, tmp_path: Path) -> None:
    """Each receives the end of its own job. The control: clients of their own open one each."""
    ids = [str(submitted(errands, tmp_path, name=f"n{n}")["job_id"]) for n in range(TRIGGERS)]
    port = int(errands.url.split(":")[2].split("/")[0])

    before = connections_to(port)

    async def ends() -> tuple[list[object], int]:
        triggers = [
            PestoJobTrigger(each, service=errands.url, pesto_conn_id=None, poll_s=0.1)
            for each in ids
        ]
        waiting = [asyncio.create_task(event_of(each)) for each in triggers]
        most = 0
        for step in range(20):
            await asyncio.sleep(0.05)
            most = max(most, connections_to(port))
            if step == 10:
                (tmp_path / "gate").touch()
        return await asyncio.gather(*waiting), most

    async def apart() -> int:
        clients = [await PestoHook(None, service=errands.url).aclient() for _ in ids]
        await asyncio.gather(*(each.health() for each in clients))
        opened = connections_to(port)
        await asyncio.gather(*(each.close() for each in clients))
        return opened

    events, most = asyncio.run(ends())
    assert [(each["job_id"], each["fate"]) for each in events] == [  # type: ignore[index]  # JSON
        (each, "successful") for each in ids
    ]
    assert 1 <= most - before <= AT_ONCE
    assert asyncio.run(apart()) - before == TRIGGERS


def test_other_credentials_are_another_client(
    errands: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was changed holds for the next trigger, and the last user closes."""

    def token(text: str) -> None:
        document = {"conn_type": "pesto", "host": errands.url, "password": text}
        monkeypatch.setenv("AIRFLOW_CONN_T", json.dumps(document))

    async def clients() -> list[object]:
        found: list[object] = []
        token("first")
        async with shared_client(PestoHook("t")) as first, shared_client(PestoHook("t")) as same:
            token("second")
            async with shared_client(PestoHook("t")) as other:
                found += [first is same, first is other]
                async with other.turn(1) as client:
                    found.append(await client.health())
        async with shared_client(PestoHook("t")) as later:
            found.append(later is other)
        return found

    assert asyncio.run(clients()) == [True, False, "OK", False]


class _Jumping(selectors.DefaultSelector):
    """Nothing is waited for: the clock jumps instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0
        return super().select(0)


class _JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds take no time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """The seconds so far."""
        return self._jumping.now


def turns_of(users: int, *, every_s: float, for_s: float, wanted_s: float) -> list[list[float]]:
    """The times of the turns of each of so many users, who all begin at once, seconds."""
    turns: list[list[float]] = [[] for _ in range(users)]

    async def use(shared: SharedClient, own: list[float]) -> None:
        clock = asyncio.get_running_loop().time
        while clock() < for_s:
            async with shared.turn(every_s):
                own.append(clock())
            await asyncio.sleep(shared.pause_s(wanted_s, every_s))

    async def use_all() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            shared = SharedClient(client, users)
            await asyncio.gather(*(use(shared, own) for own in turns))

    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        runner.run(use_all())
    return turns


def most_in_a_second(turns: list[list[float]]) -> int:
    """The most turns that begin within one second."""
    times = sorted(time for own in turns for time in own)
    return max(sum(begin <= each < begin + 1 for each in times) for begin in times)


def test_users_that_begin_together_take_turns() -> None:
    """A hundred send 20 requests in each second, which is one each 5 s, and nobody waits longer.

    The control: so many of their own accord would send a hundred at once.
    """
    turns = turns_of(100, every_s=5, for_s=60, wanted_s=0.25)
    assert most_in_a_second(turns) <= 21
    assert {len(own) for own in turns} <= {11, 12, 13}
    gaps = [later - earlier for own in turns for earlier, later in pairwise(own)]
    assert 5 - 1e-6 <= min(gaps) <= max(gaps) <= 6
    alone = turns_of(100, every_s=1e-9, for_s=5, wanted_s=5)
    assert most_in_a_second(alone) == 100


def test_a_few_users_wait_as_they_want() -> None:
    """The rate limits many: one user has a turn as often as it asks."""
    (own,) = turns_of(1, every_s=5, for_s=10, wanted_s=0.25)
    assert len(own) >= 39
    assert most_in_a_second(turns_of(30, every_s=5, for_s=60, wanted_s=0.25)) <= RATE + 1
