"""Simulate a campaign, tile by tile: plan, fan-out on the engine, closing, publishing.

Each tile is read, computed, sent to a service and stored on its own, so that queues of cores, of
the service and of the store are those of the moment. Queues are first in, first out.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from benchmarks.scale.facts import Costs, Engine, Failures, Fleet, Limits, Work, tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HOUR_S = 3600.0
_SHARED = ("service", "requests", "bytes", "control")
_IS_BUSY = 0.7


@dataclass(frozen=True)
class Outcome:
    """A campaign that was simulated.

    Attributes:
        parts: `plan`, `fan-out`, `close`, `publish`, `engine`: seconds, one after another.
        busy: `cores`, `control`, `service`, `requests`, `bytes`, `slots` -> busy share of the
            fan-out, 0 to 1.
        tasks: Tasks of the fan-out, retries not counted.
        computed: Tiles that were computed; above the tiles of the work after kills.
        stored: Scene -> its tiles whose blocks are stored.
        kills: Kills of workers that had a task.
    """

    parts: dict[str, float]
    busy: dict[str, float]
    tasks: int
    computed: int
    stored: dict[int, int]
    kills: int

    @property
    def seconds(self) -> float:
        """From start to end."""
        return sum(self.parts.values())

    @property
    def bottleneck(self) -> str:
        """The longest part; for the fan-out, what it waits for.

        `service`, `requests`, `bytes`, `control` where it is busy for 70 % of the time; `workers`
        where their slots are; else `tasks`: too few of them, or too unequal ends.
        """
        part = max(self.parts, key=self.parts.__getitem__)
        if part != "fan-out":
            return part
        shared = {name: self.busy.get(name, 0.0) for name in _SHARED}
        most = max(shared, key=shared.__getitem__)
        if shared[most] >= _IS_BUSY:
            return most
        return "workers" if self.busy["slots"] >= _IS_BUSY else "tasks"


def simulate(
    work: Work,
    costs: Costs,
    engine: Engine,
    fleet: Fleet,
    limits: Limits = Limits(),  # noqa: B008  # frozen
    failures: Failures = Failures(),  # noqa: B008  # frozen
) -> Outcome:
    """Simulate a campaign; on an engine without campaigns, one run after another."""
    if not engine.is_per_scene or work.scenes == 1:
        return _campaign(work, costs, engine, fleet, limits, failures)
    single, is_same = replace(work, scenes=1), not failures.per_hour
    runs = [
        _campaign(single, costs, engine, fleet, limits, replace(failures, seed=failures.seed + n))
        for n in range(1 if is_same else work.scenes)
    ]
    times = work.scenes if is_same else 1
    parts = {name: times * sum(run.parts[name] for run in runs) for name in runs[0].parts}
    fan_out = sum(run.parts["fan-out"] for run in runs)
    return Outcome(
        parts=parts | {"engine": parts["engine"] - (work.scenes - 1) * engine.serial_s},
        busy={
            name: sum(run.busy[name] * run.parts["fan-out"] for run in runs) / fan_out
            for name in runs[0].busy
        },
        tasks=times * sum(run.tasks for run in runs),
        computed=times * sum(run.computed for run in runs),
        stored={n: runs[n % len(runs)].stored[0] for n in range(work.scenes)},
        kills=times * sum(run.kills for run in runs),
    )


def _campaign(
    work: Work, costs: Costs, engine: Engine, fleet: Fleet, limits: Limits, failures: Failures
) -> Outcome:
    tasks = tasks_of(work, engine, fleet)
    run = _FanOut(work, costs, engine, fleet, limits, failures, tasks)
    run.run()
    tiles = work.columns * work.rows
    return Outcome(
        parts={
            "plan": costs.plan_s + work.scenes * costs.plan_scene_s,
            "fan-out": run.ended,
            "close": work.scenes * costs.close_scene_s,
            "publish": work.scenes * (costs.publish_scene_s + tiles * costs.publish_tile_s),
            "engine": engine.serial_s + engine.scene_s,
        },
        busy=run.busy(),
        tasks=len(tasks),
        computed=run.computed,
        stored=run.stored,
        kills=run.kills,
    )


class Station:
    """Servers with one queue; customers must arrive in the order of time.

    Args:
        servers: How many serve at once; 0 for as many as come.
    """

    def __init__(self, servers: int) -> None:
        self.servers, self.busy_s = servers, 0.0
        self._free = [0.0] * servers

    def serve(self, now: float, seconds: float) -> float:
        """Return the time at which a customer who arrives now has been served."""
        self.busy_s += seconds
        if not seconds or not self.servers:
            return now + seconds
        end = max(now, self._free[0]) + seconds
        heapq.heapreplace(self._free, end)
        return end


@dataclass(eq=False)
class _Worker:
    """A process that takes tasks."""

    number: int
    cores: Station
    attempts: list[_Attempt] = field(default_factory=list)
    is_alive: bool = True


@dataclass(eq=False)
class _Attempt:
    """A task on a worker: its chunk of now, and those that follow."""

    worker: _Worker
    begun: float
    chunks: deque[tuple[int, int]]
    left: int = 0
    running: int = 0
    done: int = 0
    flushed: float = 0.0
    is_dead: bool = False


class _FanOut:
    """The tasks of a phase while they run."""

    def __init__(  # the facts of a simulation
        self, work: Work, costs: Costs, engine: Engine, fleet: Fleet, limits: Limits,
        failures: Failures, tasks: Sequence[Sequence[tuple[int, int]]],
    ) -> None:  # fmt: skip
        self._work, self._costs, self._engine, self._fleet = work, costs, engine, fleet
        self._limits, self._failures = limits, failures
        self._events: list[tuple[float, int, Callable[..., None], object]] = []
        self._number = 0
        hosts = [Station(fleet.cores) for _ in range(fleet.hosts or fleet.workers)]
        self._hosts, self._control = hosts, Station(1)
        self._service = Station(limits.service_slots)
        self._requests, self._bytes = Station(1), Station(1)
        self._request_s = 1 / limits.requests_per_s if limits.requests_per_s else 0.0
        self._byte_s = 1 / limits.bytes_per_s if limits.bytes_per_s else 0.0
        self._tile_cpu_s = costs.tile_s + work.cpu_s
        workers = [_Worker(n, hosts[n % len(hosts)]) for n in range(fleet.workers)]
        self._workers = workers
        self._free = deque(each for _ in range(fleet.slots) for each in workers)
        self._ready: deque[Sequence[tuple[int, int]]] = deque(tasks)
        self._open = len(tasks)
        self._random = random.Random(failures.seed)  # noqa: S311  # a simulation
        self._slot_s = 0.0
        self.ended, self.computed, self.kills = 0.0, 0, 0
        self.stored: dict[int, int] = dict.fromkeys(range(work.scenes), 0)

    def run(self) -> None:
        """Simulate until every task has ended."""
        for time, number in self._failures.kills:
            self._at(time, self._kill, self._workers[number])
        for worker in self._workers:
            self._draw_kill(0.0, worker)
        self._offer(0.0)
        events = self._events
        while self._open:
            now, _, act, item = heapq.heappop(events)
            act(now, item)

    def busy(self) -> dict[str, float]:
        """Return the busy share of each station."""
        stations = {
            "cores": self._hosts, "control": [self._control], "requests": [self._requests],
            "bytes": [self._bytes], "service": [self._service] if self._service.servers else [],
        }  # fmt: skip
        whole = max(self.ended, 1e-9)
        found = {
            name: sum(each.busy_s for each in group) / sum(each.servers for each in group) / whole
            for name, group in stations.items()
            if group
        }
        slots = self._fleet.workers * self._fleet.slots
        return found | {"slots": self._slot_s / slots / whole}

    def _at(self, time: float, act: Callable[..., None], item: object) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, act, item))

    def _offer(self, now: float) -> None:
        """Give tasks to free slots; they wait for the engine, then for their start."""
        while self._ready and self._free:
            worker = self._free.popleft()
            if not worker.is_alive:
                continue
            attempt = _Attempt(worker, now, deque(self._ready.popleft()))
            worker.attempts.append(attempt)
            end = self._control.serve(now, self._engine.control_s)
            if self._fleet.is_shared:
                end = max(end, self._hosts[0].serve(now, self._engine.control_s))
            self._at(end + self._engine.task_wait_s, self._begin_task, attempt)

    def _begin_task(self, now: float, attempt: _Attempt) -> None:
        if not attempt.is_dead:
            end = attempt.worker.cores.serve(now, self._engine.task_cpu_s)
            self._at(end, self._begin_chunk, attempt)

    def _begin_chunk(self, now: float, attempt: _Attempt) -> None:
        if attempt.is_dead:
            return
        attempt.left, attempt.done, attempt.flushed = attempt.chunks[0][1], 0, now
        start = attempt.worker.cores.serve(now, self._costs.chunk_s)
        attempt.running = min(self._fleet.threads, max(attempt.left, 1))
        for _ in range(attempt.running):
            self._at(start, self._begin_tile, attempt)

    def _begin_tile(self, now: float, attempt: _Attempt) -> None:
        if attempt.is_dead:
            return
        if not attempt.left:
            attempt.running -= 1
            if not attempt.running:
                self._end_chunk(now, attempt)
            return
        attempt.left -= 1
        if self._work.read_bytes:
            now = self._transfer(now, self._work.read_bytes)
            self._at(now, self._compute, attempt)
        else:
            self._compute(now, attempt)

    def _compute(self, now: float, attempt: _Attempt) -> None:
        if attempt.is_dead:
            return
        end = attempt.worker.cores.serve(now, self._tile_cpu_s) + self._work.wait_s
        self._at(end, self._call if self._work.service_s else self._end_tile, attempt)

    def _call(self, now: float, attempt: _Attempt) -> None:
        if not attempt.is_dead:
            self._at(self._service.serve(now, self._work.service_s), self._end_tile, attempt)

    def _end_tile(self, now: float, attempt: _Attempt) -> None:
        if attempt.is_dead:
            return
        self.computed += 1
        attempt.done += 1
        if now - attempt.flushed >= self._costs.flush_s:
            now = self._store(now, attempt)
            self._at(now, self._begin_tile, attempt)
        else:
            self._begin_tile(now, attempt)

    def _end_chunk(self, now: float, attempt: _Attempt) -> None:
        now = self._store(now, attempt)
        attempt.chunks.popleft()
        self._at(now, self._begin_chunk if attempt.chunks else self._end_task, attempt)

    def _end_task(self, now: float, attempt: _Attempt) -> None:
        if attempt.is_dead:
            return
        self._open -= 1
        self.ended = now
        self._slot_s += now - attempt.begun
        attempt.worker.attempts.remove(attempt)
        self._free.append(attempt.worker)
        self._offer(now)

    def _store(self, now: float, attempt: _Attempt) -> float:
        """Store the pack of the tiles that are done; return when it is there."""
        scene, tiles = attempt.chunks[0]
        count, attempt.done, attempt.flushed = attempt.done, 0, now
        attempt.chunks[0] = (scene, tiles - count)
        self.stored[scene] += count
        return self._transfer(now, count * self._work.write_bytes) if count else now

    def _transfer(self, now: float, size: float) -> float:
        if not size:
            return now
        end = self._requests.serve(now, self._request_s)
        return max(end, self._bytes.serve(now, size * self._byte_s)) + self._limits.latency_s

    def _draw_kill(self, now: float, worker: _Worker) -> None:
        if self._failures.per_hour:
            wait_s = self._random.expovariate(self._failures.per_hour / _HOUR_S)
            self._at(now + wait_s, self._kill, worker)

    def _kill(self, now: float, worker: _Worker) -> None:
        """End a worker: what its tasks have not stored is computed again, later, elsewhere."""
        worker.is_alive = False
        self.kills += bool(worker.attempts)
        for attempt in worker.attempts:
            attempt.is_dead = True
            self._slot_s += now - attempt.begun
            self._at(now + self._engine.seen_s, self._return, attempt.chunks)
        worker.attempts = []
        self._free = deque(each for each in self._free if each is not worker)
        self._at(now + self._failures.back_s, self._revive, worker)

    def _return(self, now: float, chunks: deque[tuple[int, int]]) -> None:
        self._ready.append([each for each in chunks if each[1]] or [chunks[-1]])
        self._offer(now)

    def _revive(self, now: float, worker: _Worker) -> None:
        worker.is_alive = True
        self._free.extend([worker] * self._fleet.slots)
        self._draw_kill(now, worker)
        self._offer(now)
