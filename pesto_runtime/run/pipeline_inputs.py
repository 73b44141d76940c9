"""Read the inputs of a run: scenes by their facts, other values by the types of their ports.

Importing this file loads neither pixels nor network: see `planning`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, overload

from pesto_runtime.contract import literal, parse_binding
from pesto_runtime.contract.image_lists import item_of, list_of
from pesto_runtime.errors import (
    BadField,
    InvalidInput,
    InvalidPipeline,
    PestoError,
    json_pointer,
    shortened,
)
from pesto_runtime.hrefs import image_reference
from pesto_runtime.pipeline import (
    completed,
    fed_ports,
    input_defaults,
    type_schema,
)
from pesto_runtime.run.stac_items import absolute_item, image_of_item, is_item, read_item
from pesto_runtime.schema import typed_value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, ImageReference, Pipeline, Scene, Stage
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
            A list of images is a list of these, or its JSON text.
            It may be a STAC item, or the path or href of one (`….json`): the bands that its ports
            name are taken from its assets.
    """
    return inputs_reader(pipeline, services)(given)


def inputs_reader(
    pipeline: Pipeline, services: Services
) -> Callable[[Mapping[str, JsonValue]], PipelineInputs]:
    """Return `read_inputs` for many inputs of one pipeline."""
    typed = completed(pipeline, services.descriptions)
    wanted = band_names(typed, services.descriptions)

    def read(given: Mapping[str, JsonValue]) -> PipelineInputs:
        known = {name: value for name, value in given.items() if value is not None}
        found = _read_images(given_images(typed, known), base=None, wanted=wanted)
        if all(typed.inputs.get(name) in ("image", "images") for name in known):
            return found
        return replace(found, parameters=read_values(typed, services.descriptions, known))

    return read


def given_images(pipeline: Pipeline, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the images among the inputs, those of lists by their names: `dates.0`, `dates.1`, ….

    Args:
        pipeline: Declares the types of its inputs.
        given: Input -> value, as for `read_inputs`.

    Raises:
        InvalidInput: a list of images is something else, or empty.
    """
    found: dict[str, JsonValue] = {}
    for name, value in given.items():
        kind = pipeline.inputs.get(name)
        if kind == "image" and value is not None:
            found[name] = value
        elif kind == "images" and value is not None:
            listed = _listed(name, value)
            found |= {item_of(name, index): each for index, each in enumerate(listed)}
    return found


def with_images(given: Mapping[str, JsonValue], images: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return inputs with other texts for their images, as `given_images` names them."""
    changed: dict[str, JsonValue] = dict(given)
    changed |= {name: text for name, text in images.items() if name in given}
    lists = {list_of(name) for name in images} - images.keys()
    for owner in lists:
        changed[owner] = [text for name, text in images.items() if list_of(name) == owner]
    return changed


def _listed(name: str, value: JsonValue) -> list[JsonValue]:
    is_json = isinstance(value, str) and value.lstrip().startswith("[")
    listed = typed_value({"type": "array"}, value) if is_json else value
    listed = [listed] if isinstance(listed, (str, dict)) else listed
    if not isinstance(listed, list) or not listed:
        detail = (
            f"must be a list of images, not {shortened(value)}: repeat -i {name}=…, or write a "
            "JSON list"
        )
        raise InvalidInput.of("inputs", [BadField(json_pointer("inputs", name), detail)])
    return listed


def band_names(pipeline: Pipeline, descriptions: Mapping[str, Description]) -> dict[str, list[str]]:
    """Return image input -> names of the bands that its ports take."""
    found: dict[str, list[str]] = {}
    for name, ports in fed_ports(pipeline, descriptions).items():
        rasters = [each.port.raster for each in ports]
        names = [band for each in rasters if each for band in each.band_names or ()]
        found[name] = [*dict.fromkeys(names)]
    return found


def image_of_input(value: JsonValue, wanted: Sequence[str], base: Path | None) -> ImageReference:
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
    from pesto_runtime.raster.known_headers import scene_of_image

    for name, value in images.items():
        try:
            scenes[name] = scene_of_image(
                image_of_input(value, wanted.get(list_of(name), ()), base)
            )
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
        if kinds[name] not in ("image", "images")
    }


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
        images_of, bound, bands = _stated_images(stage, found.description if found else None)
        images |= images_of
        wanted |= bands
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


def _stated_images(
    stage: Stage, description: Description | None
) -> tuple[dict[str, JsonValue], dict[str, JsonValue], dict[str, Sequence[str]]]:
    """Return the images that a stage states, by names of inputs; the bindings; the bands wanted."""
    images: dict[str, JsonValue] = {}
    bound: dict[str, JsonValue] = {}
    bands: dict[str, Sequence[str]] = {}
    for port in description.inputs if description else ():
        value, name = stage.inputs.get(port.name), f"{stage.id}-{port.name.replace('.', '-')}"
        named: dict[str, JsonValue] = {}
        if port.kind == "image" and _is_literal(value):
            named = {name: literal(value)}
            bound[port.name] = f"$inputs.{name}"
        elif port.kind == "images" and isinstance(value, list):
            stated = {index: each for index, each in enumerate(value) if _is_literal(each)}
            named = {f"{name}-{index}": literal(each) for index, each in stated.items()}
            bound[port.name] = [
                f"$inputs.{name}-{index}" if index in stated else each
                for index, each in enumerate(value)
            ]
        images |= named
        bands |= dict.fromkeys(named, (port.raster and port.raster.band_names) or ())
    return images, bound, bands


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
