"""Cut the images of a run to a window, or to an area on Earth."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Window, parse_window
from pesto_runtime.contract.image_lists import list_of
from pesto_runtime.errors import InvalidInput, shortened
from pesto_runtime.pipeline import completed, places_of_images
from pesto_runtime.run.pipeline_inputs import (
    band_names,
    given_images,
    image_of_input,
    with_images,
)
from pesto_runtime.tiling import scaled_window, tile_quantum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Pipeline
    from pesto_runtime.run.services import Services


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
        window: `COL_OFF,ROW_OFF,WIDTH,HEIGHT`, pixels of the first image that is not only the
            source of a warp; others of its grid are cut to the same area.
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
    typed = completed(pipeline, services.descriptions)
    wanted = band_names(typed, services.descriptions)
    images = {
        name: image_of_input(value, wanted.get(list_of(name), ()), None)
        for name, value in given_images(typed, given).items()
    }
    if any(name not in typed.inputs for name in given):
        return dict(given)  # the check lists these names, and the existing ones
    if not images:
        raise InvalidInput("--window and --aoi cut images, and none is given: -i NAME=FILE")
    cut = [name for name, image in images.items() if image.window is not None]
    if cut:
        raise InvalidInput(f"input {cut[0]!r} has a window already; remove it, or the option")
    warped = _warped_alone(typed, services.descriptions)
    images = dict(sorted(images.items(), key=lambda each: each[0] in warped))
    if window is not None:
        found = parse_window(_numbers(window, "--window", int))
    else:
        from pesto_runtime.raster.area import window_of_area  # loads rasterio

        found = window_of_area(next(iter(images.values())), _area(area or ""))
    cut_images = {
        name: images[name].model_copy(update={"window": each})
        for name, each in _own_windows(
            typed, services.descriptions, list(images), found, exact=area is None
        ).items()
    }
    return with_images(given, {name: str(image) for name, image in cut_images.items()})


def _warped_alone(pipeline: Pipeline, descriptions: Mapping[str, Description]) -> set[str]:
    """Return the inputs that are sources of warps, and nothing else."""
    sources: set[str] = set()
    others: set[str] = set()
    for stage in pipeline.stages:
        description = descriptions.get(stage.process)
        for port, value in stage.inputs.items():
            is_source = description is not None and description.is_warp and port == "image"
            (sources if is_source else others).add(str(value).removeprefix("$inputs."))
    return sources - others


def _own_windows(
    pipeline: Pipeline,
    descriptions: Mapping[str, Description],
    images: Sequence[str],
    window: Window,
    *,
    exact: bool,
) -> dict[str, Window]:
    """Return the window of each image on the grid of the first, from that of the first.

    Args:
        pipeline: Its inputs have types.
        descriptions: Process name -> description.
        images: Names of the images, the first one first.
        window: In pixels of the first image.
        exact: Whether to refuse a window that is no whole pixels of another image, and not to
            extend it.

    Raises:
        InvalidInput: it is refused.
    """
    places = places_of_images(pipeline, descriptions, images)
    first = places[images[0]]
    scales = {n: p.scale / first.scale for n, p in places.items() if p.grid == first.grid}
    across, down = tile_quantum(scales.values())
    edges = (
        window.col_off // across * across,
        window.row_off // down * down,
        -(-window.col_stop // across) * across,
        -(-window.row_stop // down) * down,
    )
    whole = Window.spanning(*edges)
    if exact and whole != window:
        raise InvalidInput(
            f"--window {list(window)} is no whole pixels of all images: offsets and sizes are "
            f"multiples of {across} x {down} pixels of {images[0]!r}, as {list(whole)}"
        )
    return {name: scaled_window(whole, scale) for name, scale in scales.items()}


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
