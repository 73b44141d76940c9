"""Fold one reduce of a run: partials of blocks become numbers of the scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_airflow.operators.verb import RunOperator
from pesto_airflow.values import stage_values
from pesto_runtime.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context, XComArg
    from pydantic import JsonValue


class PestoReduceOperator(RunOperator):
    """Folds a reduce over the whole scene, and answers its values.

    Args:
        plan: Href of the plan.
        stage: Id of the reduce's stage.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = ("plan", "stage")

    def __init__(self, *, plan: str | XComArg, stage: str, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # Airflow checks them
        self.plan = plan
        self.stage = stage

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # the plan says it all
        """Fold.

        Raises:
            RunFailed: partials are missing: a chunk has not run, or has holes.
            PestoError: the process refuses to finish.
        """
        from pesto_runtime.activities import close_callers, reduce

        plan = str(self.plan)
        made = reduce(plan, self.stage)
        close_callers()
        if not made:
            raise RunFailed(
                f"{self.stage!r} cannot be made: partials of blocks are missing; run the chunks "
                "of its phase first, and mend their holes"
            )
        return {**stage_values(plan, self.stage)}
