"""Define the protocols of engines and renderers, and find both by name among entry points.

An engine runs a pipeline; a renderer writes a pipeline as a file of an orchestrator. This file
contains neither.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal, Protocol, cast

from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Pipeline, ProductForm, ReportForm
    from pesto_runtime.contract.prices import SpendingLimits
    from pesto_runtime.places import AnyPath

GROUP = "pesto.engines"
RENDERERS = "pesto.renderers"


@dataclass(frozen=True)
class RunRequest:
    """The request for a run, the same for every engine.

    Attributes:
        pipeline: The pipeline to run.
        base: Directory that its relative targets are relative to.
        inputs: Input name -> text (path or href of an image, JSON for all other kinds), or a
            value that is not a text.
        folder: Folder for the outputs, `result.json` and `report.html`, also a prefix of a bucket.
        services: `NAME=TARGET_OR_URL` or URLs, as on the command line.
        catalog: `{name: target}` as JSON, or a folder of saved descriptions; also in a bucket.
        workers: Number of chunks that run at the same time.
        executor: Workers of an engine on this machine: `threads` or `processes`.
        tile: Side of a tile, pixels; None to size it by memory.
        max_tasks: Largest number of chunks of a phase.
        store: Base href of the run store; None for the one in the output folder.
        keep: Whether the run store stays after a complete run.
        fresh: Whether the objects of earlier runs are deleted first.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
        overviews: Whether image outputs have overviews; cloud-optimised ones always have.
        replace: Whether the finished result of another pipeline or scene is overwritten.
        take_over: Whether the folder is taken from a run that still owns it.
        patience_s: Seconds to wait for a service that restarts or does not respond.
        verify_tiles: Number of random tiles that are computed again with a doubled margin.
        report: What `report.html` has of the products: `links`, or `embed` for their bytes; `none`
            for no report.
        compress: Codec and level of image outputs, as `Compression.parse` reads them.
        cache: Href of a cache of blocks, which runs share; None for none.
        limits: Time and money that the run may take; None for any.
    """

    pipeline: Pipeline
    base: Path
    inputs: Mapping[str, JsonValue]
    folder: AnyPath
    services: tuple[str, ...] = ()
    catalog: AnyPath | None = None
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    executor: Literal["threads", "processes"] = "threads"
    tile: int | None = None
    max_tasks: int = 64
    store: str | None = None
    keep: bool = False
    fresh: bool = False
    as_cog: bool = False
    overviews: bool = False
    replace: bool = False
    take_over: bool = False
    patience_s: float = 60.0
    verify_tiles: int = 0
    report: ReportForm = "links"
    compress: str = "deflate"
    cache: str | None = None
    limits: SpendingLimits | None = None

    @property
    def form(self) -> ProductForm:
        """Form of image outputs."""
        from pesto_runtime.contract import ProductForm  # loads pydantic

        return ProductForm.of(as_cog=self.as_cog, overviews=self.overviews)


@dataclass(frozen=True)
class WorkflowSettings:
    """Settings of a rendered workflow definition, for orchestrators that have them: Conductor.

    Attributes:
        owner: Email address of its owner; None for a placeholder.
        version: Version of the definition.
        failure_workflow: Workflow that starts when it has failed; empty for none, None for ours.
        timeout_s: Time after which the workflow is ended; 0 for no limit.
        is_campaign: Whether it runs the pipeline over a list of scenes.
    """

    owner: str | None = None
    version: int = 1
    failure_workflow: str | None = None
    timeout_s: int = 0
    is_campaign: bool = False


@dataclass(frozen=True)
class RenderRequest:
    """The request to write a pipeline as a file of an orchestrator.

    Attributes:
        pipeline: The pipeline to render.
        path: Its file, as on the command line; also in a bucket.
        services: `NAME=TARGET_OR_URL` or URLs, as on the command line.
        catalog: `{name: target}` as JSON, or a folder of saved descriptions; also in a bucket.
        max_tasks: Largest number of tasks of a fan-out.
        tile: Side of a tile, pixels; None to size it by memory.
        out: File that will contain the text; paths in the text are relative to it if possible.
        workflow: Settings of a workflow definition.
    """

    pipeline: Pipeline
    path: AnyPath
    services: tuple[str, ...] = ()
    catalog: AnyPath | None = None
    max_tasks: int = 64
    tile: int | None = None
    out: Path | None = None
    workflow: WorkflowSettings = field(default_factory=WorkflowSettings)


def refuse_driver_options(request: RunRequest, engine: str) -> None:
    """Require that a request has nothing that only engines driven by the command can do.

    Raises:
        InvalidInput: it has tiles to verify, a deadline or a budget.
    """
    if request.limits is not None:
        raise InvalidInput(
            f"--deadline and --budget are not for the engine {engine!r}, whose tasks no command "
            "stops: limit them there (execution_timeout on Airflow, timeoutSeconds on Conductor), "
            "or run with the engine local, dask or spark"
        )
    if request.verify_tiles:
        raise InvalidInput(
            f"--verify is not for the engine {engine!r}: verify a run of the local engine, or "
            "measure each process by `pesto probe`"
        )


def refuse_workflow_settings(request: RenderRequest, engine: str) -> None:
    """Require that a request has no settings of workflow definitions, for another engine.

    Raises:
        InvalidInput: it has.
    """
    if request.workflow != WorkflowSettings():
        raise InvalidInput(
            "--owner, --version, --failure-workflow, --timeout and --campaign are for workflow "
            f"definitions of Conductor, not for the engine {engine!r}"
        )


class Renderer(Protocol):
    """Writes pipelines as files of an orchestrator."""

    def render(self, request: RenderRequest) -> str:
        """Return the text of the file: a DAG in Python, or a workflow as JSON.

        Raises:
            PestoError: the pipeline has errors, or a service does not return its description.
        """


class ProgressListener(Protocol):
    """Receives the progress of a run from an engine."""

    def begin(self, tiles: int) -> None:
        """Receive the number of all tiles, before the first one runs."""

    def advance(self, tiles: int) -> None:
        """Receive the number of tiles that ended since the previous call."""

    def warn(self, text: str) -> None:
        """Receive a warning for the user."""


class SilentListener:
    """A progress listener that ignores everything."""

    def begin(self, tiles: int) -> None:
        """Ignore the number of tiles."""

    def advance(self, tiles: int) -> None:
        """Ignore the progress."""

    def warn(self, text: str) -> None:
        """Ignore the warning."""


class Engine(Protocol):
    """Runs pipelines."""

    def run(self, request: RunRequest, *, watcher: ProgressListener) -> dict[str, JsonValue]:
        """Run a pipeline, and return the content of `result.json`.

        Raises:
            PestoError: refused, failed or interrupted; no file is half-written.
        """


def load_engine(name: str) -> Engine:
    """Find an engine by its name.

    Raises:
        InvalidInput: it is not installed; lists those that are, or names the extra to install.
    """
    return cast("Engine", _loaded(GROUP, name))


def load_renderer(name: str) -> Renderer:
    """Find the renderer of an engine by the engine's name.

    Raises:
        InvalidInput: it is not installed; lists those that are, or names the extra to install.
    """
    return cast("Renderer", _loaded(RENDERERS, name))


def _loaded(group: str, name: str) -> object:
    found = {entry.name: entry for entry in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise InvalidInput(f"engine {name!r} is not installed; installed: {known}")
    try:
        loaded: object = found[name].load()
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"engine {name!r} needs {error.name}, which is not installed: "
            f"pip install 'pesto-workflows[{name}]'"
        ) from error
    return loaded
