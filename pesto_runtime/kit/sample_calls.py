"""Make a call that a process accepts, from its description alone and from values of the user."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from pesto_runtime.contract.geometry import rescaled
from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import image_reference
from pesto_runtime.pipeline import step_of
from pesto_runtime.probing.data import ImageSpec
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.raster.read import read_for
from pesto_runtime.schema import typed_value
from pesto_runtime.tiling import scaled_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port

_ROWS, _COLS = 40, 56
_CRS = "EPSG:32631"
_TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0)
_DEEPEST = 8
_SQUARE: dict[str, JsonValue] = {
    "type": "Polygon",
    "coordinates": [[[1, 1], [1, 9], [9, 9], [9, 1], [1, 1]]],
}
_BY_TYPE: Mapping[str, JsonValue] = {
    "number": 1, "integer": 1, "string": "a", "boolean": False, "array": [], "object": {},
    "null": None,
}  # fmt: skip


@dataclass(frozen=True)
class SampleCall:
    """Inputs of one call.

    Attributes:
        images: Image input -> its images: one, or those of a list.
        values: Every other input.
        lists: Names of the inputs that take a list of images.
    """

    images: Mapping[str, tuple[Image, ...]]
    values: Mapping[str, JsonValue]
    lists: frozenset[str] = frozenset()

    def wire(self) -> dict[str, JsonValue]:
        """Return the call as every PESTO service accepts it: images as GeoTIFF in base64."""
        document: dict[str, JsonValue] = dict(self.values)
        for name, several in self.images.items():
            texts: list[JsonValue] = [_in_base64(image) for image in several]
            document[name] = texts if name in self.lists else texts[0]
        return document

    def arguments(self) -> dict[str, object]:
        """Return the call for `Client.process`."""
        images: dict[str, object] = {
            name: list(several) if name in self.lists else several[0]
            for name, several in self.images.items()
        }
        return {**self.values, **images}

    def turned(self, number: int) -> SampleCall:
        """Return the same call with other pixels: those of each band rotated along the columns."""
        images = {
            name: tuple(
                replace(each, pixels=np.ascontiguousarray(np.roll(each.pixels, number, axis=2)))
                for each in several
            )
            for name, several in self.images.items()
        }
        return replace(self, images=images)

    def without(self, name: str) -> SampleCall:
        """Return the same call without an input."""
        images = {key: each for key, each in self.images.items() if key != name}
        values = {key: each for key, each in self.values.items() if key != name}
        return replace(self, images=images, values=values)


def sample_call(description: Description, given: Mapping[str, JsonValue]) -> SampleCall:
    """Make inputs for a process: all images, all that is required, and those that are given.

    Args:
        description: Its contract.
        given: Input name -> text or value: path or href of an image, JSON for other kinds.

    Raises:
        InvalidInput: an input does not exist.
        PestoError: an image cannot be read.
    """
    names = [port.name for port in description.inputs]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InvalidInput(
            f"{description.name} has no input {unknown[0]!r}; it has {', '.join(names)}"
        )
    images: dict[str, tuple[Image, ...]] = {}
    values: dict[str, JsonValue] = {}
    lists = frozenset(port.name for port in description.inputs if port.kind == "images")
    for port in description.inputs:
        if port.kind in ("image", "images"):
            if port.name not in description.masks:
                images[port.name] = _images(description, port, given.get(port.name))
        elif port.name in given:
            values[port.name] = typed_value(description.schema_of(port), given[port.name])
        elif port.required:
            values[port.name] = value_of(description.schema_of(port))
    return SampleCall(images, values, lists)


def value_of(schema: Mapping[str, JsonValue], depth: int = 0) -> JsonValue:
    """Make a simple value that fits most schemas: default, example, first choice, lower limit.

    >>> value_of({"type": "integer", "minimum": 3}), value_of({"enum": ["x", "y"]})
    (3, 'x')
    >>> value_of({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}})
    {'a': 'a'}
    """
    known = _stated(schema)
    if known or depth > _DEEPEST:
        return known[0] if known else None
    definitions = schema.get("definitions")
    inner = _referred(schema, definitions)
    if inner is not None:
        return value_of(inner, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        return _object(schema, definitions, depth)
    if kind == "array":
        return _array(schema, definitions, depth)
    return _scalar(str(kind), schema)


def _stated(schema: Mapping[str, JsonValue]) -> list[JsonValue]:
    """Return the values that a schema states itself."""
    found = [schema[key] for key in ("default", "const") if key in schema]
    for key in ("examples", "enum"):
        choices = schema.get(key)
        found += choices if isinstance(choices, list) else []
    return found


def _referred(
    schema: Mapping[str, JsonValue], definitions: JsonValue
) -> dict[str, JsonValue] | None:
    """Return the schema that a `$ref` or the first branch of a choice names; None without one."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name == "Polygon":
        return {"default": _SQUARE}
    found = definitions.get(name) if isinstance(definitions, dict) else None
    for key in ("anyOf", "oneOf", "allOf"):
        branches = schema.get(key)
        if isinstance(branches, list) and branches:
            found = branches[0]
    return {**found, "definitions": definitions} if isinstance(found, dict) else None


def _object(schema: Mapping[str, JsonValue], definitions: JsonValue, depth: int) -> JsonValue:
    properties, required = schema.get("properties"), schema.get("required")
    found: dict[str, JsonValue] = {}
    for name in required if isinstance(required, list) else []:
        inner = properties.get(str(name)) if isinstance(properties, dict) else None
        body = inner if isinstance(inner, dict) else {}
        found[str(name)] = value_of({**body, "definitions": definitions}, depth + 1)
    return found


def _array(schema: Mapping[str, JsonValue], definitions: JsonValue, depth: int) -> JsonValue:
    items, least = schema.get("items"), schema.get("minItems")
    if isinstance(items, list):
        return [value_of({**cast("dict[str, JsonValue]", each), "definitions": definitions},
                         depth + 1) for each in items]  # fmt: skip
    body = items if isinstance(items, dict) else {}
    count = least if isinstance(least, int) else 0
    return [value_of({**body, "definitions": definitions}, depth + 1) for _ in range(count)]


def _scalar(kind: str, schema: Mapping[str, JsonValue]) -> JsonValue:
    if kind in ("number", "integer"):
        return _number(schema, is_integer=kind == "integer")
    value = _BY_TYPE.get(kind, "a")
    length = schema.get("minLength")
    if isinstance(value, str) and isinstance(length, int):
        return value * max(length, 1)
    return value


def _number(schema: Mapping[str, JsonValue], *, is_integer: bool) -> JsonValue:
    limits = {name: schema.get(name) for name in
              ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")}  # fmt: skip
    known = {name: each for name, each in limits.items() if isinstance(each, (int, float))}
    low = known.get("minimum", known.get("exclusiveMinimum"))
    high = known.get("maximum", known.get("exclusiveMaximum"))
    if low is None and high is None:
        return 1
    if is_integer:
        least = None if low is None else math.floor(low) + ("minimum" not in known or low % 1 > 0)
        return least if least is not None else math.ceil(cast("float", high)) - 1
    if low is not None and high is not None:
        return (low + high) / 2
    return low + 1 if low is not None else cast("float", high) - 1


def _images(description: Description, port: Port, given: JsonValue) -> tuple[Image, ...]:
    if given is not None:
        several = given if isinstance(given, list) else [given]
        return tuple(read_for(image_reference(each), port.raster) for each in several)
    image = made_image(description, port)
    return (image, image) if port.kind == "images" else (image,)


def made_image(description: Description, port: Port) -> Image:
    """Make an image for a port: its bands and dtype, random values, a CRS, a nodata value.

    The values are those of its classes, or 1 to 200, where the dtype has them.
    """
    step, spec = step_of(description), ImageSpec.of(port)
    ratio = description.ratio(port.name)
    quantum = max(step.quantum) if description.has_ratios else step.align
    rows, cols = (_side(each, quantum, step.least, step.most) for each in (_ROWS, _COLS))
    cols, rows = scaled_size((cols, rows), ratio)
    rng = np.random.default_rng(7)
    classes = port.raster.classes if port.raster else None
    if classes:
        pixels = rng.choice([each.value for each in classes], (spec.bands, rows, cols))
    else:
        most = min(np.iinfo(spec.dtype).max, 200) if np.dtype(spec.dtype).kind in "iu" else 200
        pixels = rng.integers(1, most, (spec.bands, rows, cols), endpoint=True)
    names = port.raster.bands if port.raster and isinstance(port.raster.bands, tuple) else ()
    is_number = spec.nodata is not None or np.dtype(spec.dtype).kind in "iu"
    return Image(
        np.ascontiguousarray(pixels.astype(spec.dtype)),
        crs=_CRS,
        transform=rescaled(_TRANSFORM, float(ratio.x), float(ratio.y)),
        nodata=(spec.nodata or 0) if is_number else None,
        bands=names,
    )


def _side(wanted: int, align: int, least: int, most: int | None) -> int:
    size = max(math.ceil(max(wanted, least) / align) * align, least)
    return min(size, most // align * align or most) if most is not None else size


def _in_base64(image: Image) -> str:
    return base64.b64encode(encode_image(image, "image/tiff")).decode("ascii")
