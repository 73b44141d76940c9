"""The verbs that end a phase: `mosaic` its blocks, `reduce` its partials, `call` what has no image.

All of them are idempotent, and none makes up what is missing: a raster with holes says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import NotFound, PestoError, RunFailed, StoreFailed
from pesto_runtime.pipeline import VectorType, read_later
from pesto_runtime.processor import decode_partial, encode_value, fold
from pesto_runtime.raster.block_codec import BlockCodec
from pesto_runtime.raster.image import rescaled
from pesto_runtime.raster.metadata import BandFacts
from pesto_runtime.raster.product import Layout, discard_unfinished, file_sha256, write_product
from pesto_runtime.raster.read import RasterReader, raster_settings
from pesto_runtime.run.callers import caller_for
from pesto_runtime.run.context import (
    RunContext,
    block_name,
    blocks_missing,
    blocks_there,
    feature_name,
    is_blocked,
    load_context,
    partial_name,
    raster_name,
    scalars_name,
    spoilt_name,
    stage_manifest_name,
    vector_name,
)
from pesto_runtime.run.features import collection_text, crs_member, decode_block, located
from pesto_runtime.run.records import CostMeter
from pesto_runtime.run.tile import in_stage
from pesto_runtime.tiling import block_window, blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Window
    from pesto_runtime.pipeline import BoundStage
    from pesto_runtime.raster.image import Transform
    from pesto_runtime.raster.product import Product
    from pesto_runtime.run.callers import Caller
    from pesto_runtime.tiling import BlockIndex


@dataclass(frozen=True)
class Mosaic:
    """A raster put together.

    Attributes:
        product: The file.
        holes: Windows of blocks that are not there whole, in the raster's own grid.
    """

    product: Product
    holes: tuple[Window, ...]


def mosaic(plan_href: str, raster: str, path: Path) -> Mosaic:
    """Put a raster's blocks together into one file; resumes where it was killed.

    Blocks that are not there, or have a hole, are filled with the port's nodata and told.

    Raises:
        RunFailed: there are holes, and the port has no nodata to fill them with.
        StoreFailed: disk full, or not writable.
    """
    context = load_context(plan_href)
    layout = _layout(context, raster)
    there = blocks_there(context, raster)
    size = context.sizes[raster]
    holes = tuple(index for index in blocks_of(size) if index not in there)
    if holes and layout.nodata is None:
        raise RunFailed(
            f"{raster} has {len(holes)} blocks that could not be made, and its port declares no "
            "nodata to fill them with: nothing is published; run again, or declare nodata"
        )
    if holes:  # other tiles may have failed when an unfinished file was begun
        discard_unfinished(path)
    blocks = _blocks(context, raster, layout, there)
    key = f"{context.plan.keys[raster]}-{len(holes)}"
    product = write_product(path, layout, blocks, key=key)
    return Mosaic(product, tuple(block_window(index, size) for index in holes))


def materialise(plan_href: str, raster: str) -> None:
    """Put a raster or a vector together inside the run store, for a later phase to read; once.

    Raises:
        RunFailed: it has holes.
        StoreFailed: disk full, or not writable.
        InvalidInput: the store is not a local folder.
    """
    context = load_context(plan_href)
    if isinstance(context.types[raster], VectorType):
        materialise_vector(plan_href, raster)
        return
    path = context.store.path(raster_name(context, raster))
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreFailed(f"{path.parent}: {error.strerror or error}") from error
    made = mosaic(plan_href, raster, path)
    if made.holes:
        path.unlink()
        raise RunFailed(f"{raster} has {len(made.holes)} holes; a later phase needs all of it")


def reduce(plan_href: str, stage_id: str) -> bool:
    """Fold a reduce's partials, row-major over the scene, and finish them.

    Returns:
        False where a partial is missing: then nothing is made.

    Raises:
        PestoError: the process refuses to finish; names the stage.
    """
    context = load_context(plan_href)
    stage = context.stages[stage_id]
    size = context.sizes[str(next(iter(stage.rasters.values())))]
    merged: dict[str, object] | None = None
    for index in blocks_of(size):
        try:
            document = context.store.get_json(partial_name(context, stage_id, index))
        except NotFound:
            return False
        partial = decode_partial(document if isinstance(document, dict) else {})
        folds = stage.description.folds
        merged = partial if merged is None else fold(merged, partial, folds)
    _finish(context, stage, lambda caller: caller.finish(merged or {}))
    return True


def call(plan_href: str, stage_id: str) -> None:
    """Perform a stage without images.

    Raises:
        PestoError: the process fails; names the stage.
        NotFound: a value that it needs was not made.
    """
    context = load_context(plan_href)
    stage = context.stages[stage_id]
    if scalars_name(context, stage_id) in context.store.names("scalars"):
        return
    inputs: dict[str, object] = dict(context.parameters(stage))
    _finish(context, stage, lambda caller: caller.run(inputs, tile=None))


def close_phase(plan_href: str, number: int) -> tuple[str, ...]:
    """Do what a phase owes once its chunks are done; call what has no image.

    The rasters that later phases read are put together, and the phase's reduces are folded; what
    has holes is left out.

    Returns:
        Ids of stages that could not be made.

    Raises:
        PestoError: a process refuses to finish, or the store cannot be written.
    """
    context = load_context(plan_href)
    phase = context.phases[number]
    if is_blocked(context, number):
        return tuple(stage.id for stage in (*phase.stages, *phase.reduces))
    if phase.kind == "call":
        call(plan_href, phase.stages[0].id)
        return ()
    for raster in read_later(context.phases, number):
        if not blocks_missing(context, raster):
            materialise(plan_href, raster)
    return tuple(stage.id for stage in phase.reduces if not reduce(plan_href, stage.id))


def _finish(
    context: RunContext, stage: BoundStage, perform: Callable[[Caller], dict[str, object]]
) -> None:
    meter = CostMeter()
    try:
        caller = caller_for(context.plan.services[stage.stage.process])
        with meter.call(stage.id):
            outputs = perform(caller)
    except PestoError as error:
        raise in_stage(error, stage.id) from error
    document = {name: encode_value(name, value) for name, value in outputs.items()}
    context.store.put_json(scalars_name(context, stage.id), dict(document))
    context.store.put_json(stage_manifest_name(context, stage.id), meter.manifest())


def _layout(context: RunContext, raster: str) -> Layout:
    """A product's header: place and tags of the first scene, band facts of the port."""
    made = context.raster_type(raster)
    width, height = context.sizes[raster]
    if made.bands is None or len(made.dtype) != 1:
        raise RunFailed(f"{raster}: its bands and dtype are not known; declare them at its port")
    scene = next(iter(context.plan.scenes.values()))
    with raster_settings(), RasterReader(scene.href) as reader:
        place = reader.georeference.rescaled(float(made.scale.x), float(made.scale.y))
    return Layout(
        width=width,
        height=height,
        count=len(made.bands),
        dtype=made.dtype[0],
        nodata=made.nodata,
        georeference=place,
        bands=tuple(BandFacts(description=name) for name in made.bands),
    )


def _blocks(
    context: RunContext, raster: str, layout: Layout, there: set[BlockIndex]
) -> Iterator[bytes]:
    """A raster's compressed blocks, row-major; what is missing is nodata."""
    for index in blocks_of((layout.width, layout.height)):
        if index in there:
            yield context.store.get(block_name(context, raster, index))
            continue
        try:
            yield context.store.get(spoilt_name(context, raster, index))
        except NotFound:
            yield _empty_block(layout, index)


def _empty_block(layout: Layout, index: BlockIndex) -> bytes:
    window = block_window(index, (layout.width, layout.height))
    shape = (layout.count, window.height, window.width)
    codec = BlockCodec(layout.count, layout.dtype)
    return codec.compress(np.full(shape, layout.nodata, layout.dtype))


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
