"""End a run: outputs, `report.html` and `result.json` into its folder, Assets told of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from pesto_airflow.operators.run import RunOperator
from pesto_airflow.pipelines import require_absolute_path, stage_values
from pesto_runtime.errors import RunFailed
from pesto_runtime.hrefs import file_href

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from airflow.sdk import Asset, Context, XComArg
    from airflow.sdk.types import Logger
    from pydantic import JsonValue

    from pesto_runtime.contract import Window


class Delivered(Protocol):
    """What a verb tells of the file that it wrote."""

    @property
    def holes(self) -> Sequence[Window]:
        """Windows of blocks that are not there whole."""


M = TypeVar("M", bound=Delivered)


def delivered(path: str, write: Callable[[Path], M], *, what: str, holes: str) -> tuple[Path, M]:
    """Have a product written beside its place and then moved there.

    Args:
        path: File to write, absolute; its folder is made.
        write: Writes it, and tells what came of it.
        what: Raster or vector, as `$stage.port`.
        holes: `fail` where blocks are missing, or `keep` what there is.

    Raises:
        InvalidInput: the path is relative.
        RunFailed: blocks are missing.
        StoreFailed: disk full, or not writable.
    """
    place = require_absolute_path("path", path)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    made = write(part)
    if made.holes and holes == "fail":
        part.unlink()
        raise RunFailed(f"{what} has {len(made.holes)} holes; mend the chunks first")
    part.replace(place)
    return place, made


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
        from pesto_runtime.run.closing import mosaic

        path, made = delivered(
            self.path,
            lambda part: mosaic(str(self.plan), self.raster, part),
            what=self.raster,
            holes=self.holes,
        )
        return {"href": file_href(path), "sha256": made.product.sha256, "holes": len(made.holes)}


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
        from pesto_runtime.run.closing import merge

        path, made = delivered(
            self.path,
            lambda part: merge(str(self.plan), self.vector, part),
            what=self.vector,
            holes=self.holes,
        )
        return {"href": file_href(path), "sha256": made.sha256, "features": made.features}


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
        from pesto_runtime.run.callers import close_callers
        from pesto_runtime.run.closing import reduce

        plan = str(self.plan)
        made = reduce(plan, self.stage)
        close_callers()
        if not made:
            raise RunFailed(
                f"{self.stage!r} cannot be made: partials of blocks are missing; run the chunks "
                "of its phase first, and mend their holes"
            )
        return {**stage_values(plan, self.stage)}


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
        from pesto_runtime.run.publishing import RunRecord
        from pesto_runtime.run.workspace import publish_run

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
