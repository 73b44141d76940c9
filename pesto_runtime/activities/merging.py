"""The verb `merge`: join the features of a vector's blocks into one FeatureCollection.

Idempotent, and the same bytes however the scene was cut up: blocks row-major, the features of each
in their own order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.activities.context import (
    RunContext,
    feature_name,
    load_context,
    spoilt_name,
    vector_name,
)
from pesto_runtime.activities.gather import decode_block
from pesto_runtime.activities.geojson import collection_text, crs_member, located
from pesto_runtime.errors import NotFound, RunFailed, StoreFailed
from pesto_runtime.raster import file_sha256, rescaled
from pesto_runtime.tiling import block_window, blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Window
    from pesto_runtime.raster.image import Transform


@dataclass(frozen=True)
class Merged:
    """A vector put together.

    Attributes:
        sha256: Of the file, hexadecimal.
        size: Of the file, bytes.
        features: How many.
        holes: Windows of blocks that are not there whole, in the vector's own grid.
    """

    sha256: str
    size: int
    features: int
    holes: tuple[Window, ...]


def merge(plan_href: str, vector: str, path: Path) -> Merged:
    """Write a vector's features, in the CRS of the first scene, into one GeoJSON file.

    Of a block with a hole there are the features of its other tiles; it is told.

    Raises:
        StoreFailed: disk full, or not writable.
    """
    context = load_context(plan_href)
    holes: list[Window] = []
    features = _located(context, vector, holes)
    count = _write(path, features, crs=_scene_crs(context))
    digest, size = file_sha256(path)
    return Merged(digest, size, count, tuple(holes))


def materialise_vector(plan_href: str, vector: str) -> None:
    """Put a vector together inside the run store, for a later phase to take as a value; once.

    Raises:
        RunFailed: it has holes.
        StoreFailed: the store cannot be written.
    """
    context = load_context(plan_href)
    name = vector_name(context, vector)
    if name in context.store.names("vectors"):
        return
    holes: list[Window] = []
    features = list(_located(context, vector, holes))
    if holes:
        raise RunFailed(f"{vector} has {len(holes)} holes; a later phase needs all of it")
    collection: dict[str, object] = {
        "type": "FeatureCollection",
        "crs": crs_member(_scene_crs(context)),
        "features": features,
    }
    context.store.put_json(name, collection)


def _write(path: Path, features: Iterable[dict[str, JsonValue]], *, crs: str | None) -> int:
    """Write features as one GeoJSON file; answers how many."""
    number = 0
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for number, text in enumerate(collection_text(features, crs=crs)):  # noqa: B007  # counts
                file.write(text)
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error
    return number - 1  # the head is 0, the tail the last


def _located(
    context: RunContext, vector: str, holes: list[Window]
) -> Iterator[dict[str, JsonValue]]:
    """Every feature in the scene's coordinates; blocks that are not whole are noted in `holes`."""
    size, transform = context.sizes[vector], _transform(context, vector)
    for index in blocks_of(size):
        try:
            data = context.store.get(feature_name(context, vector, index))
        except NotFound:
            holes.append(block_window(index, size))
            data = _spoilt(context, vector, index)
        for feature in decode_block(data):
            yield located(feature, transform)


def _spoilt(context: RunContext, vector: str, index: tuple[int, int]) -> bytes:
    try:
        return context.store.get(spoilt_name(context, vector, index))
    except NotFound:
        return b"[]"


def _scene_crs(context: RunContext) -> str | None:
    return next((scene.crs for scene in context.plan.scenes.values()), None)


def _transform(context: RunContext, vector: str) -> Transform | None:
    scene = next(iter(context.plan.scenes.values()))
    scale = context.grid_type(vector).scale
    if scene.transform is None:
        return None
    return rescaled(scene.transform, float(scale.x), float(scale.y))
