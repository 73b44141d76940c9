"""The state machine of a worker: every state with every event, and rules for any order of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import Description
from pesto_runtime.errors import AlgorithmFailed, InvalidInput
from pesto_runtime.service.runner import CallResponse, ProcessFacts
from pesto_runtime.service.workers.lifecycle import (
    Action,
    AnswerReceived,
    CallAbandoned,
    CallAssigned,
    CallNotStarted,
    ErrorReceived,
    Event,
    FactsReceived,
    KillRequested,
    Lifecycle,
    ProcessExited,
    Resolve,
    SetUpReported,
    SocketClosed,
    SocketRead,
    StartKilled,
    TimePassed,
    advance,
)

FACTS = ProcessFacts(
    Description.parse({"name": "p", "version": "1", "input": {}, "output": {}}), "sha256:0", {}
)
ANSWER = CallResponse(b"{}", "application/json")
ERROR = InvalidInput("no")

LIVES = {
    "loading": Lifecycle("t"),
    "setting up": Lifecycle("p", "setting up"),
    "idle": Lifecycle("p", "idle", 2),
    "called": Lifecycle("p", "called", 3, deadline=10.0),
    "called without deadline": Lifecycle("p", "called", 3),
    "late": Lifecycle("p", "late", 3, deadline=10.0),
    "lost": Lifecycle("p", "lost", 3),
    "lost at load": Lifecycle("t", "lost", 0, is_awaited=True),
    "lost, awaited": Lifecycle("p", "lost", 3, is_awaited=True),
    "exited": Lifecycle("p", "lost", 3, exit_code=4),
}
EVENTS: dict[str, Event] = {
    "loaded": FactsReceived(FACTS),
    "set up": SetUpReported(),
    "assigned": CallAssigned(20.0),
    "answered": AnswerReceived(ANSWER),
    "failed": ErrorReceived(ERROR),
    "9.5 s": TimePassed(9.5),
    "10 s": TimePassed(10.0),
    "read": SocketRead(),
    "this call abandoned": CallAbandoned(3),
    "call before abandoned": CallAbandoned(2),
    "closed": SocketClosed(),
    "kill": KillRequested(),
    "exit in call": ProcessExited(4, 3),
    "exit before call": ProcessExited(4, 2),
    "exit at load": ProcessExited(-9, 0),
    "crash at load": ProcessExited(-11, 0),
}
ENDED = "its worker process ended itself with exit status 4"
KILLED = "its worker process was ended by SIGKILL (the system does so when memory runs out)"

TABLE: dict[tuple[str, str], tuple[Lifecycle, tuple[object, ...]]] = {
    ("loading", "loaded"): (Lifecycle("p", "setting up"), (FACTS,)),
    ("loading", "failed"): (Lifecycle("t", "lost"), (ERROR, "kill")),
    ("loading", "closed"): (Lifecycle("t", "lost", is_awaited=True), ("kill",)),
    ("loading", "kill"): (Lifecycle("t", "lost", is_awaited=True), ("kill",)),
    ("setting up", "set up"): (Lifecycle("p", "idle"), (None,)),
    ("setting up", "failed"): (Lifecycle("p", "lost"), (ERROR, "kill")),
    ("setting up", "closed"): (Lifecycle("p", "lost", is_awaited=True), ("kill",)),
    ("setting up", "kill"): (Lifecycle("p", "lost", is_awaited=True), ("kill",)),
    ("idle", "assigned"): (Lifecycle("p", "called", 3, deadline=20.0), ("send call",)),
    ("idle", "closed"): (Lifecycle("p", "lost", 2), ("kill", "report loss")),
    ("idle", "kill"): (Lifecycle("p", "lost", 2), ("kill",)),
    ("called", "10 s"): (Lifecycle("p", "late", 3, deadline=10.0), ("read socket",)),
    ("late", "read"): (
        Lifecycle("p", "lost", 3),
        ((TimeoutError, ""), "kill", "report loss"),
    ),
    ("lost at load", "exit at load"): (
        Lifecycle("t", "lost", exit_code=-9),
        ((StartKilled, f"t: {KILLED}"),),
    ),
    ("lost at load", "crash at load"): (
        Lifecycle("t", "lost", exit_code=-11),
        ((AlgorithmFailed, "t: its worker process was ended by SIGSEGV"),),
    ),
    ("lost, awaited", "exit in call"): (
        Lifecycle("p", "lost", 3, exit_code=4),
        ((AlgorithmFailed, f"p: {ENDED}"),),
    ),
    ("lost, awaited", "exit before call"): (
        Lifecycle("p", "lost", 3, exit_code=4),
        ((CallNotStarted, f"p: {ENDED} before it began this call"),),
    ),
    ("lost, awaited", "this call abandoned"): (Lifecycle("p", "lost", 3), ()),
    ("lost", "assigned"): (Lifecycle("p", "lost", 4, is_awaited=True), ()),
    ("exited", "assigned"): (
        Lifecycle("p", "lost", 4, exit_code=4),
        ((CallNotStarted, f"p: {ENDED} before it began this call"),),
    ),
    ("lost", "exit in call"): (Lifecycle("p", "lost", 3, exit_code=4), ()),
    ("lost", "exit before call"): (Lifecycle("p", "lost", 3, exit_code=4), ()),
    ("lost", "exit at load"): (Lifecycle("p", "lost", 3, exit_code=-9), ()),
    ("lost", "crash at load"): (Lifecycle("p", "lost", 3, exit_code=-11), ()),
    ("lost, awaited", "crash at load"): (
        Lifecycle("p", "lost", 3, exit_code=-11),
        (
            (
                CallNotStarted,
                "p: its worker process was ended by SIGSEGV before it began this call",
            ),
        ),
    ),
    ("lost at load", "exit in call"): (
        Lifecycle("t", "lost", exit_code=4),
        ((CallNotStarted, f"t: {ENDED} before it began this call"),),
    ),
    ("lost at load", "exit before call"): (
        Lifecycle("t", "lost", exit_code=4),
        ((CallNotStarted, f"t: {ENDED} before it began this call"),),
    ),
    ("lost, awaited", "exit at load"): (
        Lifecycle("p", "lost", 3, exit_code=-9),
        ((CallNotStarted, f"p: {KILLED} before it began this call"),),
    ),
}
for called in ("called", "called without deadline", "late"):
    TABLE |= {
        (called, "answered"): (Lifecycle("p", "idle", 3), (ANSWER,)),
        (called, "failed"): (Lifecycle("p", "idle", 3), (ERROR,)),
        (called, "this call abandoned"): (Lifecycle("p", "lost", 3), ("kill", "report loss")),
        (called, "closed"): (
            Lifecycle("p", "lost", 3, is_awaited=True),
            ("kill", "report loss"),
        ),
        (called, "kill"): (Lifecycle("p", "lost", 3, is_awaited=True), ("kill",)),
    }
BUSY = ("loading", "setting up", "called", "called without deadline", "late", "lost at load",
        "lost, awaited")  # fmt: skip


def shown(action: object) -> object:
    """An action as the table has it: an outcome, an error by class and text, or what to do."""
    if not isinstance(action, Resolve):
        return action
    outcome = action.outcome
    is_made = isinstance(outcome, Exception) and outcome is not ERROR
    return (type(outcome), str(outcome)) if is_made else outcome


@pytest.mark.parametrize(("state", "event"), list(product(LIVES, EVENTS)))
def test_each_state_and_event_have_one_next_state(state: str, event: str) -> None:
    """As in the table; where this has no row, nothing changes, or a call is refused."""
    life = LIVES[state]
    if state in BUSY and event == "assigned":
        with pytest.raises(ValueError, match=f"that is {life.state} takes no call"):
            advance(life, EVENTS[event])
        return
    after, actions = advance(life, EVENTS[event])
    assert (after, tuple(shown(each) for each in actions)) == TABLE.get((state, event), (life, ()))


def test_each_row_of_the_table_names_a_state_and_an_event() -> None:
    """Control: a misspelt row would never be compared."""
    assert set(TABLE) <= set(product(LIVES, EVENTS))


@dataclass
class Machine:
    """A worker that gets events, and what a pool and its callers would have seen of it."""

    life: Lifecycle = field(default_factory=lambda: Lifecycle("t"))
    lives: list[Lifecycle] = field(default_factory=list)
    done: list[Action] = field(default_factory=list)
    assigned: int = 0
    open_requests: int = 2  # its load and its set-up
    resolved: int = 0
    abandoned: int = 0
    was_kill_requested: bool = False

    def feed(self, event: Event) -> None:
        """Take an event, unless it cannot happen now: the pool, the handle or Linux prevent it."""
        if isinstance(event, ProcessExited):
            if "kill" not in self.done:
                return
            event = ProcessExited(event.code, min(event.started, self.life.number))
        if isinstance(event, CallAssigned):
            if self.life.state not in ("idle", "lost") or self.life.is_awaited:
                return
            self.assigned += 1
            self.open_requests += 1
        is_open = self.life.state in ("called", "late") or self.life.is_awaited
        if isinstance(event, CallAbandoned) and event.number == self.life.number and is_open:
            self.abandoned += event.number > 0
            self.open_requests -= event.number > 0
        self.was_kill_requested |= isinstance(event, KillRequested)
        before = self.life
        self.life, actions = advance(before, event)
        self.lives.append(self.life)
        for action in actions:
            if isinstance(action, Resolve):
                self.resolved += 1
                self.open_requests -= 1
                assert self.open_requests >= 0
            else:
                self.done.append(action)
                assert action != "send call" or before.state == "idle"
                assert action != "report loss" or not self.was_kill_requested


numbers = st.integers(1, 4)
events = st.one_of(
    st.sampled_from([FactsReceived(FACTS), SetUpReported(), SocketRead()]),
    st.builds(CallAssigned, st.one_of(st.none(), st.floats(0, 100))),
    st.sampled_from([AnswerReceived(ANSWER), ErrorReceived(ERROR)]),
    st.builds(TimePassed, st.floats(0, 100)),
    st.builds(CallAbandoned, numbers),
    st.builds(ProcessExited, st.integers(-20, 20), numbers),
    st.sampled_from([SocketClosed(), KillRequested()]),
)
START: tuple[Event, ...] = (FactsReceived(FACTS), SetUpReported())


def played(sequence: list[Event], *, is_ready: bool) -> Machine:
    """Feed all events, to a new worker or to one that is idle."""
    machine = Machine()
    for event in [*START, *sequence] if is_ready else sequence:
        machine.feed(event)
    return machine


@settings(deadline=None, derandomize=True, max_examples=400)
@given(st.lists(events, max_size=30), st.booleans())
def test_a_call_is_resolved_once_or_abandoned(sequence: list[Event], is_ready: bool) -> None:
    """Each call that was assigned, whatever happens; when all is over, none is left waiting."""
    machine = played(sequence, is_ready=is_ready)
    assert machine.resolved + machine.abandoned <= machine.assigned + 2
    machine.feed(KillRequested())
    machine.feed(ProcessExited(0, machine.life.number))
    starts = machine.resolved + machine.abandoned - machine.assigned
    was_loaded = any(each.state == "setting up" for each in machine.lives)
    was_set_up = any(each.state == "idle" for each in machine.lives)
    # A load that fails is the last request: a handle does not wait for the set-up then.
    assert starts == (2 if was_loaded or was_set_up else 1)


@settings(deadline=None, derandomize=True, max_examples=400)
@given(st.lists(events, max_size=30), st.booleans())
def test_a_worker_is_killed_once_and_reported_at_most_once(
    sequence: list[Event], is_ready: bool
) -> None:
    """It is killed in the step in which it is lost; it stays lost, and gets no call after."""
    machine = played(sequence, is_ready=is_ready)
    is_lost = machine.life.state == "lost"
    assert machine.done.count("kill") == is_lost
    assert machine.done.count("report loss") <= is_lost
    states = [each.state for each in machine.lives]
    assert all(later == "lost" for now, later in pairwise(states) if now == "lost")
    if "kill" in machine.done:
        assert "send call" not in machine.done[machine.done.index("kill") :]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(events, max_size=30), st.booleans())
def test_a_lost_worker_that_was_ready_is_reported_or_was_killed_by_request(
    sequence: list[Event], is_ready: bool
) -> None:
    """Else the pool would be one worker short for ever."""
    machine = played(sequence, is_ready=is_ready)
    was_idle = any(each.state == "idle" for each in machine.lives)
    if was_idle and machine.life.state == "lost":
        assert ("report loss" in machine.done) or machine.was_kill_requested


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(events, max_size=30), st.booleans())
def test_only_a_call_has_a_deadline(sequence: list[Event], is_ready: bool) -> None:
    """And numbers of calls only grow."""
    lives = played(sequence, is_ready=is_ready).lives
    assert all(each.deadline is None for each in lives if each.state not in ("called", "late"))
    assert [each.number for each in lives] == sorted(each.number for each in lives)
