"""Check the outputs of a service: schemas, dtypes, defaults, georeference, masks, tiles."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from pesto_runtime.contract import RasterContract
from pesto_runtime.errors import InvalidInput, PestoError
from pesto_runtime.kit.check_list import check
from pesto_runtime.kit.claims import NotApplicable, require
from pesto_runtime.kit.service_under_test import shown
from pesto_runtime.probing.probe import probe
from pesto_runtime.raster.image import Image
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Port
    from pesto_runtime.kit.service_under_test import ServiceUnderTest

_TIFF = "image/tiff"
_PROBE_S = 10.0
_PROBE_LIMIT = 16


@check
def a_call_returns_the_declared_outputs(service: ServiceUnderTest) -> None:
    """A call returns all outputs that the description requires, and no output beside it."""
    outputs = service.outputs()
    declared = [port.name for port in service.description.outputs]
    extra = [name for name in outputs if name not in declared]
    require(not extra, f"returns {extra}, which the description does not declare")
    missing = [
        port.name
        for port in service.description.outputs
        if port.required and outputs.get(port.name) is None
    ]
    require(not missing, f"does not return {missing}, which the description requires")
    require(outputs or not declared, "returns no output")


@check
def outputs_fit_their_schemas(service: ServiceUnderTest) -> None:
    """Each JSON output fits the schema of its port."""
    ports = [port for port in service.description.outputs if port.kind in ("json", "vector")]
    outputs = service.outputs()
    tested = [port for port in ports if port.name in outputs]
    if not tested:
        raise NotApplicable("the call returns no JSON output")
    for port in tested:
        value = cast("JsonValue", outputs[port.name])
        faults = list(schema_faults(service.description.schema_of(port), value,
                                    pointer=f"/{port.name}"))  # fmt: skip
        require(not faults, "; ".join(map(str, faults)))


@check
def images_are_as_promised(service: ServiceUnderTest) -> None:
    """Each image output has the dtype and the bands that its `x-raster` declares."""
    outputs = service.outputs()
    tested = 0
    for port in service.description.outputs:
        for pixels in _arrays(outputs.get(port.name)):
            if port.raster is None:
                continue
            bands, dtypes = port.raster.band_count, port.raster.dtype
            tested += bands is not None or bool(dtypes)
            require(
                bands in (None, pixels.shape[0]),
                f"{port.name}: declared {bands} bands, returned {pixels.shape[0]}",
            )
            require(
                not dtypes or pixels.dtype.name in dtypes,
                f"{port.name}: declared {' or '.join(dtypes)}, returned {pixels.dtype.name}",
            )
    if not tested:
        raise NotApplicable("the description declares neither dtype nor bands of an image output")


@check
def dtypes_do_not_change_on_the_way(service: ServiceUnderTest) -> None:
    """An output that has the dtype of its input has it for each dtype that the input accepts."""
    tested = 0
    for port, output in _inheriting(service):
        for dtype in (port.raster and port.raster.dtype) or ("uint8", "uint16", "float32"):
            images = service.sample.images[port.name]
            cast_images = tuple(replace(each, pixels=each.pixels.astype(dtype)) for each in images)
            call = replace(service.sample, images={**service.sample.images, port.name: cast_images})
            for pixels in _arrays(service.outputs(call).get(output.name)):
                tested += 1
                require(
                    pixels.dtype.name == dtype,
                    f"{output.name}: {dtype} in, {pixels.dtype.name} out",
                )
    if not tested:
        raise NotApplicable("no output declares that it has the dtype of an input")


@check
def the_same_call_returns_the_same_outputs(service: ServiceUnderTest) -> None:
    """Two equal calls return equal outputs, also if images arrive in base64 or in another form."""
    first, second = service.outputs(), service.outputs(service.sample)
    require(equal_outputs(first, second), f"outputs differ: {_difference(first, second)}")
    other = service.client_outputs()
    require(equal_outputs(first, other), f"base64 gives other outputs: {_difference(first, other)}")


@check
def an_absent_input_has_its_default(service: ServiceUnderTest) -> None:
    """A call without an optional input equals a call with its default."""
    ports = [port for port in service.description.inputs if port.has_default]
    ports = [port for port in ports if port.kind in ("json", "vector") and not port.required]
    if not ports:
        raise NotApplicable("no input has a default")
    for port in ports:
        without = service.sample.without(port.name)
        given = replace(without, values={**without.values, port.name: port.schema["default"]})
        absent, present = service.outputs(without), service.outputs(given)
        require(
            equal_outputs(absent, present),
            f"without {port.name!r} the outputs are not those of its default "
            f"{port.schema['default']!r}: {_difference(absent, present)}",
        )


@check
def crs_and_transform_survive(service: ServiceUnderTest) -> None:
    """An image output on the grid of the first image has its CRS and transform."""
    first = _first_image(service)
    for name, image, port in _images_on(service, first):
        scale = port.raster.scale if port.raster else None
        x, y = (float(scale.x), float(scale.y)) if scale else (1.0, 1.0)
        require(image.crs == first.crs, f"{name}: CRS {first.crs} in, {image.crs} out")
        a, b, c, d, e, f = first.transform or (0.0,) * 6
        expected = (a / x, b / y, c, d / x, e / y, f)
        require(
            image.transform is not None and all(map(math.isclose, image.transform, expected)),
            f"{name}: transform {expected} expected, {image.transform} returned",
        )


@check
def nodata_survives(service: ServiceUnderTest) -> None:
    """An image output has the nodata that it declares, or else that of an input of its type."""
    first = _first_image(service)
    tested = 0
    for name, image, port in _images_on(service, first):
        contract = _contract(service, port)
        if contract is None:
            continue
        declares = "nodata" in contract.model_fields_set
        other_type = contract.bands is not None or image.pixels.dtype != first.pixels.dtype
        if other_type and not declares:
            continue
        expected = contract.nodata if declares else first.nodata
        if expected is None and not declares:
            continue
        tested += 1
        same = image.nodata == expected or (_is_nan(image.nodata) and _is_nan(expected))
        require(same, f"{name}: nodata {expected} expected, {image.nodata} returned")
    if not tested:
        raise NotApplicable("no image output declares nodata, or inherits it")


@check
def an_absent_mask_is_made_from_nodata(service: ServiceUnderTest) -> None:
    """A call without a mask equals a call with the mask of the image's nodata."""
    masks = service.description.masks
    if not masks:
        raise NotApplicable("the process takes no mask")
    for mask, name in masks.items():
        (image, *_) = service.sample.images[name]
        if image.nodata is None:
            raise NotApplicable(f"the image {name!r} has no nodata")
        pixels = image.pixels.copy()
        pixels[:, :5, :7] = image.nodata
        holed = replace(image, pixels=pixels)
        without = replace(service.sample, images={**service.sample.images, name: (holed,)})
        is_missing = np.isnan(pixels) if _is_nan(image.nodata) else pixels == image.nodata
        valid = (
            ~is_missing if mask in service.description.band_masks else ~is_missing.all(axis=0)[None]
        )
        given = replace(without, images={
            **without.images, mask: (Image(np.where(valid, 255, 0).astype(np.uint8)),)
        })  # fmt: skip
        absent, present = service.outputs(without), service.outputs(given)
        require(
            equal_outputs(absent, present),
            f"without {mask!r}: {_difference(absent, present)}",
        )


@check
def tiled_equals_whole(service: ServiceUnderTest) -> None:
    """Windows with the declared margin give the pixels of the whole image."""
    description = service.description
    if description.tileable == "whole":
        raise NotApplicable("the process does not declare that it can be tiled")
    service.require_accepted()
    texts = {name: _text(value) for name, value in service.sample.values.items()}
    try:
        report = probe(service.url, texts, limit=_PROBE_LIMIT, seconds=_PROBE_S)
    except InvalidInput as error:
        raise NotApplicable(error.detail) from error
    except PestoError as error:
        raise AssertionError(str(error)) from error
    require(not report.faults, "; ".join(map(str, report.faults)))


@check
def an_example_returns_its_outputs(service: ServiceUnderTest) -> None:
    """Each example of the description returns the outputs that it states."""
    examples = service.description.known.examples
    if not examples:
        raise NotApplicable("the description has no examples")
    for number, example in enumerate(examples):
        answer = service.post(example.inputs)
        require(answer.status_code == 200, f"example {number}: {shown(answer)}")
        found = service.decoded(answer)
        for name, expected in example.outputs.items():
            require(
                name in found and _near(expected, found[name], example.tolerance),
                f"example {number}: {name} should be {expected!r}, not {found.get(name)!r}",
            )


def _near(expected: object, found: object, tolerance: float) -> bool:
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            key in found and _near(each, found[key], tolerance) for key, each in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(_near(*pair, tolerance) for pair in zip(expected, found, strict=True))
        )
    is_number = isinstance(expected, (int, float)) and not isinstance(expected, bool)
    if is_number and isinstance(found, (int, float)):
        return abs(cast("float", expected) - found) <= tolerance
    return expected == found


def _arrays(value: object) -> list[np.ndarray]:
    several = value if isinstance(value, list) else [value]
    return [each for each in several if isinstance(each, np.ndarray)]


def equal_outputs(left: Mapping[str, object], right: Mapping[str, object]) -> bool:
    """Whether two calls returned the same outputs, in every pixel."""
    return left.keys() == right.keys() and all(
        _same(value, right[name]) for name, value in left.items()
    )


def _same(left: object, right: object) -> bool:
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        is_float = left.dtype.kind in "fc" and right.dtype.kind in "fc"
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=is_float)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right


def _difference(left: Mapping[str, object], right: Mapping[str, object]) -> str:
    names = [
        name
        for name in {**left, **right}
        if name not in left or name not in right or not _same(left[name], right[name])
    ]
    return ", ".join(names)


def _inheriting(service: ServiceUnderTest) -> list[tuple[Port, Port]]:
    """Return the first image input, and each image output that declares no dtype."""
    images = [
        port for port in service.description.data_inputs if port.name in service.sample.images
    ]
    if not images or (images[0].raster is not None and images[0].raster.scaled):
        return []
    outputs = [
        port
        for port in service.description.outputs
        if port.kind == "image"
        and (contract := _contract(service, port)) is not None
        and not contract.dtype
    ]
    return [(images[0], port) for port in outputs]


def _first_image(service: ServiceUnderTest) -> Image:
    for port in service.description.data_inputs:
        if port.name in service.sample.images:
            return service.sample.images[port.name][0]
    raise NotApplicable("the process takes no single image")


def _images_on(service: ServiceUnderTest, first: Image) -> list[tuple[str, Image, Port]]:
    """Return the image outputs that cover the first image at the scale of their port."""
    found = []
    for name, value in service.client_outputs(accept=_TIFF).items():
        port = service.description.output(name)
        if not isinstance(value, Image) or port is None:
            continue
        scale = port.raster.scale if port.raster else None
        rows, cols = first.pixels.shape[1:]
        x, y = (scale.x, scale.y) if scale else (1, 1)
        if value.pixels.shape[1:] == (rows * y, cols * x):
            found.append((name, value, port))
    if not found:
        raise NotApplicable("no image output lies on the grid of the first image")
    return found


def _contract(service: ServiceUnderTest, port: Port) -> RasterContract | None:
    """Return what an image port declares: nothing, and so it inherits; None for PESTO 1.7.2."""
    return port.raster or (None if service.client.described.is_plain_pesto else RasterContract())


def _is_nan(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def _text(value: JsonValue) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)
