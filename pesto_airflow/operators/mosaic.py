"""Put one raster of a run together, as a GeoTIFF where somebody wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_airflow.operators.verb import VerbOperator
from pesto_airflow.places import require_absolute_path
from pesto_runtime.errors import RunFailed
from pesto_runtime.hrefs import file_href

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow.sdk import Context, XComArg
    from pydantic import JsonValue


class PestoMosaicOperator(VerbOperator):
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

        path = require_absolute_path("path", self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        made = mosaic(str(self.plan), self.raster, part)
        if made.holes and self.holes == "fail":
            part.unlink()
            raise RunFailed(f"{self.raster} has {len(made.holes)} holes; mend the chunks first")
        part.replace(path)
        return {"href": file_href(path), "sha256": made.product.sha256, "holes": len(made.holes)}
