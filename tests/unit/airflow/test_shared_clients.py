"""Many triggers of one triggerer, and the connections that they open."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # it has no types

from pesto_airflow.hooks import PestoHook
from pesto_airflow.shared_clients import AT_ONCE, shared_client
from pesto_airflow.triggers import PestoJobTrigger
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
    async for event in trigger.run():
        return event.payload
    return None


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
                async with other.turn() as client:
                    found.append(await client.health())
        async with shared_client(PestoHook("t")) as later:
            found.append(later is other)
        return found

    assert asyncio.run(clients()) == [True, False, "OK", False]
