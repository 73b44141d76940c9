"""A pipeline written in Python, lazily: nothing is read, loaded or asked before it is needed.

```python
flow("scene.tif").then("cloud_mask.py:cloud_mask").then("sieve.py:sieve").write("mask.tif").run()
```
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline, Reference
from pesto_runtime.engines import RunRequest, SilentListener, load_engine
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.run.checking import check_pipeline
from pesto_runtime.run.services import find, resolve_services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.engines import ProgressListener
    from pesto_runtime.pipeline import Checked

_SCENE = Reference(owner="inputs", port="scene")


@dataclass(frozen=True)
class _Step:
    """A process to run on what came before it.

    Attributes:
        process: Its name, a target or a URL.
        output: The output that the next step takes; None for the only one.
        inputs: Input port -> literal or binding, beside the image that came before.
        writes: Output file's stem -> output; None for the one that the next step takes.
    """

    process: str
    output: str | None
    inputs: Mapping[str, JsonValue]
    writes: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Flow:
    """A chain of processes over a scene; every method answers a new one.

    Attributes:
        scene: Path or href.
        services: Process name -> target, URL, or URLs of replicas.
        name: Of the pipeline.
        steps: In order.
    """

    scene: str
    services: Mapping[str, str | tuple[str, ...]]
    name: str
    steps: tuple[_Step, ...] = ()

    def then(self, process: str, *, output: str | None = None, **inputs: JsonValue) -> Flow:
        """Run a process on the image made last.

        Args:
            process: A name out of `services`, a target, or a service's URL.
            output: Which of its outputs the next step takes; needed where it has several.
            inputs: Its other inputs: values, or bindings such as `$mask.cloud`. An image input
                given here is not bound to the image made last.
        """
        return replace(self, steps=(*self.steps, _Step(process, output, inputs)))

    def write(self, path: str, *, output: str | None = None) -> Flow:
        """Keep an output of the last step: image as .tif, vector as .geojson, value as .json.

        Raises:
            InvalidPipeline: nothing was made yet, or the path is not the plain name of a file.
        """
        if not self.steps:
            raise InvalidPipeline(f"write({path!r}): nothing is made yet; call then() first")
        if Path(path).suffix not in (".tif", ".geojson", ".json"):
            raise InvalidPipeline(
                f"write({path!r}): an image is a .tif, a vector a .geojson, a value a .json"
            )
        if Path(path).name != path:
            raise InvalidPipeline(
                f"write({path!r}) takes the name of a file; its folder is given to run()"
            )
        last = self.steps[-1]
        kept = replace(last, writes={**last.writes, Path(path).stem: output})
        return replace(self, steps=(*self.steps[:-1], kept))

    def pipeline(self) -> Pipeline:
        """The pipeline that this flow stands for; asks every process what it is.

        Raises:
            InvalidPipeline: a port is not clear, nothing is written, or a name is used twice.
            PestoError: a target cannot be loaded, or a service does not answer.
        """
        if not any(step.writes for step in self.steps):
            raise InvalidPipeline("the flow writes nothing: call write('NAME.tif') after a then()")
        services: dict[str, JsonValue] = {}
        stages: list[JsonValue] = []
        outputs: dict[str, JsonValue] = {}
        made, used = _SCENE, set[str]()
        for step in self.steps:
            targets = self._targets(step.process)
            description = find(targets, base=Path.cwd()).description
            services[description.name] = list(targets) if len(targets) > 1 else targets[0]
            stage_id = _unused(description.name, used)
            bound = {**_bound(description, made, step), **step.inputs}
            stages.append({"id": stage_id, "process": description.name, "inputs": bound})
            for stem, port in step.writes.items():
                name = _output(description, port or step.output)
                outputs[stem] = str(Reference(owner=stage_id, port=name))
            if step is not self.steps[-1]:
                made = self._made(description, stage_id, step, made)
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
        """Type-check the flow; every error and warning in one report."""
        pipeline = self.pipeline()
        return check_pipeline(pipeline, resolve_services(pipeline, base=Path.cwd()))

    def run(
        self,
        folder: str | Path = ".",
        *,
        engine: str = "local",
        watcher: ProgressListener | None = None,
        tile: int | None = None,
    ) -> dict[str, JsonValue]:
        """Run the flow; answers what `result.json` holds.

        Args:
            folder: Where the outputs, `result.json` and `report.html` go.
            engine: What runs it.
            watcher: Who looks on.
            tile: Side of a tile, pixels; None to size it by memory.

        Raises:
            PestoError: refused, failed or interrupted; nothing is half-written.
        """
        request = RunRequest(
            pipeline=self.pipeline(),
            base=Path.cwd(),
            inputs={"scene": self.scene},
            folder=Path(folder),
            tile=tile,
        )
        return load_engine(engine).run(request, watcher=watcher or SilentListener())

    def _targets(self, process: str) -> tuple[str, ...]:
        found = self.services.get(process, process)
        return (found,) if isinstance(found, str) else tuple(found)

    def _made(
        self, description: Description, stage_id: str, step: _Step, before: Reference
    ) -> Reference:
        """What the next step takes; a step that makes no image passes on what it was given."""
        images = [port.name for port in description.outputs if port.kind == "image"]
        if not images and step.output is None:
            return before
        name = _only(images, step.output, f"{description.name} makes", "output=")
        return Reference(owner=stage_id, port=name)


def flow(
    scene: str | Path,
    *,
    services: Mapping[str, str | tuple[str, ...]] | None = None,
    name: str = "flow",
) -> Flow:
    """Begin a flow at a scene.

    Args:
        scene: Path or href of a raster.
        services: Process name -> target, URL, or URLs of replicas.
        name: Of the pipeline.
    """
    return Flow(str(scene), dict(services or {}), name)


def _bound(description: Description, made: Reference, step: _Step) -> dict[str, JsonValue]:
    """Bind the image made last to the one image input that is not given otherwise."""
    free = [port.name for port in description.image_inputs if port.name not in step.inputs]
    if not free:
        return {}
    return {_only(free, None, f"{description.name} takes images", "NAME="): str(made)}


def _output(description: Description, name: str | None) -> str:
    return _only(
        [port.name for port in description.outputs], name, f"{description.name} makes", "output="
    )


def _only(names: list[str], chosen: str | None, what: str, option: str) -> str:
    if chosen in names:
        return str(chosen)
    if chosen is None and len(names) == 1:
        return names[0]
    raise InvalidPipeline(
        f"{what} {', '.join(names) or 'nothing'}"
        + (f"; there is no {chosen!r}" if chosen else f"; say which by {option}…")
    )


def _unused(name: str, used: set[str]) -> str:
    candidates = (name, *(f"{name}-{number}" for number in range(2, 1000)))
    found = next(each for each in candidates if each not in used)
    used.add(found)
    return found
