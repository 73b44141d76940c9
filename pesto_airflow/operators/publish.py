"""End a run: outputs, `report.html` and `result.json` into its folder, Assets told of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pesto_airflow.operators.verb import RunOperator
from pesto_airflow.places import require_absolute_path
from pesto_runtime.hrefs import file_href

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow.sdk import Asset, Context, XComArg
    from airflow.sdk.types import Logger
    from pydantic import JsonValue


class PestoPublishOperator(RunOperator):
    """Publishes a run, and answers its status and the href of each output.

    Args:
        plan: Href of the plan.
        folder: Where the outputs go.
        assets: Output name -> Asset; each is told the output's href and sha256.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
        keep: Whether to keep the run store of a complete run.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = ("plan", "folder")

    def __init__(
        self,
        *,
        plan: str | XComArg,
        folder: str | Path,
        assets: Mapping[str, Asset] | None = None,
        as_cog: bool = False,
        keep: bool = False,
        **kwargs: object,
    ) -> None:
        super().__init__(outlets=[*(assets or {}).values()], **kwargs)  # type: ignore[arg-type]  # Airflow checks them
        self.plan = plan
        self.folder = str(folder)
        self.assets = dict(assets or {})
        self.as_cog = as_cog
        self.keep = keep

    def perform(self, context: Context) -> JsonValue:
        """Publish.

        Raises:
            InvalidInput: the folder is a relative path.
            RunFailed: nothing could be made, or holes have no nodata to stand for them.
            StoreRefused: another run is in the folder.
            StoreFailed: disk full, or not writable.
        """
        from pesto_runtime.activities import RunRecord
        from pesto_runtime.runs import publish_run

        run, folder = context["dag_run"], require_absolute_path("folder", self.folder)
        engine: dict[str, JsonValue] = {"name": "airflow", "run": run.run_id, "dag": run.dag_id}
        record = RunRecord(engine=engine, started=run.start_date or datetime.now(UTC))
        result = publish_run(
            str(self.plan),
            folder,
            record,
            watcher=_Log(self.log),
            as_cog=self.as_cog,
            keep=self.keep,
        )
        outputs = _outputs(result, folder)
        for name, asset in self.assets.items():
            context["outlet_events"][asset].extra = outputs.get(name, {"skipped": True})
        hrefs: dict[str, JsonValue] = {name: told["href"] for name, told in outputs.items()}
        self.log.info("%s", _told(result, folder))
        return {"status": result["status"], "outputs": hrefs}


def _told(result: Mapping[str, JsonValue], folder: Path) -> str:
    """What came of a run, on one line."""
    tiles = result["tiles"]
    counts = tiles.items() if isinstance(tiles, dict) else ()
    told = ", ".join(f"{count} {name}" for name, count in counts)
    return f"{result['status']}: tiles {told}; the outputs are in {folder}"


class _Log:
    """Looks on, and writes what deserves a look into the task's log."""

    def __init__(self, log: Logger) -> None:
        self._log = log

    def begin(self, tiles: int) -> None:
        """Say nothing."""

    def advance(self, tiles: int) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Write it down."""
        self._log.warning(text)


def _outputs(result: Mapping[str, JsonValue], folder: Path) -> dict[str, dict[str, JsonValue]]:
    """Output name -> what others are told of it."""
    outputs = result["outputs"]
    return {
        name: {"href": file_href(folder / str(told["path"])), "sha256": told["sha256"]}
        for name, told in (outputs.items() if isinstance(outputs, dict) else ())
        if isinstance(told, dict)
    }
