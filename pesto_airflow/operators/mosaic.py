"""Put one raster of a run together, as a GeoTIFF where somebody wants it."""

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


class PestoMosaicOperator(RunOperator):
    """Writes a raster's blocks, in order, as one file; answers its href and sha256.

    Args:
        plan: Href of the plan.
        raster: Which, as `$stage.port`.
        path: File to write; one writer each.
        holes: `fail` where blocks are missing, or `keep` them as nodata.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = ("plan", "raster", "path")

    def __init__(
        self,
        *,
        plan: str | XComArg,
        raster: str,
        path: str | Path,
        holes: str = "fail",
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # Airflow checks them
        self.plan = plan
        self.raster = raster
        self.path = str(path)
        self.holes = holes

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # the plan says it all
        """Write the file; whole, or not at all.

        Raises:
            InvalidInput: the path is relative.
            RunFailed: blocks are missing.
            StoreFailed: disk full, or not writable.
        """
        from pesto_runtime.activities import mosaic

        path, made = delivered(
            self.path,
            lambda part: mosaic(str(self.plan), self.raster, part),
            what=self.raster,
            holes=self.holes,
        )
        return {"href": file_href(path), "sha256": made.product.sha256, "holes": len(made.holes)}
