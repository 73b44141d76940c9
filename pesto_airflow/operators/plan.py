"""Plan a run: read its inputs, hold its services to what was saved of them, cut it up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import XComArg

from pesto_airflow.operators.run import RunOperator
from pesto_airflow.pipelines import (
    next_chunks,
    read_pipeline,
    require_absolute_images,
    require_absolute_path,
    sizing_for_airflow,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context
    from pydantic import JsonValue

    from pesto_runtime.contract import Pipeline, Plan

PLAN = "plan"
_PATIENCE_S = 60.0
"""The task may be begun anew while an earlier attempt, or its run, still publishes."""


class PestoPlanOperator(RunOperator):
    """Plans a run, and answers the indices of its first phase's chunks, to map over.

    The plan itself is an object in the run store; its href is the XCom `plan`, as `href` here.

    Args:
        pipeline: Path of the pipeline's file, or the pipeline as JSON.
        inputs: Input name -> path or href of an image, or a value.
        folder: Where the run's outputs will go; what it keeps meanwhile is in `.pesto` there.
        services: Catalog: a folder of saved descriptions, or `{name: target}` as JSON.
        service: `NAME=TARGET_OR_URL` or URLs, which come first.
        base: What the pipeline's own targets are relative to; its file's folder by default.
        store: Base href of the run store, where that is not in `folder`.
        tile: Side of a tile, pixels; None to size it by memory.
        max_tasks: Most chunks, and so mapped tasks, of a phase; never above 256.
        workers: Chunks that run at once on one machine.
        kwargs: Any operator's.
    """

    template_fields: Sequence[str] = (
        "pipeline",
        "inputs",
        "folder",
        "services",
        "service",
        "store",
    )

    def __init__(  # noqa: PLR0913  # as many as `pesto run` has options
        self,
        *,
        pipeline: str | Path | Mapping[str, JsonValue],
        inputs: Mapping[str, JsonValue],
        folder: str | Path,
        services: str | Path | None = None,
        service: Sequence[str] = (),
        base: str | Path | None = None,
        store: str | None = None,
        tile: int | None = None,
        max_tasks: int = 64,
        workers: int = 4,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]  # Airflow checks them
        self.pipeline = str(pipeline) if isinstance(pipeline, Path) else pipeline
        self.inputs = inputs
        self.folder = str(folder)
        self.services = None if services is None else str(services)
        self.service = list(service)
        self.base = None if base is None else str(base)
        self.store = store
        self.tile = tile
        self.max_tasks = max_tasks
        self.workers = workers

    @property
    def href(self) -> XComArg:
        """Href of the plan, for the operators after this one."""
        return XComArg(self, key=PLAN)

    def perform(self, context: Context) -> JsonValue:
        """Plan, keep the plan, and answer the chunks of the first phase that has any.

        Raises:
            InvalidInput: the folder or an image is a relative path.
            StoreRefused: the folder cannot hold a run.
            InvalidPipeline: it does not check, with every error.
            InvalidContract: a service has changed in a way that breaks what was saved.
            PestoError: an input cannot be read, or a service does not answer.
        """
        from pesto_runtime.run.context import begin_run
        from pesto_runtime.run.workspace import locked_workspace

        folder = require_absolute_path("folder", self.folder)
        pipeline, base = read_pipeline(self.pipeline, self.base)
        inputs = self._read(pipeline)
        with locked_workspace(folder, patience_s=_PATIENCE_S):
            planned = self._planned(pipeline, base, inputs, folder)
            href = begin_run(planned)
        for warning in planned.warnings:
            self.log.warning(warning)
        self.log.info("planned %s", _told(planned))
        context["ti"].xcom_push(PLAN, href)
        return [*next_chunks(href, after=-1)]

    def _planned(
        self, pipeline: Pipeline, base: Path, inputs: Mapping[str, str], folder: Path
    ) -> Plan:
        from pesto_runtime.run.planning import plan, read_inputs
        from pesto_runtime.run.services import resolve_services
        from pesto_runtime.run.workspace import run_store

        services = resolve_services(
            pipeline,
            base=base,
            options=self.service,
            catalog=Path(self.services) if self.services else None,
        )
        planned = plan(
            pipeline,
            services,
            read_inputs(pipeline, inputs),
            store=run_store(folder, self.store),
            sizing=sizing_for_airflow(
                workers=self.workers, tile=self.tile, max_tasks=self.max_tasks
            ),
        )
        return planned.plan

    def _read(self, pipeline: Pipeline) -> dict[str, str]:
        """The inputs as a command line would have them."""
        inputs = {name: _text(value) for name, value in self.inputs.items()}
        kinds = pipeline.inputs
        require_absolute_images({n: text for n, text in inputs.items() if kinds.get(n) == "image"})
        return inputs


def _told(plan: Plan) -> str:
    """Tiles and chunks of every phase, on one line."""
    from pesto_runtime.run.planning import count_tiles

    return "; ".join(
        f"phase {number} ({', '.join((*phase.stages, *phase.reduces))}): "
        f"{count_tiles(phase)} tiles in {len(phase.chunks)} chunks"
        for number, phase in enumerate(plan.phases)
    )


def _text(value: JsonValue) -> str:
    """An input as a command line would have it."""
    return value if isinstance(value, str) else json.dumps(value)
