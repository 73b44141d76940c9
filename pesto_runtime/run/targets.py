"""Make a pipeline of one stage from a process, so that one function runs over a whole scene.

The argument of `pesto check`, `plan` and `run` is the file of a pipeline, or a target.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pesto_runtime.contract import Pipeline
from pesto_runtime.pipeline.check import OWN_FILES
from pesto_runtime.places import place_of
from pesto_runtime.run.builds import is_url
from pesto_runtime.run.catalogs import base_of
from pesto_runtime.run.planning import load_pipeline
from pesto_runtime.run.services import find

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port


@dataclass(frozen=True)
class PipelineSource:
    """A pipeline, and its place.

    Attributes:
        pipeline: The pipeline.
        base: Directory to which its targets are relative.
        remarks: Facts about the pipeline of a single process that its user should know.
    """

    pipeline: Pipeline
    base: Path
    remarks: tuple[str, ...] = ()


def pipeline_of(text: str) -> PipelineSource:
    """Return the pipeline of a file, or one of a single stage for a target or a URL.

    Args:
        text: A JSON file, or the href of one (`s3://…`, `https://….json`); `file.py:function`,
            `package.module:function`, the directory of a PESTO project, or the URL of a service.

    Raises:
        InvalidInput: the file is not JSON.
        InvalidPipeline: the file does not fit the schema; with every wrong field.
        PestoError: the target cannot be loaded, or the service does not respond.
    """
    if "://" in text and (not is_url(text) or urlsplit(text).path.endswith(".json")):
        place = place_of(text)
        return PipelineSource(load_pipeline(place), base_of(place))
    path = Path(text)
    is_file = os.path.isfile(path)  # noqa: PTH113  # Path raises for a long name
    if not is_url(text) and (path.suffix == ".json" or (is_file and path.suffix != ".py")):
        return PipelineSource(load_pipeline(path), path.resolve().parent)
    description = find((text,), base=Path.cwd()).description
    return single_stage(description, text, base=Path.cwd())


def single_stage(description: Description, target: str, *, base: Path) -> PipelineSource:
    """Return the pipeline of one process: its inputs and outputs are those of the process.

    Inputs inherit type, default and limits from the ports. A value per tile is not an output,
    unless the process returns nothing else.
    """
    name = _as_name(description.name)
    outputs = _kept(description)
    document: JsonValue = {
        "name": name,
        "description": description.known.description or "",
        "inputs": {port.name: "inherit" for port in description.inputs if _is_bound(port)},
        "services": {description.name: target},
        "stages": [
            {
                "id": name,
                "process": description.name,
                "inputs": {
                    port.name: f"$inputs.{port.name}"
                    for port in description.inputs
                    if _is_bound(port)
                },
            }
        ],
        "outputs": {_output_name(port.name, name): f"${name}.{port.name}" for port in outputs},
    }
    left_out = [port.name for port in description.outputs if port not in outputs]
    return PipelineSource(Pipeline.parse(document), base, tuple(_remarks(left_out)))


def _is_bound(port: Port) -> bool:
    # A mask binds itself to its image.
    return port.raster is None or not port.raster.mask


def _kept(description: Description) -> list[Port]:
    has_images = any((*description.image_inputs, *description.lists))
    per_tile = description.tileable == "map" and has_images
    kept = [p for p in description.outputs if p.kind != "json" or p.fold or not per_tile]
    return kept or list(description.outputs)


def _remarks(left_out: Iterable[str]) -> Iterable[str]:
    for name in left_out:
        yield (
            f"output {name!r} has one value per tile and none of the scene, so it is not an output "
            "of the run: declare how it folds, Named(fold='sum'), or write a reduce"
        )


def _output_name(port: str, process: str) -> str:
    """Return the name of a product: `result.json` and others are files of the run itself."""
    name = process if port in OWN_FILES else _as_name(port)
    return f"{name}-output" if name in OWN_FILES else name


def _as_name(text: str) -> str:
    found = re.sub(r"[^A-Za-z0-9_-]", "-", text)
    # `inputs` is the owner of the pipeline's inputs in a reference.
    return found if found[:1].isalpha() and found != "inputs" else f"p-{found}"
