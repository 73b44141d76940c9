"""End a phase: what it owes once its chunks are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_airflow.chunks import next_chunks
from pesto_airflow.operators.verb import RunOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context, XComArg
    from pydantic import JsonValue


class PestoClosePhaseOperator(RunOperator):
    """Folds a phase's reduces, and puts together the rasters that later phases read.

    Answers the indices of the next fan-out's chunks, to map over.

    Args:
        plan: Href of the plan.
        phase: Number of the phase.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = ("plan",)

    def __init__(self, *, plan: str | XComArg, phase: int = 0, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # Airflow checks them
        self.plan = plan
        self.phase = phase

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # the plan says it all
        """Close the phase; what has holes is left out, and told.

        Raises:
            PestoError: a process refuses to finish, or the store cannot be written.
        """
        from pesto_runtime.activities import close_callers, close_phase

        plan = str(self.plan)
        unmade = close_phase(plan, self.phase)
        close_callers()
        if unmade:
            self.log.warning("not made, as what they read has holes: %s", ", ".join(unmade))
        return [*next_chunks(plan, after=self.phase)]
