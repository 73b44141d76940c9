"""Define the operator that plans a run: read its inputs, check its services, divide it into chunks.

It computes no pixels: it reads only the headers of images.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, Unpack, cast

from airflow.sdk import XComArg, literal

from pesto_airflow.operators.run import RunOperator
from pesto_airflow.pipelines import (
    engine_of,
    next_chunks,
    read_pipeline,
    require_absolute_folder,
    require_absolute_images,
    sizing_for_airflow,
)
from pesto_airflow.preflight import preflight
from pesto_runtime.errors import InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow.sdk import Context
    from pydantic import JsonValue

    from pesto_airflow.arguments import RunArguments
    from pesto_runtime.contract import Pipeline, Plan, ReportForm
    from pesto_runtime.pipeline import Sizing
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.services import Services

N = TypeVar("N", int, float)

PLAN = "plan"
_SIZED = ("None", "")
"""Texts of a tile that is sized by memory: a template of a parameter without a value."""
_LOCK_WAIT_S = 60.0
"""Wait for the folder's lock: an earlier try of the task, or its run, may still be publishing."""


class PestoPlanOperator(RunOperator):
    """Plan a run; return the chunk indices of its first phase, to map over.

    The plan itself is an object in the run store; its href is the XCom `plan`, here `href`.

    Args:
        pipeline: Path of the pipeline's file, templated; or the pipeline as JSON, which is used as
            it is.
        inputs: Input name -> path or href of an image, or a value; templated.
        folder: Folder for the run's outputs; the run store is `.pesto` in it by default.
        services: Catalog: a folder of saved descriptions, or `{name: target}` as JSON.
        service: `NAME=TARGET_OR_URL` or URLs, which have priority over the catalog.
        base: Folder to which the pipeline's own targets are relative; its file's by default.
        store: Base href of the run store, if it is not in `folder`.
        tile: Side of a tile, pixels; None to size it by memory; templated, as the next three.
        max_tasks: Maximum of chunks, and so of mapped tasks, per phase; never above 256.
        workers: Chunks that run at once on one machine.
        patience: Seconds to wait for a service that restarts or does not respond.
        take_over: Whether the folder is taken from a run that still owns it.
        replace: Whether the finished result of another pipeline or scene is overwritten.
        report: What `report.html` has of the products: `links` or `embed`; `none` for no report.
        compress: Codec and level of image outputs, as `Compression.parse` reads them.
        cache: Path or href of a cache of blocks, which runs share.
        preflight: `refuse` a run with places that tasks on other machines cannot reach, or `warn`.
        kwargs: Arguments of every operator.
    """

    template_fields: Sequence[str] = (
        "pipeline",
        "inputs",
        "folder",
        "services",
        "service",
        "store",
        "tile",
        "max_tasks",
        "workers",
        "patience",
    )

    def __init__(  # noqa: PLR0913  # the options of `pesto run`
        self,
        *,
        pipeline: str | Path | Mapping[str, JsonValue],
        inputs: Mapping[str, JsonValue],
        folder: str | Path | XComArg,
        services: str | Path | XComArg | None = None,
        service: Sequence[str] = (),
        base: str | Path | None = None,
        store: str | XComArg | None = None,
        tile: int | str | XComArg | None = None,
        max_tasks: int | str | XComArg = 64,
        workers: int | str | XComArg = 4,
        patience: float | str | XComArg = 60.0,
        take_over: bool = False,
        replace: bool = False,
        report: ReportForm = "links",
        compress: str = "deflate",
        cache: str | None = None,
        preflight: Literal["refuse", "warn"] = "refuse",
        **kwargs: Unpack[RunArguments],
    ) -> None:
        super().__init__(**kwargs)
        # A literal, because texts in a pipeline may contain braces: as in a file, they are not
        # templates. A path is one.
        self.pipeline: object = literal(pipeline) if isinstance(pipeline, Mapping) else pipeline
        if isinstance(pipeline, Path):
            self.pipeline = str(pipeline)
        self.inputs = inputs
        self.plan_href = ""
        """Href of the plan, once the task has made it; for the link to the run store."""
        self.folder = folder
        self.services = services
        self.service = service
        self.base = None if base is None else str(base)
        self.store = store
        self.tile = tile
        self.max_tasks = max_tasks
        self.workers = workers
        self.patience = patience
        self.take_over = take_over
        self.replace = replace
        from pesto_runtime.contract import Compression

        self.report = report
        self.preflight = preflight
        self.compress = str(Compression.parse(compress))
        self.cache = cache

    @property
    def href(self) -> XComArg:
        """Href of the plan, for the operators after this one."""
        return XComArg(self, key=PLAN)

    def perform(self, context: Context) -> JsonValue:
        """Plan, store the plan, and return the chunks of the first phase that has chunks.

        Raises:
            InvalidInput: the folder or an image is a relative path, or the preflight refuses.
            StoreRefused: the folder is not usable for a run.
            FolderInUse: another run owns the folder, or has finished in it.
            InvalidPipeline: the pipeline or its inputs are wrong; with every error.
            InvalidContract: a service differs from its saved description in a breaking way.
            PestoError: an input is not readable, or a service is unreachable.
        """
        from pesto_runtime.run.context import begin_run
        from pesto_runtime.run.ownership import claim
        from pesto_runtime.run.result import member_of
        from pesto_runtime.run.workspace import locked_workspace

        folder = require_absolute_folder("folder", str(self.folder))
        with self.resolved(context) as (pipeline, services):
            planned = self._plan(pipeline, services, folder)
        warnings = preflight(planned, kind=self.preflight)
        with locked_workspace(folder, run=planned.run, patience_s=_LOCK_WAIT_S):
            joins = claim(
                folder,
                planned,
                member=member_of(engine_of(context)),
                take_over=self.take_over,
                replace=self.replace,
            )
            href = begin_run(planned, joins=joins)
        for warning in (*warnings, *planned.warnings):
            self.log.warning(warning)
        self.log.info("planned %s", _summary(planned))
        self.plan_href = href
        context["ti"].xcom_push(PLAN, href)
        return [*next_chunks(href, after=-1)]

    @contextmanager
    def resolved(self, context: Context) -> Iterator[tuple[Pipeline, Services]]:
        """Yield the pipeline with the types of its inputs, and its services, with connections.

        Raises:
            InvalidInput: the file of the pipeline, or the catalog, cannot be read.
            InvalidPipeline: it does not match the schema.
            PestoError: a service is unreachable, or differs from its saved description.
        """
        from pesto_runtime.pipeline import completed
        from pesto_runtime.places import place_of
        from pesto_runtime.run.services import known_targets, resolve_services

        resolve = getattr(self.pipeline, "resolve", None)  # until Airflow has rendered it
        document = cast(
            "str | dict[str, JsonValue]", resolve(context) if resolve else self.pipeline
        )
        pipeline, base = read_pipeline(document, self.base)
        catalog = place_of(str(self.services)) if self.services else None
        targets = known_targets(pipeline, base=base, options=self.service, catalog=catalog)
        urls = self.connections.urls(targets)
        called = {**targets, **{name: (url,) for name, url in urls.items()}}
        with self.connections.services(called):
            services = resolve_services(
                pipeline, base=base, options=self.service, catalog=catalog, urls=urls
            )
            yield completed(pipeline, services.descriptions), services

    def sizing(self) -> Sizing:
        """Return the limits of chunks and tasks.

        Raises:
            InvalidInput: a template did not give a number; with its name.
        """
        return sizing_for_airflow(
            workers=_number("workers", self.workers, int),
            tile=None if str(self.tile) in _SIZED else _number("tile", self.tile, int),
            max_tasks=_number("max_tasks", self.max_tasks, int),
        )

    def patience_s(self) -> float:
        """Return the seconds to wait for a service.

        Raises:
            InvalidInput: a template did not give a number.
        """
        return _number("patience", self.patience, float)

    def _plan(self, pipeline: Pipeline, services: Services, folder: AnyPath) -> Plan:
        from pesto_runtime.run.pipeline_inputs import given_images, read_inputs
        from pesto_runtime.run.planning import plan
        from pesto_runtime.run.workspace import run_store

        require_absolute_images(given_images(pipeline, self.inputs))
        planned = plan(
            pipeline,
            services,
            read_inputs(pipeline, services, self.inputs),
            store=run_store(folder, None if self.store is None else str(self.store)),
            sizing=self.sizing(),
            patience_s=self.patience_s(),
            folder=folder,
            report=self.report,
            compress=self.compress,
            cache=self.cache,
        )
        return planned.plan


def _number(name: str, value: object, kind: Callable[[str], N]) -> N:
    """Return a number that may have been a template.

    Raises:
        InvalidInput: it is none; with its name.
    """
    try:
        return kind(str(value))
    except ValueError as error:
        raise InvalidInput(f"{name} must be a number, and is {shortened(str(value))}") from error


def _summary(plan: Plan) -> str:
    from pesto_runtime.run.planning import count_tiles

    return "; ".join(
        f"phase {number} ({', '.join((*phase.stages, *phase.reduces))}): "
        f"{count_tiles(phase)} tiles in {len(phase.chunks)} chunks"
        for number, phase in enumerate(plan.phases)
    )
