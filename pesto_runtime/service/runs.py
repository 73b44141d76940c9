"""What performs the calls of a service, in threads of this process or in workers of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.service.request import Payload
    from pesto_runtime.service.spool import Spool


State: TypeAlias = Literal["STARTING", "OK", "FAILED"]
OnProgress: TypeAlias = "Callable[[float, float], None]"
OnLog: TypeAlias = "Callable[[str], None]"


@dataclass(frozen=True)
class ProcessFacts:
    """What a service knows of the process it serves, without its code.

    Attributes:
        description: The contract.
        build: `sha256:…` of the sources.
        version_document: What `/version` tells.
    """

    description: Description
    build: str
    version_document: Mapping[str, JsonValue]


class CallRunner(Protocol):
    """Performs calls; all of it is called on the event loop, and none of it blocks it."""

    @property
    def facts(self) -> ProcessFacts:
        """What is served; known once `load` has returned."""

    @property
    def state(self) -> State:
        """Whether calls can run yet."""

    @property
    def setup_log(self) -> tuple[str, ...]:
        """What happened since the start, line by line."""

    def require(self) -> None:
        """Do nothing when ready.

        Raises:
            Busy: the set-up still runs; asking again helps.
            AlgorithmFailed: the set-up failed.
        """

    async def load(self) -> ProcessFacts:
        """Load the target, and learn what it is.

        Raises:
            PestoError: it cannot be loaded.
        """

    def start(self, on_ready: Callable[[], None]) -> None:
        """Begin the set-up; `on_ready` is called once it is done."""

    async def run(
        self, payload: Payload, *, from_here: bool, on_progress: OnProgress, on_log: OnLog
    ) -> CallResponse:
        """Perform a call as soon as there is room; cancelling it stops its work.

        Args:
            payload: The request.
            from_here: Whether the caller is on this machine, and may name its files.
            on_progress: Called with `done` and `total` as the algorithm tells them.
            on_log: Called with every line it tells.

        Raises:
            PestoError: the request, the algorithm or the answer is at fault.
        """

    async def close(self) -> None:
        """Stop; calls that still run are lost."""


def no_progress(_done: float, _total: float) -> None:
    """Ignore how far an algorithm is."""


def no_log(_line: str) -> None:
    """Ignore what an algorithm tells."""


@dataclass(frozen=True)
class CallResponse:
    """The bytes of an answer.

    Attributes:
        content: All of them, unless they are in a spool.
        media_type: Of them.
        spool: Where large ones are; None for others.
    """

    content: bytes
    media_type: str
    spool: Spool | None = None

    def whole(self) -> bytes:
        """All bytes, wherever they are."""
        return self.content if self.spool is None else self.spool.whole()
