"""Parse the description of a process, which a service returns at `/api/v1/describe`.

A description is never rewritten: `document` is the JSON as it was read, with all unknown keys.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import (
    Field,
    JsonValue,
    ValidationError,
)

from pesto_runtime.contract.base import Fill, Value
from pesto_runtime.contract.call import Example, bad_fields
from pesto_runtime.contract.canonical import digest, merge_patch
from pesto_runtime.contract.geometry import Margin, Scale
from pesto_runtime.contract.process_ports import (
    FOLDS,
    IMAGE_KINDS,
    Fold,
    Port,
    PortKind,
    fold_faults,
    is_mask,
    mask_faults,
    masks_of,
    ratio_faults,
    ratios_of,
    window_faults,
)
from pesto_runtime.contract.raster import RasterContract
from pesto_runtime.contract.vector import VectorContract
from pesto_runtime.errors import BadField, InvalidContract, json_pointer, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


Tileable: TypeAlias = Literal["map", "reduce", "whole"]

_DEFAULT_BATCH = 16
"""Payloads per request of a batched process that declares no number; all images are in memory."""
_PADDED_TEMPLATES = ("tile-object-detection", "tile-change-detection")


class Resources(Value):
    """What one instance of the service wants of its machine."""

    cpu: float | None = Field(default=None, ge=0, description="cores")
    gpu: float | None = Field(default=None, ge=0, description="devices")
    ram: float | None = Field(default=None, ge=0, description="GiB")
    max_batch_size: int | None = Field(
        default=None, ge=1, description="payloads that one request may carry, where batched"
    )


class DescriptionDocument(Value):
    """The known keys of a description; a service may add any other."""

    name: str = Field(min_length=1)
    version: str
    title: str = ""
    description: str = ""
    resources: Resources = Resources()
    asynchronous: bool = False
    batched: bool = Field(default=False, description="Takes a JSON array of payloads, too.")
    releases_gil: bool = False
    tileable: Tileable | None = Field(
        default=None,
        description="map: works on windows; reduce: folds blocks; whole: needs the whole image.",
    )
    x_reduce: dict[str, Fold] | None = Field(
        default=None, alias="x-reduce", description="Keys of a partial, and how each folds."
    )
    examples: tuple[Example, ...] = Field(
        default=(), alias="x-examples", description="Calls, and the outputs that they return."
    )
    template: str | None = None
    config: dict[str, JsonValue] | None = None
    input: dict[str, JsonValue] = Field(description="Object schema (draft-06) of the inputs.")
    output: dict[str, JsonValue] = Field(description="Object schema (draft-06) of the outputs.")


@dataclass(frozen=True)
class Description:
    """The contract of a process.

    Attributes:
        document: The description as it was read, with unknown keys.
        known: The known keys of it.
        inputs: Input ports in their order.
        outputs: Output ports in their order.
    """

    document: Mapping[str, JsonValue]
    known: DescriptionDocument
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @classmethod
    def parse(cls, document: object) -> Description:
        """Parse a description.

        Raises:
            InvalidContract: fields are wrong or contradict each other; the error lists all.
        """
        if not isinstance(document, dict):
            raise InvalidContract(f"a description is a JSON object, not {shortened(document)}")
        try:
            known = DescriptionDocument.model_validate(document)
        except ValidationError as error:
            raise InvalidContract.of("description", bad_fields(error, value=document)) from error
        padding = _padding(known)
        inputs, input_faults = _ports(known.input, "/input", padding=padding)
        outputs, output_faults = _ports(known.output, "/output", padding=None)
        faults = [*input_faults, *output_faults, *_contradictions(known, inputs)]
        faults += fold_faults(outputs, tileable=known.tileable)
        if faults:
            raise InvalidContract.of(f"description of {known.name!r}", faults)
        frozen = MappingProxyType(copy.deepcopy(document))
        return cls(frozen, known, inputs, outputs)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the description as it was read."""
        return copy.deepcopy(dict(self.document))

    def __reduce__(self) -> tuple[object, ...]:
        # A mapping proxy cannot be pickled, so the JSON is pickled and parsed again.
        return (Description.parse, (self.to_json(),))

    @property
    def name(self) -> str:
        """The process's name."""
        return self.known.name

    @property
    def version(self) -> str:
        """The process's version."""
        return self.known.version

    @cached_property
    def tileable(self) -> Tileable:
        """How the process can be tiled; one that declares neither this nor a margin: `whole`."""
        if self.known.tileable:
            return self.known.tileable
        declared = [p for p in self.inputs if p.kind == "image" and p.raster is not None]
        padded = _padding(self.known) is not None
        return "map" if declared and padded else "whole"

    @cached_property
    def folds(self) -> Mapping[str, Fold]:
        """Keys of a reduce's partial, or folded outputs of a map, and how each folds."""
        return self.known.x_reduce or {p.name: p.fold for p in self.outputs if p.fold}

    @cached_property
    def max_batch_size(self) -> int:
        """Payloads that one request may contain; 1 if the process is not batched."""
        if not self.known.batched:
            return 1
        configured = (self.known.config or {}).get("max_batch_size")
        declared = self.known.resources.max_batch_size
        if declared is None and isinstance(configured, int) and configured >= 1:
            declared = configured
        return declared or _DEFAULT_BATCH

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the canonical JSON (RFC 8785) of the document without `_links`."""
        return digest(self.document)

    def input(self, name: str) -> Port | None:
        """Return the input port of this name; None if there is none."""
        return self._inputs_by_name.get(name)

    def output(self, name: str) -> Port | None:
        """Return the output port of this name; None if there is none."""
        return self._outputs_by_name.get(name)

    @cached_property
    def _inputs_by_name(self) -> dict[str, Port]:
        return {port.name: port for port in self.inputs}

    @cached_property
    def _outputs_by_name(self) -> dict[str, Port]:
        return {port.name: port for port in self.outputs}

    def schema_of(self, port: Port) -> dict[str, JsonValue]:
        """Return the schema of a port with the definitions that it may refer to."""
        side = self.known.input if self.input(port.name) is port else self.known.output
        return {**port.schema, "definitions": side.get("definitions", {})}

    @cached_property
    def image_inputs(self) -> tuple[Port, ...]:
        """Input ports that take one image each."""
        return tuple(port for port in self.inputs if port.kind == "image")

    @cached_property
    def margin(self) -> Margin:
        """The margin around an output pixel, in pixels of the first image: the largest of all."""
        margin = Margin()
        for port in (*self.image_inputs, *self.lists):
            if port.raster is not None:
                margin = margin.union(port.raster.margin.at(self.ratio(port.name)))
        return margin

    def ratio(self, name: str) -> Scale:
        """Return the pixels of an image input per pixel of the first; a mask has its image's."""
        return self._ratios.get(name, Scale())

    @cached_property
    def has_ratios(self) -> bool:
        """Whether its images have several resolutions."""
        return any(not ratio.is_one for ratio in self._ratios.values())

    @cached_property
    def _ratios(self) -> Mapping[str, Scale]:
        return ratios_of(self.inputs)

    @cached_property
    def lists(self) -> tuple[Port, ...]:
        """Input ports that take a list of images each."""
        return tuple(port for port in self.inputs if port.kind == "images")

    @cached_property
    def spread_forms(self) -> dict[tuple[tuple[str, int], ...], Description]:
        """Its forms with single images in place of lists, as `with_items` made them."""
        return {}

    @cached_property
    def fills(self) -> Mapping[str, Fill]:
        """Image input -> how its pixels beyond the scene are made; None for none."""
        rasters = {port.name: port.raster or RasterContract() for port in self.image_inputs}
        own = {
            name: "reflect" if raster.edge == "reflect" else raster.fill
            for name, raster in rasters.items()
        }
        # All images of a call have one size: one without its own declaration follows the first.
        first = next((fill for fill in own.values() if fill is not None), None)
        fills = {name: first if fill is None else fill for name, fill in own.items()}
        for name, image in self.masks.items():
            # A pixel that is added is as valid as the one that it repeats; a number is no data.
            repeated = fills[image] if isinstance(fills[image], str) else 0
            if own[name] is None and first is not None:
                fills[name] = repeated
        return fills

    @cached_property
    def masks(self) -> Mapping[str, str]:
        """Mask -> the image input whose valid pixels it marks."""
        return masks_of(self.inputs)

    @cached_property
    def band_masks(self) -> frozenset[str]:
        """Masks with one band for each band of their image."""
        return frozenset(p.name for p in self.inputs if p.raster is not None and p.raster.per_band)

    @cached_property
    def is_warp(self) -> bool:
        """Whether it resamples an image onto another grid, which a run does itself."""
        return any(p.raster is not None and p.raster.windows == "own" for p in self.inputs)

    @cached_property
    def data_inputs(self) -> tuple[Port, ...]:
        """Input ports that take one image each, without masks."""
        return tuple(port for port in self.image_inputs if port.name not in self.masks)

    @property
    def is_extended(self) -> bool:
        """Whether windows may extend beyond the scene, mirrored or filled."""
        return any(fill is not None for fill in self.fills.values())

    def overlaid(self, overlay: Mapping[str, JsonValue]) -> Description:
        """Merge an overlay (RFC 7396) into the description, for keys that the service omits.

        Raises:
            InvalidContract: the merged description contradicts itself.
        """
        return Description.parse(merge_patch(self.to_json(), dict(overlay)))


def _ports(
    schema: Mapping[str, JsonValue], pointer: str, *, padding: int | None
) -> tuple[tuple[Port, ...], list[BadField]]:
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        return (), [BadField(f"{pointer}/properties", "must be an object", shortened(properties))]
    required = schema.get("required", [])
    required_names = required if isinstance(required, list) else []
    ports, faults = [], []
    for name, body in properties.items():
        where = pointer + json_pointer("properties", name)
        if not isinstance(body, dict):
            faults.append(BadField(where, "must be a JSON schema object", shortened(body)))
            continue
        try:
            ports.append(_port(name, body, padding, required=name in required_names))
        except ValidationError as error:
            key = "x-raster" if "x-raster" in body else "x-vector"
            faults.extend(bad_fields(error, prefix=f"{where}/{key}", value=body[key]))
    return tuple(ports), faults


def _port(name: str, body: Mapping[str, JsonValue], padding: int | None, *, required: bool) -> Port:
    raster = _raster_of(body, padding)
    kind = _kind(body, raster)
    vector = VectorContract.model_validate(body["x-vector"]) if kind == "vector" else None
    fold = next((each for each in FOLDS if each == body.get("x-fold")), None)
    return Port(name, kind, body, required, raster, vector, fold)


def _raster_of(body: Mapping[str, JsonValue], padding: int | None) -> RasterContract | None:
    if "x-raster" in body:
        return RasterContract.model_validate(body["x-raster"])
    if padding is not None and (_kind(body, None) == "image" or body.get("title") == "tile"):
        return RasterContract(margin=Margin.of(padding))
    return None


def _kind(body: Mapping[str, JsonValue], raster: RasterContract | None) -> PortKind:
    definition = str(body.get("$ref", "")).rpartition("/")[2]
    if definition == "Images":
        return "images"
    if definition == "Image" or raster is not None:
        return "image"
    return "vector" if "x-vector" in body else "json"


def _padding(known: DescriptionDocument) -> int | None:
    """Return the margin of the geoprocessing-api templates, `config.padding` in pixels."""
    padding = (known.config or {}).get("padding")
    # bool is a subclass of int: without the check, `true` would be a margin of 1.
    if known.template not in _PADDED_TEMPLATES or isinstance(padding, bool):
        return None
    if not isinstance(padding, (int, float)) or padding < 0 or padding != int(padding):
        return None
    return int(padding)


def _contradictions(known: DescriptionDocument, inputs: tuple[Port, ...]) -> Iterator[BadField]:
    if (known.tileable == "reduce") != bool(known.x_reduce):
        yield BadField(
            "/x-reduce",
            "a reduce has both `tileable: reduce` and `x-reduce` with a fold per key",
            shortened(known.x_reduce),
        )
    if known.tileable == "reduce" and "output" in (known.x_reduce or {}):
        yield BadField("/x-reduce/output", "`output` is reserved", None)
    for port in inputs if known.tileable == "reduce" else ():
        if port.raster is not None and port.raster.fill is not None:
            yield BadField(
                json_pointer("input", "properties", port.name, "x-raster", "fill"),
                "a reduce has no `fill`: pixels that are added would be counted",
                shortened(port.raster.fill),
            )
    yield from mask_faults(inputs)
    yield from ratio_faults(inputs, tileable=known.tileable)
    yield from window_faults(known.name, inputs)
    lists = {port.name for port in inputs if port.kind == "images"}
    for port in inputs:
        owner, _, index = port.name.rpartition(".")
        if owner in lists and index.isdigit():
            where = json_pointer("input", "properties", port.name)
            yield BadField(where, f"is the name of an image of the list {owner!r}; rename one")
    images = [port for port in inputs if port.kind in IMAGE_KINDS and not is_mask(port)]
    if known.tileable in ("map", "reduce") and not images:
        yield BadField("/tileable", f"{known.tileable!r} needs an image input", known.tileable)
