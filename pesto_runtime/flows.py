"""Write a pipeline in Python as a chain of processes over one scene.

A flow is lazy: it reads files and contacts services only when it is checked or run. Pipelines with
several scenes are JSON files.

```python
flow("scene.tif").then("cloud_mask.py:cloud_mask").then("sieve.py:sieve").write("mask.tif").run()
```
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import ImageReference, Pipeline, Reference
from pesto_runtime.contract.pipeline import LIVE
from pesto_runtime.engines import RunRequest, load_engine
from pesto_runtime.errors import InvalidInput, InvalidPipeline, shortened
from pesto_runtime.finished_run import Run
from pesto_runtime.hrefs import image_reference
from pesto_runtime.places import output_place
from pesto_runtime.processor import target_of
from pesto_runtime.progress_display import shown_progress
from pesto_runtime.run.planning import check_pipeline
from pesto_runtime.run.services import BUILT_IN, find, resolve_services

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.engines import ProgressListener
    from pesto_runtime.pipeline import Checked
    from pesto_runtime.places import AnyPath


_SCENE = Reference(owner="inputs", port="scene")


def flow(
    scene: object,
    *,
    services: Mapping[str, str | tuple[str, ...]] | None = None,
    name: str = "flow",
) -> Flow:
    """Start a flow at a scene.

    Args:
        scene: Path or href of a raster; with bands and a window as `HREF#bands=…`, as
            `{"href", "bands", "window"}`, or as an `ImageReference`; an open rasterio dataset; or a
            whole DataArray that `rioxarray.open_rasterio` has read from a file.
        services: Process name -> target, URL, or URLs of replicas.
        name: Name of the pipeline.

    Raises:
        TypeError: the scene is something else, or is not the content of a file.
    """
    if isinstance(scene, (ImageReference, dict)):
        return Flow(str(image_reference(scene)), dict(services or {}), name)
    return Flow(_place_of(scene), dict(services or {}), name)


@dataclass(frozen=True)
class Flow:
    """A chain of processes over a scene; its methods return a new flow.

    Attributes:
        scene: Path or href.
        services: Process name -> target, URL, or URLs of replicas.
        name: Name of the pipeline.
        steps: The processes in order.
    """

    scene: str
    services: Mapping[str, str | tuple[str, ...]]
    name: str
    steps: tuple[_Step, ...] = ()

    def then(
        self, process: str | Callable[..., object], *, output: str | None = None,
        **inputs: JsonValue,
    ) -> Flow:  # fmt: skip
        """Add a process that receives the image of the previous step.

        Args:
            process: A decorated function, a name in `services`, a target, or the URL of a service.
            output: The output that the next step receives; required if it has several.
            inputs: Its other inputs: values, or bindings such as `$mask.cloud`. An image input in
                `inputs` is not bound to the image of the previous step.
        """
        return replace(self, steps=(*self.steps, _Step(process, output, inputs)))

    def write(self, path: str, *, output: str | None = None) -> Flow:
        """Write an output of the last step: image as .tif, vector as .geojson, value as .json.

        Raises:
            InvalidPipeline: the flow has no step, or the path is not the plain name of a file.
        """
        if not self.steps:
            raise InvalidPipeline(f"write({path!r}): the flow has no process; call then() first")
        if Path(path).suffix not in (".tif", ".geojson", ".json"):
            raise InvalidPipeline(
                f"write({path!r}): an image is a .tif, a vector a .geojson, a value a .json"
            )
        if Path(path).name != path:
            raise InvalidPipeline(
                f"write({path!r}) accepts the name of a file; pass its folder to run()"
            )
        last = self.steps[-1]
        writing = replace(last, writes={**last.writes, Path(path).stem: output})
        return replace(self, steps=(*self.steps[:-1], writing))

    def pipeline(self) -> Pipeline:
        """Return the flow as a pipeline; reads the description of every process.

        Raises:
            InvalidPipeline: a port is ambiguous, nothing is written, or a name is used twice.
            PestoError: a target cannot be loaded, or a service does not respond.
        """
        if not any(step.writes for step in self.steps):
            raise InvalidPipeline("the flow writes nothing: call write('NAME.tif') after a then()")
        services: dict[str, JsonValue] = {}
        stages: list[JsonValue] = []
        outputs: dict[str, JsonValue] = {}
        image, used = _SCENE, set[str]()
        found: dict[int, tuple[str, ...]] = {}
        for step in self.steps:
            # A function that is used twice is one process.
            if id(step.process) not in found:
                found[id(step.process)] = self._targets(step.process)
            targets = found[id(step.process)]
            description = find(targets, base=Path.cwd()).description
            service: JsonValue = list(targets) if len(targets) > 1 else targets[0]
            if services.setdefault(description.name, service) != service:
                raise InvalidPipeline(
                    f"two processes of the flow are named {description.name!r}: give one of them "
                    'another name, @process(name="…")'
                )
            stage_id = _unused(description.name, used)
            bound = {**_bound(description, image, step), **step.inputs}
            stages.append({"id": stage_id, "process": description.name, "inputs": bound})
            for stem, port in step.writes.items():
                name = _output(description, port or step.output)
                outputs[stem] = str(Reference(owner=stage_id, port=name))
            if step is not self.steps[-1]:
                image = _image_output(description, stage_id, step, image)
        return Pipeline.parse(
            {
                "name": self.name,
                "inputs": {"scene": "image"},
                "services": services,
                "stages": stages,
                "outputs": outputs,
            }
        )

    def check(self) -> Checked:
        """Type-check the flow, and return all errors and warnings in one report.

        Raises:
            PestoError: as for `pipeline`.
        """
        pipeline = self.pipeline()
        return check_pipeline(pipeline, resolve_services(pipeline, base=Path.cwd()))

    def run(
        self,
        folder: str | AnyPath = ".",
        *,
        engine: str = "local",
        watcher: ProgressListener | None = None,
        tile: int | None = None,
        workers: int | None = None,
        fresh: bool = False,
        replace: bool = False,
        cache: str | None = None,
    ) -> Run:
        """Run the flow, and return what it has written; the same call resumes a stopped run.

        Args:
            folder: Folder for the outputs, `result.json` and `report.html`, also `s3://…`.
            engine: Name of the engine.
            watcher: Receives the progress; by default a bar shows it in a notebook or a terminal.
            tile: Side of a tile, pixels; None to size it by memory.
            workers: Number of chunks that run at the same time; None for one per core.
            fresh: Whether the blocks of earlier runs are deleted first.
            replace: Whether the result of another pipeline or scene is overwritten.
            cache: Path or href of a cache of blocks, which runs share; None for none.

        Raises:
            InvalidInput: a function of this process alone is to run on another engine.
            PestoError: refused, failed or interrupted; no file is half-written.
        """
        pipeline = self.pipeline()
        live = [name for name, each in pipeline.services.items() if str(each).startswith(LIVE)]
        if live and engine != "local":
            raise InvalidInput(
                f"{live[0]} is a function of this process, which the engine {engine!r} cannot "
                "import: write it into a file, and use FILE.py:FUNCTION"
            )
        request = RunRequest(
            pipeline=pipeline,
            base=Path.cwd(),
            inputs={"scene": self.scene},
            folder=output_place(folder),
            tile=tile,
            workers=workers or os.cpu_count() or 1,
            fresh=fresh,
            replace=replace,
            cache=cache,
        )
        with nullcontext(watcher) if watcher else shown_progress(self.name) as listener:
            load_engine(engine).run(request, watcher=listener)
        return Run.of(folder)

    def _targets(self, process: str | Callable[..., object]) -> tuple[str, ...]:
        if not isinstance(process, str):
            return (target_of(process),)
        found = self.services.get(process, BUILT_IN.get(process, process))
        return (found,) if isinstance(found, str) else tuple(found)


@dataclass(frozen=True)
class _Step:
    """One process of a flow.

    Attributes:
        process: A function, its name, a target or a URL.
        output: The output that the next step receives; None for the only one.
        inputs: Input port -> literal or binding, except the image of the previous step.
        writes: Stem of an output file -> output; None for the one that the next step receives.
    """

    process: str | Callable[..., object]
    output: str | None
    inputs: Mapping[str, JsonValue]
    writes: Mapping[str, str | None] = field(default_factory=dict)


def _bound(description: Description, image: Reference, step: _Step) -> dict[str, JsonValue]:
    """Bind an image to the only image input that the step does not bind itself."""
    ports = [
        port
        for port in (*description.data_inputs, *description.lists)
        if port.raster is None or port.raster.windows != "none"  # of which the grid alone counts
    ]
    free = [port.name for port in ports if port.name not in {*step.inputs, *description.masks}]
    if not free:
        return {}
    return {_only(free, None, f"{description.name} has the image inputs", "NAME="): str(image)}


def _image_output(
    description: Description, stage_id: str, step: _Step, before: Reference
) -> Reference:
    """Return the image for the next step: of this step, or `before` if it has no image output."""
    images = [port.name for port in description.outputs if port.kind == "image"]
    if not images and step.output is None:
        return before
    name = _only(images, step.output, f"{description.name} has the image outputs", "output=")
    return Reference(owner=stage_id, port=name)


def _output(description: Description, name: str | None) -> str:
    names = [port.name for port in description.outputs]
    return _only(names, name, f"{description.name} has the outputs", "output=")


def _only(names: list[str], chosen: str | None, subject: str, option: str) -> str:
    if chosen in names:
        return str(chosen)
    if chosen is None and len(names) == 1:
        return names[0]
    raise InvalidPipeline(
        f"{subject} {', '.join(names) or '(none)'}"
        + (f", not {chosen!r}" if chosen else f"; choose one by {option}…")
    )


def _unused(name: str, used: set[str]) -> str:
    candidates = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    found = next(each for each in candidates if each not in used)
    used.add(found)
    return found


def _place_of(scene: object) -> str:
    """Return the path or href of a scene.

    Raises:
        TypeError: it is not a path or href, and not the content of a file.
    """
    if isinstance(scene, (str, os.PathLike)):
        return os.fspath(scene)
    library = type(scene).__module__.partition(".")[0]
    if library == "rasterio":
        return _dataset_file(scene)
    if library == "xarray":
        return _array_file(scene)
    raise TypeError(
        f"a scene is the path or href of a raster, an open rasterio dataset or a DataArray, not "
        f"{type(scene).__name__}: write the pixels to a GeoTIFF, and give its path"
    )


def _dataset_file(dataset: object) -> str:
    name, mode = getattr(dataset, "name", None), getattr(dataset, "mode", None)
    is_virtual = type(dataset).__name__ == "WarpedVRT" or str(name).startswith("/vsimem/")
    if not isinstance(name, str) or mode != "r" or is_virtual:
        raise TypeError(
            f"{shortened(dataset)} is not a raster file that is open for reading: write it to a "
            "GeoTIFF, close it, and give its path"
        )
    return name


def _array_file(array: object) -> str:
    from pesto_runtime.raster.read import read_scene

    encoding = getattr(array, "encoding", {})
    source = encoding.get("source") if type(array).__name__ == "DataArray" else None
    if not isinstance(source, str):
        raise TypeError(
            f"this {type(array).__name__} is not the content of a file: write it with "
            ".rio.to_raster('FILE.tif'), and give that path"
        )
    scene = read_scene(source)
    whole = (len(scene.bands), scene.height, scene.width)
    shape = getattr(array, "shape", ())
    if shape not in (whole, whole[1:] if whole[0] == 1 else whole):
        raise TypeError(
            f"this DataArray has the shape {shape}, and its file {source} has {whole}: give the "
            "whole scene, or write the part with .rio.to_raster('FILE.tif')"
        )
    return source
