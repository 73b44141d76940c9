"""What performs a process: a decorated function and a PESTO project both do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, TileInfo


class Given(dict[str, object]):
    """Inputs that are given away: who runs them may keep their arrays, and write into them."""


@runtime_checkable
class Processor(Protocol):
    """Performs one process; safe to call from several threads."""

    @property
    def description(self) -> Description:
        """The process's contract."""

    @property
    def build(self) -> str:
        """`sha256:…` of its sources and profiles."""

    @property
    def version_document(self) -> Mapping[str, JsonValue]:
        """What `/version` tells."""

    def setup(self) -> None:
        """Get ready, once; the first call of several does the work.

        Raises:
            AlgorithmFailed: the author's set-up raised.
        """

    def run(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Answer the outputs: arrays (band, row, col), lists of them, or JSON values.

        Args:
            inputs: Arrays (band, row, col) with bands already picked, lists of them, JSON values.
            tile: Where the arrays lie in the scene; None for the whole of it.

        Raises:
            InvalidInput: with every input that does not fit.
            AlgorithmFailed: the author's code raised.
            ContractBroken: an output is not what was declared.
            NothingValid: a reduce found nothing to reduce.
        """

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Answer a reduce's partial; raises as `run` does, and InvalidInput if it is no reduce."""

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Answer the outputs of a merged partial; raises as `run` does."""
