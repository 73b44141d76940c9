"""Calls that come at once from several threads, gathered into one request.

It delays no call by more than a moment, and a call that fails takes none of the others with it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from pesto_runtime.errors import PestoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

C = TypeVar("C")
R = TypeVar("R")

_LINGER_S = 0.01
"""How long the first call of a group waits for others: little beside any call worth gathering."""


@dataclass
class _Group(Generic[C, R]):
    calls: list[C] = field(default_factory=list)
    answers: Sequence[R] | None = None
    is_full: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)


class RequestBatcher(Generic[C, R]):
    """Performs calls in groups; safe to call from several threads."""

    def __init__(self, perform: Callable[[Sequence[C]], Sequence[R]], *, most: int) -> None:
        """Take what performs several calls, and how many of them at `most`."""
        self._perform = perform
        self._most = most
        self._lock = threading.Lock()
        self._open: _Group[C, R] | None = None

    def __call__(self, call: C) -> R:
        """Perform a call, alone or with others; raises what performing it alone raises."""
        group, index = self._joined(call)
        if index == 0:
            self._lead(group)
        else:
            group.is_over.wait()
        if group.answers is None:  # some call of the group failed: whose it was, each finds out
            return self._perform([call])[0]
        return group.answers[index]

    def _joined(self, call: C) -> tuple[_Group[C, R], int]:
        with self._lock:
            if self._open is None:
                self._open = _Group()
            group = self._open
            group.calls.append(call)
            if len(group.calls) == self._most:
                self._close(group)
            return group, len(group.calls) - 1

    def _lead(self, group: _Group[C, R]) -> None:
        group.is_full.wait(_LINGER_S)
        with self._lock:
            self._close(group)
        try:
            group.answers = self._perform(group.calls)
        except PestoError:
            if len(group.calls) == 1:
                raise
        finally:
            group.is_over.set()

    def _close(self, group: _Group[C, R]) -> None:
        group.is_full.set()
        if self._open is group:
            self._open = None
