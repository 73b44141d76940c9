"""What every engine is asked, and how one is found: by name, in entry points pesto.engines."""

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

    from pesto_runtime.contract import Pipeline

GROUP = "pesto.engines"
RENDERERS = "pesto.renderers"


@dataclass(frozen=True)
class RunRequest:
    """A run, as it is asked of any engine.

    Attributes:
        pipeline: What to run.
        base: Directory that its relative targets are relative to.
        inputs: Input name -> text: path or href of an image, JSON for all else.
        folder: Where the outputs, `result.json` and `report.html` go.
        services: `NAME=TARGET_OR_URL` or URLs, as on the command line.
        catalog: `{name: target}` as JSON, or a folder of saved descriptions.
        workers: Chunks at once.
        executor: Workers of an engine on this machine: `threads` or `processes`.
        tile: Side of a tile, pixels; None to size it by memory.
        max_tasks: Most chunks of a phase.
        store: Base href of the run store; None for the output folder's own.
        keep: Whether to keep the run store of a complete run.
        fresh: Whether to forget what earlier runs left.
        as_cog: Whether image outputs become cloud-optimised GeoTIFFs.
    """

    pipeline: Pipeline
    base: Path
    inputs: Mapping[str, str]
    folder: Path
    services: tuple[str, ...] = ()
    catalog: Path | None = None
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    executor: Literal["threads", "processes"] = "threads"
    tile: int | None = None
    max_tasks: int = 64
    store: str | None = None
    keep: bool = False
    fresh: bool = False
    as_cog: bool = False


@dataclass(frozen=True)
class RenderRequest:
    """A pipeline, to be written down as what an orchestrator reads.

    Attributes:
        pipeline: What to render.
        path: Its file, as it was given.
        services: `NAME=TARGET_OR_URL` or URLs, as on the command line.
        catalog: `{name: target}` as JSON, or a folder of saved descriptions.
        max_tasks: Most tasks of a fan-out.
        tile: Side of a tile, pixels; None to size it by memory.
        out: File that the text is for; what it names is relative to that, where it can be.
    """

    pipeline: Pipeline
    path: Path
    services: tuple[str, ...] = ()
    catalog: Path | None = None
    max_tasks: int = 64
    tile: int | None = None
    out: Path | None = None


class Renderer(Protocol):
    """Writes pipelines down for an orchestrator."""

    def render(self, request: RenderRequest) -> str:
        """Answer a file's text: a DAG in Python, or a workflow as JSON.

        Raises:
            PestoError: the pipeline does not check, or a service does not say what it is.
        """


class ProgressListener(Protocol):
    """Who looks on while a run goes."""

    def begin(self, tiles: int) -> None:
        """Told the number of tiles before the first."""

    def advance(self, tiles: int) -> None:
        """Told of tiles that are done since it was last told."""

    def warn(self, text: str) -> None:
        """Told what deserves a look."""


class SilentListener:
    """Looks on and says nothing."""

    def begin(self, tiles: int) -> None:
        """Say nothing."""

    def advance(self, tiles: int) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""


class Engine(Protocol):
    """Runs pipelines."""

    def run(self, request: RunRequest, *, watcher: ProgressListener) -> dict[str, JsonValue]:
        """Run; answers what `result.json` holds.

        Raises:
            PestoError: refused, failed or interrupted; nothing is half-written.
        """


def load_engine(name: str) -> Engine:
    """Find an engine by name.

    Raises:
        InvalidInput: none of this name is installed; names those that are, or the extra to install.
    """
    return cast("Engine", _loaded(GROUP, name))


def load_renderer(name: str) -> Renderer:
    """Find what writes pipelines down for an engine, by its name.

    Raises:
        InvalidInput: none of this name is installed; names those that are, or the extra to install.
    """
    return cast("Renderer", _loaded(RENDERERS, name))


def _loaded(group: str, name: str) -> object:
    found = {entry.name: entry for entry in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise InvalidInput(f"engine {name!r} is not installed; there are: {known}")
    try:
        loaded: object = found[name].load()
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"engine {name!r} needs {error.name}, which is not installed: "
            f"pip install 'pesto-workflows[{name}]'"
        ) from error
    return loaded
