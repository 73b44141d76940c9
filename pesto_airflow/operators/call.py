"""Perform one stage of a run that has no image: a plain call, its values kept in the run store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_airflow.operators.verb import RunOperator
from pesto_airflow.values import stage_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context, XComArg
    from pydantic import JsonValue


class PestoCallOperator(RunOperator):
    """Performs a stage without images, once; answers its values.

    Args:
        plan: Href of the plan.
        stage: Id of the stage.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = ("plan", "stage")

    def __init__(self, *, plan: str | XComArg, stage: str, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # Airflow checks them
        self.plan = plan
        self.stage = stage

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # the plan says it all
        """Call.

        Raises:
            NotFound: a value that it needs was not made.
            PestoError: the process fails.
        """
        from pesto_runtime.activities import call, close_callers

        plan = str(self.plan)
        call(plan, self.stage)
        close_callers()
        return {**stage_values(plan, self.stage)}
