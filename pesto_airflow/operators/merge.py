"""Join the features of a run's tiles, as one GeoJSON file where somebody wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_airflow.delivery import delivered
from pesto_airflow.operators.verb import RunOperator
from pesto_runtime.hrefs import file_href

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow.sdk import Context, XComArg
    from pydantic import JsonValue


class PestoMergeOperator(RunOperator):
    """Writes a vector's features, each once, as one file; answers its href, sha256 and count.

    Args:
        plan: Href of the plan.
        vector: Which, as `$stage.port`.
        path: File to write; one writer each.
        holes: `fail` where blocks are missing, or `keep` what there is.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = ("plan", "vector", "path")

    def __init__(
        self,
        *,
        plan: str | XComArg,
        vector: str,
        path: str | Path,
        holes: str = "fail",
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # Airflow checks them
        self.plan = plan
        self.vector = vector
        self.path = str(path)
        self.holes = holes

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # the plan says it all
        """Write the file; whole, or not at all.

        Raises:
            InvalidInput: the path is relative.
            RunFailed: blocks are missing.
            StoreFailed: disk full, or not writable.
        """
        from pesto_runtime.activities import merge

        path, made = delivered(
            self.path,
            lambda part: merge(str(self.plan), self.vector, part),
            what=self.vector,
            holes=self.holes,
        )
        return {"href": file_href(path), "sha256": made.sha256, "features": made.features}
