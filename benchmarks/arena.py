"""Contestants take turns at every job, round after round; only right answers are timed."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.answers import answer_of, digest_of, ready_answer
from benchmarks.contestants.child import Task
from benchmarks.jobs import JOBS, Job
from benchmarks.measure import Measured, busy_share, measure
from benchmarks.scenes import scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WORKERS, TILE = 2, 1024
_QUIET_SHARE, _QUIET_S = 0.10, 2.0


@dataclass(frozen=True)
class Contestant:
    """Who takes part.

    Attributes:
        name: In tables.
        module: Of its program, below `benchmarks.contestants`.
        tile: Side of its tiles, pixels; 0 for its own choice.
        variant: What its program should know beside.
        environment: Variables that it is started with.
        python: Interpreter.
    """

    name: str
    module: str
    tile: int = TILE
    variant: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    python: Path = Path(sys.executable)


def contestants(eoscale: Path | None) -> tuple[Contestant, ...]:
    """Everybody, EOScale where an interpreter has it."""
    threaded = {"GDAL_NUM_THREADS": str(WORKERS)}
    peers = () if eoscale is None else (
        Contestant("EOScale, tiles 1024", "eoscale", python=eoscale),
        Contestant("EOScale, its own tiles", "eoscale", tile=0, python=eoscale),
        Contestant("EOScale, tiles 1024, GDAL threads", "eoscale", environment=threaded,
                   python=eoscale),
    )  # fmt: skip
    return (
        Contestant("limit", "limit"),
        Contestant("hand-written threads", "threads"),
        Contestant("Dask, threads", "dask_arrays"),
        *peers,
        Contestant("pesto, threads", "pesto", tile=0, variant="threads"),
        Contestant("pesto, processes", "pesto", tile=0, variant="processes"),
    )


@dataclass
class Standing:
    """A contestant's runs of one job.

    Attributes:
        runs: One for each round.
        identical: Whether every answer was the right one, bit for bit.
        peak_bytes: Highest memory of the run that sampled it.
    """

    runs: list[Measured] = field(default_factory=list)
    identical: bool = True
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Results:
    """What came of it.

    Attributes:
        size: Width and height of the scenes.
        rounds: How many were timed.
        standings: Job's letter -> contestant's name -> runs.
        control: Pixels of job A that differ where the margin is one too small; must not be 0.
    """

    size: int
    rounds: int
    standings: Mapping[str, Mapping[str, Standing]]
    control: int


@dataclass(frozen=True)
class Arena:
    """Where a benchmark is held.

    Attributes:
        cache: Folder of scenes, right answers and what contestants write.
        size: Width and height of the scenes.
        quiet_s: Longest wait for a quiet machine before a timed run, seconds.
        tries: How often a timed run is taken while others use the machine; the one that they
            disturbed least counts, be it fast or slow.
    """

    cache: Path
    size: int
    quiet_s: float = 0.0
    tries: int = 1

    def hold(self, teams: Iterable[Contestant], *, letters: str, rounds: int, warm: bool
             ) -> Results:  # fmt: skip
        """Let everybody run every job.

        Args:
            teams: Contestants.
            letters: Jobs.
            rounds: How often each is timed.
            warm: Whether a round that is not timed goes before, and samples memory; otherwise
                the timed rounds sample it.

        Raises:
            ContestantFailed: one ended with an error.
        """
        teams = tuple(teams)
        jobs = [JOBS[letter] for letter in letters]
        digests = {job.letter: self._prepare(job) for job in jobs}
        standings = {job.letter: {team.name: Standing() for team in teams} for job in jobs}
        for number in range(0 if warm else 1, rounds + 1):
            for job in jobs:
                for team in teams:
                    standing = standings[job.letter][team.name]
                    self._turn(job, team, standing, digests[job.letter], number=number, warm=warm)
        return Results(self.size, rounds, standings, self._control())

    def _prepare(self, job: Job) -> str:
        self.cache.mkdir(parents=True, exist_ok=True)
        (self.cache / ".gitignore").write_text("*\n")
        made = ready_answer(self.cache, job, scene(self.cache, job.scene, size=self.size))
        return digest_of(np.load(made))

    def _turn(self, job: Job, team: Contestant, standing: Standing, digest: str,
              *, number: int, warm: bool) -> None:  # fmt: skip
        runs: list[Measured] = []
        with_memory = number == 0 or not warm
        while len(runs) < (self.tries if number else 1):
            if number:
                self._wait()
            task = self._task(job, team)
            runs.append(self._measured(team, task, with_memory=with_memory))
            standing.identical &= digest_of(answer_of(task)) == digest
            print(
                f"round {number}  {job.letter}  {team.name:36} {runs[-1].seconds:7.2f} s"
                f"  others {runs[-1].others:4.0%}",
                file=sys.stderr,
            )
            if runs[-1].others <= _QUIET_SHARE:
                break
        if number:
            standing.runs.append(min(runs, key=lambda run: run.others))
        standing.peak_bytes = standing.peak_bytes or runs[0].peak_bytes

    def _measured(self, team: Contestant, task: Task, *, with_memory: bool) -> Measured:
        return measure(
            f"benchmarks.contestants.{team.module}",
            task,
            python=team.python,
            environment=team.environment,
            with_memory=with_memory,
        )

    def _task(self, job: Job, team: Contestant, *, margin: int | None = None) -> Task:
        out = self.cache / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        place = scene(self.cache, job.scene, size=self.size)
        return Task(
            letter=job.letter,
            scene=str(place.resolve()),
            out=str(out.resolve()),
            ready=str(ready_answer(self.cache, job, place).resolve()),
            workers=WORKERS,
            tile=team.tile,
            margin=job.margin if margin is None else margin,
            variant=team.variant,
        )

    def _control(self) -> int:
        """Pixels that a margin one too small gets wrong: the comparison can see such a thing."""
        job = JOBS["A"]
        self._prepare(job)
        tile = min(TILE, self.size // 2)
        task = self._task(job, Contestant("control", "threads", tile=tile), margin=job.margin - 1)
        measure("benchmarks.contestants.threads", task)
        return int(np.count_nonzero(answer_of(task) != np.load(task.ready)))

    def _wait(self) -> None:
        until = time.monotonic() + self.quiet_s
        while time.monotonic() < until and busy_share(_QUIET_S) > _QUIET_SHARE:
            time.sleep(_QUIET_S)


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
