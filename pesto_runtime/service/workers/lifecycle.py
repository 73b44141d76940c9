"""State machine of one worker process: a state and an event make the next state and the actions.

It starts no process, reads no socket and has no clock: times come with events, and `WorkerHandle`
performs the actions in their order. An event that no longer applies changes nothing: a worker that
is lost stays lost.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, TypeAlias

from pesto_runtime.errors import AlgorithmFailed, PestoError

if TYPE_CHECKING:
    from pesto_runtime.service.runner import CallResponse, ProcessFacts

WorkerState: TypeAlias = Literal["loading", "setting up", "idle", "called", "late", "lost"]
Outcome: TypeAlias = (
    "ProcessFacts | CallResponse | PestoError | TimeoutError | CallNotStarted | None"
)


@dataclass(frozen=True, slots=True)
class Lifecycle:
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

    answer: CallResponse


@dataclass(frozen=True, slots=True)
class ErrorReceived:
    """The worker reports that loading, set-up or its call failed."""

    error: PestoError


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


class Do(Enum):
    """An action without data.

    Attributes:
        SEND_CALL: Write the call into the socket.
        READ_SOCKET: Read the socket once more, then report `SocketRead`.
        KILL: End the process and close the socket, then report `ProcessExited` when it is over.
        REPORT_LOSS: Have the pool replace this worker.
    """

    SEND_CALL = auto()
    READ_SOCKET = auto()
    KILL = auto()
    REPORT_LOSS = auto()


# The order counts: a caller gets its outcome before anything else happens, and a worker is killed
# before the pool starts another one, which needs its memory.
Actions: TypeAlias = tuple[Resolve | Do, ...]
Step: TypeAlias = tuple[Lifecycle, Actions]


def advance(life: Lifecycle, event: Event) -> Step:
    """Return the state after an event, and the actions that it requires.

    Raises:
        ValueError: a call is assigned to a worker that is not idle; the pool never does.
    """
    return _STEPS[life.state](life, event)


def _loading(life: Lifecycle, event: Event) -> Step:
    match event:
        case FactsReceived(facts):
            known = replace(life, state="setting up", name=facts.description.name)
            return known, (Resolve(facts),)
    return _not_ready(life, event)


def _setting_up(life: Lifecycle, event: Event) -> Step:
    match event:
        case SetUpReported():
            return replace(life, state="idle"), (Resolve(None),)
    return _not_ready(life, event)


def _not_ready(life: Lifecycle, event: Event) -> Step:
    """End a start that fails; the pool gets its error instead of a report of a loss."""
    match event:
        case ErrorReceived(error):
            return _lost(life), (Resolve(error), Do.KILL)
        case SocketClosed() | KillRequested():
            return _lost(life, is_awaited=True), (Do.KILL,)
    return _unchanged(life, event)


def _idle(life: Lifecycle, event: Event) -> Step:
    match event:
        case CallAssigned(deadline):
            # Written out, as every call takes this step: 0.9 microseconds, and 2.3 with `replace`.
            return Lifecycle(life.name, "called", life.number + 1, deadline), (Do.SEND_CALL,)
        case SocketClosed():
            return _lost(life), (Do.KILL, Do.REPORT_LOSS)
        case KillRequested():
            return _lost(life), (Do.KILL,)
    return _unchanged(life, event)


def _called(life: Lifecycle, event: Event) -> Step:
    match event:
        case AnswerReceived(outcome) | ErrorReceived(outcome):
            return Lifecycle(life.name, "idle", life.number), (Resolve(outcome),)
        case CallAbandoned(number) if number == life.number:
            # Its worker cannot be interrupted in any other way: Python code may hold the GIL.
            return _lost(life), (Do.KILL, Do.REPORT_LOSS)
        case SocketClosed():
            return _lost(life, is_awaited=True), (Do.KILL, Do.REPORT_LOSS)
        case KillRequested():
            return _lost(life, is_awaited=True), (Do.KILL,)
        case TimePassed(at) if life.state == "called" and _is_over(life.deadline, at):
            return replace(life, state="late"), (Do.READ_SOCKET,)
    return _unchanged(life, event)


def _late(life: Lifecycle, event: Event) -> Step:
    match event:
        # The socket had no response: the call is late.
        case SocketRead():
            return _lost(life), (Resolve(TimeoutError()), Do.KILL, Do.REPORT_LOSS)
    return _called(life, event)


def _lost_already(life: Lifecycle, event: Event) -> Step:
    match event:
        case ProcessExited(code, started) if life.exit_code is None:
            ended = replace(life, exit_code=code, is_awaited=False)
            return ended, (Resolve(_death(ended, code, started)),) if life.is_awaited else ()
        case CallAssigned() if not life.is_awaited:
            # It died after the pool chose it. The error has its exit code, which may come later.
            called = replace(life, number=life.number + 1, is_awaited=life.exit_code is None)
            if life.exit_code is None:
                return called, ()
            return called, (Resolve(_death(called, life.exit_code, life.number)),)
        case CallAbandoned(number) if number == life.number:
            return replace(life, is_awaited=False), ()
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
    return replace(life, state="lost", deadline=None, is_awaited=is_awaited)


def _is_over(deadline: float | None, at: float) -> bool:
    return deadline is not None and at >= deadline


def _death(life: Lifecycle, code: int, started: int) -> AlgorithmFailed | CallNotStarted:
    """Return the error of what a dead worker was to do."""
    ended = f"{life.name}: its worker process {exit_description(code)}"
    # A call that was started may have written files or sent data: it never runs a second time.
    if started == life.number:
        return AlgorithmFailed(ended)
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
