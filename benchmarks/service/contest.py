"""The contest: who runs what against whom, in turns, and whether all of them did the work."""

from __future__ import annotations

import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.service import bodies, load
from benchmarks.service.servers import floor, ours, peer, running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.service.bodies import Body
    from benchmarks.service.load import Run
    from benchmarks.service.servers import Server

OURS, STARLETTE, FASTAPI, PESTO = "pesto-workflows", "Starlette", "FastAPI", "PESTO 1.7.2"
FLOOR = "echo of a worker"
CLIENTS = (1, 8)


@dataclass(frozen=True)
class Event:
    """One request, and those who answer it.

    Attributes:
        name: In the tables.
        entries: Contestant -> what it is sent.
        checks_image: Whether the answer is the inverted image.
    """

    name: str
    entries: Mapping[str, Body]
    checks_image: bool = True


@dataclass
class Standing:
    """Runs of one contestant in one event with so many clients, a round each."""

    runs: list[Run] = field(default_factory=list)


Standings = dict[tuple[str, int, str], Standing]


def events(folder: Path) -> tuple[Event, ...]:
    """All events."""
    image = bodies.pixels()
    raw, form = bodies.raw(image), bodies.form(image)
    text, reference = bodies.in_base64(image), bodies.by_reference(image, folder)
    peers_form = bodies.form(image, "/form")
    return (
        Event("tiny JSON", dict.fromkeys((OURS, FASTAPI, PESTO, FLOOR), bodies.tiny()), False),
        Event("3 MiB raw .npy", {OURS: raw, STARLETTE: raw}),
        Event("3 MiB multipart", {OURS: form, STARLETTE: peers_form}),
        Event("3 MiB base64 GeoTIFF", {OURS: text, PESTO: text}),
        Event("3 MiB by reference", {OURS: reference, PESTO: reference}),
        Event("describe", {OURS: bodies.describe(), PESTO: bodies.describe()}, False),
    )


def hold(
    folder: Path, *, pesto: Server | None, rounds: int, seconds: float, workers: int
) -> tuple[Standings, dict[str, bool]]:
    """Hold all events; also tells of each event and contestant whether its answer was right."""
    standings: Standings = {}
    right: dict[str, bool] = {}
    with ExitStack() as stack:
        servers = {
            OURS: stack.enter_context(running(OURS, ours(folder, workers))),
            STARLETTE: stack.enter_context(running(STARLETTE, peer("starlette"))),
            FASTAPI: stack.enter_context(running(FASTAPI, peer("fastapi"))),
            FLOOR: stack.enter_context(running(FLOOR, floor())),
        }
        if pesto is not None:
            servers[PESTO] = pesto
        for event in events(folder):
            for name, body in event.entries.items():
                if name in servers and event.checks_image:
                    right[f"{event.name}, {name}"] = is_right(servers[name], body)
        for number in range(rounds):
            for event in events(folder):
                _round(event, servers, standings, number=number, seconds=seconds, folder=folder)
    return standings, right


def is_right(server: Server, body: Body) -> bool:
    """Whether the answer to a body is its image inverted."""
    request = urllib.request.Request(  # noqa: S310  # our own servers
        server.url + body.path, body.content, dict(body.headers), method=body.method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        media_type = answer.headers["Content-Type"].partition(";")[0]
        found = bodies.answered(answer.read(), media_type)
    return bool(np.array_equal(found, ~bodies.pixels()))


def _round(
    event: Event,
    servers: Mapping[str, Server],
    standings: Standings,
    *,
    number: int,
    seconds: float,
    folder: Path,
) -> None:
    """Contestants take turns; who begins changes with the round."""
    names = [name for name in event.entries if name in servers]
    turned = names[number % len(names) :] + names[: number % len(names)]
    for clients in CLIENTS:
        for name in turned:
            body = event.entries[name]
            found = load.run(servers[name], body, clients=clients, seconds=seconds, folder=folder)
            standings.setdefault((event.name, clients, name), Standing()).runs.append(found)
            print(f"{event.name:22} {clients} {name:16} {found.successes:9.1f}/s", flush=True)
