"""State machine of one worker process: a state and an event make the next state and the actions.

It starts no process, reads no socket and has no clock: times come with events, and `WorkerHandle`
performs the actions in their order. An event that no longer applies changes nothing: a worker that
is lost stays lost.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from pesto_runtime.errors import AlgorithmFailed, PestoError

if TYPE_CHECKING:
    from pesto_runtime.service.runner import CallResponse, ProcessFacts

WorkerState: TypeAlias = Literal["loading", "setting up", "idle", "called", "late", "lost"]
Outcome: TypeAlias = (
    "ProcessFacts | CallResponse | PestoError | TimeoutError | CallNotStarted | StartKilled | None"
)


# A named tuple, as each call makes two: 0.3 microseconds; a frozen dataclass takes 0.9.
class Lifecycle(NamedTuple):
    """The state of a worker, and what its next states depend on.

    Attributes:
        name: Of the process that it serves, for errors; the target until that is known.
        state: `late` is a call whose deadline has passed, before the socket is read a last time.
        number: Of the call that was assigned last; 0 before the first.
        deadline: When that call must have ended, in seconds of the event loop; None for never.
        is_awaited: Whether a caller of a lost worker still waits for its exit code.
        exit_code: Of the process, once it has ended.
    """

    name: str
    state: WorkerState = "loading"
    number: int = 0
    deadline: float | None = None
    is_awaited: bool = False
    exit_code: int | None = None


class CallNotStarted(Exception):
    """A worker died before it started the call that it was assigned; another one may run it.

    The pool catches it: no caller of the service ever gets it.
    """


class StartKilled(Exception):
    """A worker was killed before it was ready, by nothing that its author wrote.

    The pool catches it, and starts another worker.
    """


@dataclass(frozen=True, slots=True)
class FactsReceived:
    """The worker has loaded its target."""

    facts: ProcessFacts


@dataclass(frozen=True, slots=True)
class SetUpReported:
    """The worker has finished its set-up."""


@dataclass(frozen=True, slots=True)
class CallAssigned:
    """The pool assigns the next call, which must have ended at its deadline."""

    deadline: float | None


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """The worker has performed its call."""

    outcome: CallResponse


@dataclass(frozen=True, slots=True)
class ErrorReceived:
    """The worker reports that loading, set-up or its call failed."""

    outcome: PestoError


@dataclass(frozen=True, slots=True)
class TimePassed:
    """It is this late, in seconds of the event loop."""

    at: float


@dataclass(frozen=True, slots=True)
class SocketRead:
    """The socket was read a last time: events of what it contained came before this one."""


@dataclass(frozen=True, slots=True)
class CallAbandoned:
    """The caller of this call waits no longer: it was cancelled, or sending the call failed."""

    number: int


@dataclass(frozen=True, slots=True)
class SocketClosed:
    """The worker's end of the socket is closed; nearly always because the worker died."""


@dataclass(frozen=True, slots=True)
class KillRequested:
    """The pool does not need this worker any more."""


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """The process has ended; `started` is the last call that it had started."""

    code: int
    started: int


Event: TypeAlias = (
    FactsReceived | SetUpReported | CallAssigned | AnswerReceived | ErrorReceived | TimePassed
    | SocketRead | CallAbandoned | SocketClosed | KillRequested | ProcessExited
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Resolve:
    """End the oldest request that waits, with its result or its error."""

    outcome: Outcome


_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)

Action: TypeAlias = Resolve | Literal["send call", "read socket", "kill", "report loss"]
"""What the handle has to do.

- `send call`: write the call into the socket.
- `read socket`: read the socket once more, then feed `SocketRead`.
- `kill`: end the process and close the socket, then feed `ProcessExited` when it is over.
- `report loss`: have the pool replace this worker.
"""

# The order counts: a caller gets its outcome before anything else happens, and a worker is killed
# before the pool starts another one, which needs its memory.
Actions: TypeAlias = tuple[Action, ...]
Step: TypeAlias = tuple[Lifecycle, Actions]


def advance(life: Lifecycle, event: Event) -> Step:
    """Return the state after an event, and the actions that it requires.

    Raises:
        ValueError: a call is assigned to a worker that is not idle; the pool never does.
    """
    return _STEPS[life.state](life, event)


def _loading(life: Lifecycle, event: Event) -> Step:
    match event:
        case FactsReceived():
            known = life._replace(state="setting up", name=event.facts.description.name)
            return known, (Resolve(event.facts),)
    return _not_ready(life, event)


def _setting_up(life: Lifecycle, event: Event) -> Step:
    match event:
        case SetUpReported():
            return life._replace(state="idle"), (Resolve(None),)
    return _not_ready(life, event)


def _not_ready(life: Lifecycle, event: Event) -> Step:
    """End a start that fails; the pool gets its error instead of a report of a loss."""
    match event:
        case ErrorReceived():
            return _lost(life), (Resolve(event.outcome), "kill")
        case SocketClosed() | KillRequested():
            return _lost(life, is_awaited=True), ("kill",)
    return _unchanged(life, event)


def _idle(life: Lifecycle, event: Event) -> Step:
    match event:
        case CallAssigned():
            # Written out, as every call takes this step: 0.3 microseconds, 1.1 with `_replace`.
            return Lifecycle(life.name, "called", life.number + 1, event.deadline), ("send call",)
        case SocketClosed():
            return _lost(life), ("kill", "report loss")
        case KillRequested():
            return _lost(life), ("kill",)
    return _unchanged(life, event)


def _called(life: Lifecycle, event: Event) -> Step:
    match event:
        case AnswerReceived() | ErrorReceived():
            return Lifecycle(life.name, "idle", life.number), (Resolve(event.outcome),)
        case CallAbandoned() if event.number == life.number:
            # Its worker cannot be interrupted in any other way: Python code may hold the GIL.
            return _lost(life), ("kill", "report loss")
        case SocketClosed():
            return _lost(life, is_awaited=True), ("kill", "report loss")
        case KillRequested():
            return _lost(life, is_awaited=True), ("kill",)
        case TimePassed() if life.state == "called" and _is_over(life.deadline, event.at):
            return life._replace(state="late"), ("read socket",)
    return _unchanged(life, event)


def _late(life: Lifecycle, event: Event) -> Step:
    match event:
        # The socket had no response: the call is late.
        case SocketRead():
            return _lost(life), (Resolve(TimeoutError()), "kill", "report loss")
    return _called(life, event)


def _lost_already(life: Lifecycle, event: Event) -> Step:
    match event:
        case ProcessExited() if life.exit_code is None:
            ended = life._replace(exit_code=event.code, is_awaited=False)
            if not life.is_awaited:
                return ended, ()
            return ended, (Resolve(_death(ended, event.code, event.started)),)
        case CallAssigned() if not life.is_awaited:
            # It died after the pool chose it. The error has its exit code, which may come later.
            called = life._replace(number=life.number + 1, is_awaited=life.exit_code is None)
            if life.exit_code is None:
                return called, ()
            return called, (Resolve(_death(called, life.exit_code, life.number)),)
        case CallAbandoned() if event.number == life.number:
            return life._replace(is_awaited=False), ()
    return _unchanged(life, event)


_STEPS = {
    "loading": _loading,
    "setting up": _setting_up,
    "idle": _idle,
    "called": _called,
    "late": _late,
    "lost": _lost_already,
}


def _unchanged(life: Lifecycle, event: Event) -> Step:
    if isinstance(event, CallAssigned):
        raise ValueError(f"a worker that is {life.state} takes no call")  # noqa: TRY004  # its state
    return life, ()


def _lost(life: Lifecycle, *, is_awaited: bool = False) -> Lifecycle:
    return life._replace(state="lost", deadline=None, is_awaited=is_awaited)


def _is_over(deadline: float | None, at: float) -> bool:
    return deadline is not None and at >= deadline


def _death(
    life: Lifecycle, code: int, started: int
) -> AlgorithmFailed | CallNotStarted | StartKilled:
    """Return the error of what a dead worker was to do."""
    ended = f"{life.name}: its worker process {exit_description(code)}"
    # A crash or an exit during the set-up is the author's, and would happen again.
    if not life.number and -code in _FROM_OUTSIDE:
        return StartKilled(ended)
    # A call that was started may have written files or sent data: the service never runs it a
    # second time. After a kill from outside its caller may; a crash would happen again.
    if started == life.number:
        error = AlgorithmFailed(ended)
        error.retryable = -code in _FROM_OUTSIDE  # type: ignore[misc]  # of this instance only
        return error
    return CallNotStarted(f"{ended} before it began this call")


def exit_description(code: int) -> str:
    """Describe how a process ended, from its return code.

    >>> exit_description(-11)
    'was ended by SIGSEGV'
    >>> exit_description(3)
    'ended itself with exit status 3'
    """
    if code >= 0:
        return f"ended itself with exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (the system does so when memory runs out)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
