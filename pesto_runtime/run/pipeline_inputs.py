"""Read the inputs of a run: scenes by their facts, other values by the types of their ports.

Importing this file loads neither pixels nor network: see `planning`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from pesto_runtime.contract import literal, parse_binding, parse_window
from pesto_runtime.errors import InvalidInput, InvalidPipeline, PestoError, shortened
from pesto_runtime.hrefs import image_reference
from pesto_runtime.pipeline import completed, fed_ports, input_defaults, type_schema
from pesto_runtime.run.stac_items import absolute_item, image_of_item, is_item, read_item
from pesto_runtime.schema import typed_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, ImageReference, Pipeline, Scene
    from pesto_runtime.run.services import Services


@dataclass(frozen=True)
class PipelineInputs:
    """The inputs of a run.

    Attributes:
        scenes: Image input -> facts of its raster.
        parameters: Other input -> value.
        unreadable: Image input -> the error of reading its raster.
    """

    scenes: Mapping[str, Scene]
    parameters: Mapping[str, JsonValue]
    unreadable: Mapping[str, PestoError] = field(default_factory=dict)


def read_inputs(
    pipeline: Pipeline, services: Services, given: Mapping[str, JsonValue]
) -> PipelineInputs:
    """Convert inputs to scenes and values; faults are reported by `check_pipeline` and `plan`.

    Args:
        pipeline: Declares the kind of each input.
        services: The services of its processes: an input inherits the type of their ports.
        given: Input name -> text as on the command line (path or href of an image, a string as it
            is, otherwise JSON), or a value that is not a text; null as if the input were absent.
            An image may have bands and a window: `HREF#bands=…`, or `{"href", "bands", "window"}`.
            It may be a STAC item, or the path or href of one (`….json`): the bands that its ports
            name are taken from its assets.
    """
    typed = completed(pipeline, services.descriptions)
    known = {name: value for name, value in given.items() if value is not None}
    images = {name: value for name, value in known.items() if typed.inputs.get(name) == "image"}
    read = _read_images(images, base=None, wanted=_band_names(typed, services.descriptions))
    return replace(read, parameters=read_values(typed, services.descriptions, known))


def _band_names(
    pipeline: Pipeline, descriptions: Mapping[str, Description]
) -> dict[str, list[str]]:
    """Return image input -> names of the bands that its ports take."""
    found: dict[str, list[str]] = {}
    for name, ports in fed_ports(pipeline, descriptions).items():
        rasters = [each.port.raster for each in ports]
        names = [band for each in rasters if each for band in each.band_names or ()]
        found[name] = [*dict.fromkeys(names)]
    return found


def _image(value: JsonValue, wanted: Sequence[str], base: Path | None) -> ImageReference:
    """Return the reference of an image, which may be a STAC item."""
    if is_item(value):
        return image_of_item(absolute_item(value), wanted, where=f"item {value.get('id')!r}")
    if isinstance(value, str) and value.endswith(".json"):
        place = value if base is None or "://" in value else str(base / value)
        return image_of_item(read_item(place), wanted, where=value)
    return image_reference(value, base=base)


def _read_images(
    images: Mapping[str, JsonValue],
    *,
    base: Path | None,
    wanted: Mapping[str, Sequence[str]] = {},
) -> PipelineInputs:
    """Read the facts of images; paths are relative to `base`, or else the working directory."""
    scenes: dict[str, Scene] = {}
    unreadable: dict[str, PestoError] = {}
    if not images:
        return PipelineInputs(scenes, {})
    from pesto_runtime.raster.read import read_scene

    for name, value in images.items():
        try:
            scenes[name] = read_scene(_image(value, wanted.get(name, ()), base))
        except PestoError as error:
            unreadable[name] = error
    return PipelineInputs(scenes, {}, unreadable)


def read_values(
    pipeline: Pipeline, descriptions: Mapping[str, Description], given: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Return the inputs that are not images; a text is read by the type of its input."""
    pipeline = completed(pipeline, descriptions)
    fed = fed_ports(pipeline, descriptions)
    kinds = {name: pipeline.inputs.get(name, "string") for name in given}

    def schema(name: str) -> Mapping[str, JsonValue]:
        ports = fed.get(name)
        own = type_schema(kinds[name])
        return ports[0].description.schema_of(ports[0].port) if ports and not own else own

    return {
        name: typed_value(schema(name), value)
        for name, value in given.items()
        if kinds[name] != "image"
    }


def restricted(
    pipeline: Pipeline,
    services: Services,
    given: Mapping[str, JsonValue],
    *,
    window: str | None = None,
    area: str | None = None,
) -> dict[str, JsonValue]:
    """Return inputs whose images are cut to a window, as a user would write it for each of them.

    Args:
        pipeline: Declares the kind of each input.
        services: The services of its processes.
        given: Input name -> value, as for `read_inputs`.
        window: `COL_OFF,ROW_OFF,WIDTH,HEIGHT`, pixels of the images.
        area: `WEST,SOUTH,EAST,NORTH` in degrees, GeoJSON, or the path of a GeoJSON file; of the
            first image, the smallest window that covers it.

    Raises:
        InvalidInput: both or a wrong one is given, there is no image, or one has a window already.
        RasterUnreadable: the first image cannot be read.
    """
    if window is None and area is None:
        return dict(given)
    if window is not None and area is not None:
        raise InvalidInput("--window and --aoi exclude each other: give one")
    kinds = completed(pipeline, services.descriptions).inputs
    wanted = _band_names(pipeline, services.descriptions)
    images = {n: _image(v, wanted.get(n, ()), None) for n, v in given.items()
              if kinds.get(n) == "image"}  # fmt: skip
    if any(name not in kinds for name in given):
        return dict(given)  # the check lists these names, and the existing ones
    if not images:
        raise InvalidInput("--window and --aoi cut images, and none is given: -i NAME=FILE")
    cut = [name for name, image in images.items() if image.window is not None]
    if cut:
        raise InvalidInput(f"input {cut[0]!r} has a window already; remove it, or the option")
    if window is not None:
        found = parse_window(_numbers(window, "--window", int))
    else:
        from pesto_runtime.raster.area import window_of_area  # loads rasterio

        found = window_of_area(next(iter(images.values())), _area(area or ""))
    moved = {n: str(image.model_copy(update={"window": found})) for n, image in images.items()}
    return {**given, **moved}


def _area(text: str) -> JsonValue:
    """Return a bbox or GeoJSON, from the text itself or from a file."""
    if text.lstrip().startswith("{"):
        return _parsed(text, "--aoi")
    path = Path(text)
    if os.path.isfile(path):  # noqa: PTH113  # Path raises for a long name
        return _parsed(path.read_text(), text)
    return _numbers(text, "--aoi", float)


def _numbers(text: str, option: str, kind: type[int] | type[float]) -> list[JsonValue]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        form = "COL_OFF,ROW_OFF,WIDTH,HEIGHT"
        if option == "--aoi":
            form = "WEST,SOUTH,EAST,NORTH in degrees, a GeoJSON file that exists, or GeoJSON"
        raise InvalidInput(f"{option} {shortened(text)} is not {form}") from error


def _parsed(text: str, source: str) -> JsonValue:
    try:
        found: JsonValue = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{source} is not JSON: {error}") from error
    return found


@overload
def with_literal_images(
    pipeline: Pipeline, services: Services, inputs: PipelineInputs
) -> tuple[Pipeline, PipelineInputs]: ...


@overload
def with_literal_images(
    pipeline: Pipeline, services: Services, inputs: PipelineInputs | None
) -> tuple[Pipeline, PipelineInputs | None]: ...


def with_literal_images(
    pipeline: Pipeline, services: Services, inputs: PipelineInputs | None
) -> tuple[Pipeline, PipelineInputs | None]:
    """Return the pipeline with an input for each image that a stage states itself; read them."""
    images: dict[str, JsonValue] = {}
    wanted: dict[str, Sequence[str]] = {}
    stages = []
    for stage in pipeline.stages:
        found = services.found.get(stage.process)
        ports = found.description.image_inputs if found else ()
        stated = [p.name for p in ports if _is_literal(stage.inputs.get(p.name))]
        names = {port: f"{stage.id}-{port.replace('.', '-')}" for port in stated}
        images |= {name: literal(stage.inputs[port]) for port, name in names.items()}
        rasters = {port.name: port.raster for port in ports}
        wanted |= {name: (raster.band_names or ()) if (raster := rasters[port]) else ()
                   for port, name in names.items()}  # fmt: skip
        bound = {port: f"$inputs.{name}" for port, name in names.items()}
        stages.append(stage.model_copy(update={"inputs": {**stage.inputs, **bound}}))
    if not images:
        return pipeline, inputs
    values = inputs.parameters if inputs else {}
    taken = sorted(set(images) & {*pipeline.inputs, *values})
    if taken:
        raise InvalidPipeline(f"input {taken[0]!r} has the name of an image of a stage: rename it")
    declared = {**pipeline.inputs, **dict.fromkeys(images, "image")}
    extended = pipeline.model_copy(update={"stages": tuple(stages), "inputs": declared})
    if inputs is not None:
        read = _read_images(images, base=services.base, wanted=wanted)
        inputs = replace(
            inputs,
            scenes={**inputs.scenes, **read.scenes},
            unreadable={**inputs.unreadable, **read.unreadable},
        )
    return extended, inputs


def _is_literal(value: JsonValue) -> bool:
    try:
        return value is not None and parse_binding(value) is None
    except InvalidPipeline:  # reported where the stage is bound
        return False


def with_defaults(pipeline: Pipeline, services: Services, inputs: PipelineInputs) -> PipelineInputs:
    """Return inputs with the defaults that their ports declare."""
    pipeline = completed(pipeline, services.descriptions)
    defaults = input_defaults(pipeline, services.descriptions)
    return replace(inputs, parameters={**defaults, **inputs.parameters})
