"""Define the operators that write the results of a run: one raster, vector or reduce, or all.

They compute no tiles: chunks that have not run are errors or holes.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar, Unpack

from pesto_airflow.lineage import Lineage, lineage_of
from pesto_airflow.operators.run import RunOperator
from pesto_airflow.pipelines import (
    MOST_BYTES,
    engine_of,
    require_absolute_folder,
    require_absolute_path,
    stage_values,
)
from pesto_airflow.run_notes import write_note
from pesto_runtime.errors import RunFailed
from pesto_runtime.hrefs import file_href
from pesto_runtime.places import href_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from airflow.sdk import Asset, Context, XComArg
    from pydantic import JsonValue

    from pesto_airflow.arguments import RunArguments
    from pesto_runtime.contract import Window
    from pesto_runtime.places import AnyPath


class PestoMosaicOperator(RunOperator):
    """Write a raster's blocks, in order, as one GeoTIFF; return its href and sha256.

    Args:
        plan: Href of the plan.
        raster: The raster, as `$stage.port`.
        path: File to write; only one task may write it.
        holes: `fail` if blocks are missing, or `keep` them as nodata.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = ("plan", "raster", "path")

    def __init__(
        self,
        *,
        plan: str | XComArg,
        raster: str,
        path: str | Path | XComArg,
        holes: str = "fail",
        **kwargs: Unpack[RunArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.raster = raster
        self.path = path
        self.holes = holes

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # Airflow's signature
        """Write the file; whole, or not at all.

        Raises:
            InvalidInput: the path is relative.
            RunFailed: blocks are missing.
            StoreFailed: disk full, or not writable.
        """
        from pesto_runtime.run.closing import mosaic

        path, written = _write_whole(
            self.path,
            lambda part: mosaic(str(self.plan), self.raster, part),
            value=self.raster,
            holes=self.holes,
        )
        digest, holes = written.product.sha256, len(written.holes)
        return {"href": file_href(path), "sha256": digest, "holes": holes}


class PestoMergeOperator(RunOperator):
    """Write a vector's features, each once, as one GeoJSON file; return href, sha256 and count.

    Args:
        plan: Href of the plan.
        vector: The vector, as `$stage.port`.
        path: File to write; only one task may write it.
        holes: `fail` if blocks are missing, or `keep` the features of the others.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = ("plan", "vector", "path")

    def __init__(
        self,
        *,
        plan: str | XComArg,
        vector: str,
        path: str | Path | XComArg,
        holes: str = "fail",
        **kwargs: Unpack[RunArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.vector = vector
        self.path = path
        self.holes = holes

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # Airflow's signature
        """Write the file; whole, or not at all.

        Raises:
            InvalidInput: the path is relative.
            RunFailed: blocks are missing.
            StoreFailed: disk full, or not writable.
        """
        from pesto_runtime.run.closing import merge

        path, written = _write_whole(
            self.path,
            lambda part: merge(str(self.plan), self.vector, part),
            value=self.vector,
            holes=self.holes,
        )
        return {"href": file_href(path), "sha256": written.sha256, "features": written.features}


class PestoReduceOperator(RunOperator):
    """Fold a reduce over the whole scene; return its values.

    Args:
        plan: Href of the plan.
        stage: Id of the reduce's stage.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = ("plan", "stage")

    def __init__(self, *, plan: str | XComArg, stage: str, **kwargs: Unpack[RunArguments]) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.stage = stage

    def perform(self, context: Context) -> JsonValue:  # noqa: ARG002  # Airflow's signature
        """Fold the partials and return the values.

        Raises:
            RunFailed: partials are missing: a chunk has not run, or has holes.
            PestoError: the process rejects its last step.
        """
        from pesto_runtime.run.closing import reduce

        plan = str(self.plan)
        is_folded = reduce(plan, self.stage)
        if not is_folded:
            raise RunFailed(
                f"{self.stage!r} cannot be folded: partials of blocks are missing; run the chunks "
                "of its phase first, and correct their holes"
            )
        return {**stage_values(plan, self.stage)}


class PestoPublishOperator(RunOperator):
    """Write outputs, `report.html` and `result.json`; return what was made.

    The result is `{"status", "run", "outputs", "skipped", "tiles"}`. An output is its value if it
    is JSON, else `{"href", "sha256"}`; each is an XCom of its name, too: the value, or the href.
    Values beyond 4 KB in total are given by href.

    Args:
        plan: Href of the plan.
        folder: Folder for the outputs.
        assets: Output name -> Asset; its event carries the output's href and sha256, and the status
            of the run. An output that was not made has no event.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
        overviews: Whether image outputs have overviews; cloud-optimised ones always have.
        keep: Whether the run store of a complete run is preserved.
        fail_on_partial: Whether the task fails after it has published a PARTIAL run.
        note_conn_id: Connection of Airflow's API server, by which a PARTIAL run gets a note.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = ("plan", "folder")

    def __init__(
        self,
        *,
        plan: str | XComArg,
        folder: str | Path | XComArg,
        assets: Mapping[str, Asset] | None = None,
        as_cog: bool = False,
        overviews: bool = False,
        keep: bool = False,
        fail_on_partial: bool = False,
        note_conn_id: str | None = None,
        **kwargs: Unpack[RunArguments],
    ) -> None:
        kwargs["outlets"] = [*(kwargs.get("outlets") or ()), *(assets or {}).values()]
        super().__init__(**kwargs)
        self.plan = plan
        self.folder = folder
        self.assets = dict(assets or {})
        self.as_cog = as_cog
        self.overviews = overviews
        self.keep = keep
        self.fail_on_partial = fail_on_partial
        self.note_conn_id = note_conn_id
        self._lineage: tuple[Mapping[str, JsonValue], Mapping[str, JsonValue]] = ({}, {})

    def get_openlineage_facets_on_complete(self, task_instance: object) -> Lineage:  # noqa: ARG002  # OpenLineage's signature
        """Return scenes with their identities, and files with their sha256."""
        return lineage_of([self._lineage])

    def perform(self, context: Context) -> JsonValue:
        """Publish the run, and emit an Asset event for each output.

        Raises:
            InvalidInput: the folder is a relative path.
            RunFailed: there is no output, a raster with holes has no nodata value, or the run is
                PARTIAL and `fail_on_partial` is set.
            FolderInUse: another run uses the folder.
            StoreFailed: disk full, or not writable.
        """
        from pesto_runtime.contract import ProductForm
        from pesto_runtime.run.publishing import publish_run
        from pesto_runtime.run.result import RunRecord

        run, folder = context["dag_run"], require_absolute_folder("folder", str(self.folder))
        record = RunRecord(engine=engine_of(context), started=run.start_date or datetime.now(UTC))
        form = ProductForm.of(as_cog=self.as_cog, overviews=self.overviews)
        result = publish_run(str(self.plan), folder, record, form=form, keep=self.keep)
        files = _files(result, folder)
        inputs = result["inputs"]
        self._lineage = (inputs if isinstance(inputs, dict) else {}, {**files})
        self.log.info("%s", _summary(result, folder))
        if self.note_conn_id and result["status"] == "PARTIAL":
            write_note(self.note_conn_id, context, f"{self.task_id}: {_summary(result, folder)}")
        if self.fail_on_partial and result["status"] == "PARTIAL":
            raise RunFailed(
                f"{_summary(result, folder)}, and fail_on_partial is set; correct the cause, and "
                "clear the failed tasks and this one"
            )
        made = {name: asset for name, asset in self.assets.items() if name in files}
        self.outlets = [*made.values()]  # Airflow emits an event for each
        for name, asset in made.items():
            context["outlet_events"][asset].extra = {**files[name], "status": result["status"]}
        outputs: dict[str, JsonValue] = {**files, **_small_values(result)}
        for name, output in outputs.items():
            context["ti"].xcom_push(name, files[name]["href"] if output is files[name] else output)
        told = {name: result[name] for name in ("status", "run", "skipped", "tiles")}
        return {**told, "outputs": outputs}


def _files(result: Mapping[str, JsonValue], folder: AnyPath) -> dict[str, dict[str, JsonValue]]:
    """Output name -> href and sha256 of its file."""
    return {
        name: {"href": href_of(folder / str(output["path"])), "sha256": output["sha256"]}
        for name, output in _outputs(result).items()
    }


def _small_values(result: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Output name -> its value, for JSON outputs of a few KB in total."""
    values: dict[str, JsonValue] = {}
    for name, output in _outputs(result).items():
        if "value" in output and len(json.dumps({**values, name: output["value"]})) <= MOST_BYTES:
            values[name] = output["value"]
    return values


def _outputs(result: Mapping[str, JsonValue]) -> dict[str, dict[str, JsonValue]]:
    outputs = result["outputs"]
    items = outputs.items() if isinstance(outputs, dict) else ()
    return {name: output for name, output in items if isinstance(output, dict)}


def _summary(result: Mapping[str, JsonValue], folder: AnyPath) -> str:
    tiles = result["tiles"]
    counts = tiles.items() if isinstance(tiles, dict) else ()
    text = ", ".join(f"{count} {name}" for name, count in counts)
    return f"{result['status']}: tiles {text}; the outputs are in {folder}"


class _Written(Protocol):
    """The facts of a file that `mosaic` or `merge` wrote."""

    @property
    def holes(self) -> Sequence[Window]:
        """Windows of incomplete blocks."""


W = TypeVar("W", bound=_Written)


def _write_whole(
    path: str | Path | XComArg, write: Callable[[Path], W], *, value: str, holes: str
) -> tuple[Path, W]:
    """Write a product beside its place, then rename it: no reader sees an unfinished file.

    Args:
        path: File to write, absolute; its folder is created.
        write: Writes the file and returns its facts.
        value: Raster or vector, as `$stage.port`.
        holes: `fail` if blocks are missing, or `keep` the other blocks.

    Raises:
        InvalidInput: the path is relative.
        RunFailed: blocks are missing.
        StoreFailed: disk full, or not writable.
    """
    place = require_absolute_path("path", str(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    written = write(part)
    if written.holes and holes == "fail":
        part.unlink()
        raise RunFailed(f"{value} has {len(written.holes)} holes; correct the chunks first")
    part.replace(place)
    return place, written
