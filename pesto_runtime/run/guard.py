"""Guard the objects that a chunk stores: all of them are of the scenes and the code of the plan.

The checks run at the start and at the end of a chunk. If one fails, the objects that the chunk has
stored are deleted before its error is raised. What is compared is not decided here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.errors import PestoError, ProcessChanged, SceneChanged, StoreFailed
from pesto_runtime.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from pesto_runtime.run.context import RunContext

    Check: TypeAlias = Callable[[], None]


_CHANGED = (SceneChanged, ProcessChanged)


class ChunkGuard:
    """Runs checks around a chunk, and deletes what the chunk has stored if one of them fails.

    As a context manager it returns the run's context, whose store is guarded. A check is a function
    that raises `SceneChanged`, `ProcessChanged`, or another error if it cannot compare.
    """

    def __init__(
        self, context: RunContext, *, checks: Sequence[Check], before_put: Sequence[Check] = ()
    ) -> None:
        """Guard one chunk.

        Args:
            context: The run.
            checks: Called at the start and at the end, also if the chunk fails.
            before_put: Called before each object is stored; they take microseconds.
        """
        self._context = context
        self._checks = checks
        self._store = _GuardedStore(context.store, before_put)

    def __enter__(self) -> RunContext:
        self._require()
        return replace(self._context, store=self._store)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Also after another error: a scene that was replaced makes reading or calling fail, and the
        # objects before it must not stay.
        try:
            if isinstance(error, _CHANGED):
                self._discard(error)
            elif error is None or isinstance(error, Exception):
                self._require()
        except PestoError as changed:
            self._discard(changed)
            raise changed from error

    def _require(self) -> None:
        for check in self._checks:
            check()

    def _discard(self, changed: PestoError) -> None:
        """Delete what the chunk has stored.

        Raises:
            PestoError: the same kind of error, if that is not possible.
        """
        try:
            for name in self._store.written:  # one by one: a name without an object is ignored
                self._context.store.delete([name])
        except StoreFailed as failure:
            raise changed.prefixed(
                f"{len(self._store.written)} objects of this chunk cannot be deleted "
                f"({failure.detail}): delete the run store"
            ) from failure
        self._store.written.clear()


class _GuardedStore(Store):
    """The same store, with checks before each object, and a list of the objects."""

    def __init__(self, store: Store, before_put: Sequence[Check]) -> None:
        vars(self).update(vars(store))  # the same connections
        self._checks = before_put
        self.written: list[str] = []

    def before_put(self, name: str) -> None:
        for check in self._checks:
            check()
        self.written.append(name)
