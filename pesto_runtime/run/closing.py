"""Run the activities after the chunks of a phase: mosaic, merge, reduce, call, and close_phase.

All of them are idempotent. They compute no blocks: missing blocks are reported as holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import ProductForm
from pesto_runtime.errors import Damaged, NotFound, PestoError, RunFailed, StoreFailed
from pesto_runtime.pipeline import VectorType, read_later
from pesto_runtime.places import RemotePath
from pesto_runtime.processor import encode_value
from pesto_runtime.raster.class_table import classified
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.identity import unchanged
from pesto_runtime.raster.image import Georeference
from pesto_runtime.raster.inheritance import product_bands
from pesto_runtime.raster.product import Blocks, Layout, Product, file_sha256, write_product
from pesto_runtime.raster.read import RasterReader
from pesto_runtime.run.builds import require_planned
from pesto_runtime.run.callers import planned_caller
from pesto_runtime.run.chunk_cache import keep_outputs, restore_outputs
from pesto_runtime.run.context import (
    RunContext,
    declared_classes,
    holed_name,
    is_blocked,
    load_context,
    missing_blocks,
    raster_name,
    scalars_name,
    stage_manifest_name,
    stored_blocks,
    vector_name,
)
from pesto_runtime.run.features import collection_text, crs_member, decode_block, located
from pesto_runtime.run.mosaics import has_mosaic, seal_mosaic
from pesto_runtime.run.ownership import OwnerBeat
from pesto_runtime.run.partials import folded_partial
from pesto_runtime.run.product_blocks import product_blocks
from pesto_runtime.run.product_overviews import write_with_overviews
from pesto_runtime.run.records import CostMeter
from pesto_runtime.run.repairing import blocks_in_order, complete, recorded_holes
from pesto_runtime.run.tile import in_stage
from pesto_runtime.run.tile_values import partial_indices
from pesto_runtime.tiling import block_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pydantic import JsonValue

    from pesto_runtime.contract import Window
    from pesto_runtime.pipeline import BoundStage, RasterType
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.callers import Caller


@dataclass(frozen=True)
class Mosaic:
    """A mosaicked raster.

    Attributes:
        product: The file.
        holes: Windows of blocks that are missing or have a hole, in the raster's own grid.
    """

    product: Product
    holes: tuple[Window, ...]


@dataclass(frozen=True)
class Merged:
    """A merged vector.

    Attributes:
        sha256: Checksum of the file, hexadecimal.
        size: Size of the file, bytes.
        features: Number of features.
        holes: Windows of blocks that are missing or have a hole, in the vector's own grid.
    """

    sha256: str
    size: int
    features: int
    holes: tuple[Window, ...]


def mosaic(
    plan_href: str, raster: str, path: AnyPath, *, form: ProductForm = ProductForm.TIF
) -> Mosaic:
    """Write a raster's blocks into one file or object.

    Missing blocks and holes are filled with the port's nodata, and reported.

    Args:
        plan_href: Href of the plan.
        raster: Reference of the raster.
        path: File to write.
        form: Whether it has overviews, and is cloud-optimised.

    Raises:
        RunFailed: there are holes, and the port has no nodata to fill them with.
        StoreFailed: disk full, or not writable.
    """
    context = load_context(plan_href)
    layout = _layout(context, raster)
    stored = stored_blocks(context, raster)
    holes = stored.missing_blocks
    if holes and layout.nodata is None:
        raise RunFailed(
            f"{len(holes)} blocks of {raster} failed, and its port declares no nodata to fill them "
            "with: nothing is published; run again, or declare nodata"
        )
    windows = tuple(block_window(index, context.sizes[raster]) for index in holes)
    if form is not ProductForm.TIF:
        return Mosaic(
            write_with_overviews(plan_href, raster, layout, stored, path, form=form), windows
        )
    with product_blocks(plan_href, raster, layout, stored) as (sizes, blocks):
        return Mosaic(write_product(path, layout, blocks, sizes=sizes), windows)


def merge(plan_href: str, vector: str, path: AnyPath) -> Merged:
    """Write a vector's features, in the CRS of the first scene, into one GeoJSON file.

    A block with a hole has the features of its other tiles, and is reported.

    Args:
        plan_href: Href of the plan.
        vector: Reference of the vector.
        path: File to write.

    Raises:
        StoreFailed: disk full, or not writable.
    """
    context = load_context(plan_href)
    holes: list[Window] = []
    features = _located(plan_href, vector, holes)
    count, digest, size = _write(path, features, crs=_crs(context, vector))
    return Merged(digest, size, count, tuple(holes))


def reduce(plan_href: str, stage_id: str) -> bool:
    """Fold a reduce's partials, row-major over the scene, and store the outputs of the result.

    Returns:
        False if a partial is missing; then nothing is stored.

    Raises:
        PestoError: the process fails to finish; the message names the stage.
    """
    context = load_context(plan_href)
    stage = context.stages[stage_id]
    blocks = partial_indices(context, stage_id)
    try:
        partial = folded_partial(context, stage_id, blocks)
    except Damaged:  # and deleted
        complete(plan_href, stage_id, recorded_holes(plan_href))
        partial = folded_partial(context, stage_id, blocks)
    if partial is None:
        return False
    if stage.is_folded:
        context.store.put_json(scalars_name(context, stage_id), partial)
    else:
        _finish(context, stage, lambda caller: caller.finish(partial))
    return True


def call(plan_href: str, stage_id: str) -> None:
    """Call a stage without images, and store its outputs, if not done yet.

    Raises:
        PestoError: the process fails; the message names the stage.
        NotFound: the stage of an input value has not finished.
    """
    context = load_context(plan_href)
    stage = context.stages[stage_id]
    restore_outputs(context, stage_id)
    if context.store.has(scalars_name(context, stage_id)):
        return
    inputs: dict[str, object] = dict(context.parameters(stage))
    _finish(context, stage, lambda caller: caller.run(inputs, tile=None))
    keep_outputs(context, stage_id)


def close_phase(plan_href: str, number: int) -> tuple[str, ...]:
    """Finish a phase: mosaic rasters, merge vectors, fold reduces, or call a stage without images.

    Rasters and vectors are completed only if a later phase reads them. Those with holes, and
    reduces that read them, are skipped.

    Returns:
        Ids of the stages that were skipped.

    Raises:
        PestoError: a process fails to finish, or the store cannot be written.
    """
    context = load_context(plan_href)
    OwnerBeat(context.plan).keep()
    phase = context.phases[number]
    if is_blocked(context, number):
        return tuple(stage.id for stage in (*phase.stages, *phase.reduces))
    if phase.kind == "call":
        call(plan_href, phase.stages[0].id)
        return ()
    later = read_later(context.phases, number)
    holes = recorded_holes(plan_href)
    for owner in later:
        if complete(plan_href, owner, holes):
            holes = recorded_holes(plan_href)
    for raster in later:
        if not missing_blocks(context, raster):
            materialise(plan_href, raster)
    return tuple(each for each in phase.values if not _reduced(plan_href, each))


def _reduced(plan_href: str, stage_id: str) -> bool:
    """Reduce; chunks whose partials are missing, although no tile of theirs failed, run again."""
    return reduce(plan_href, stage_id) or (
        complete(plan_href, stage_id, recorded_holes(plan_href)) and reduce(plan_href, stage_id)
    )


def materialise(plan_href: str, raster: str) -> None:
    """Mosaic a raster, or merge a vector, in the run store for later phases, if not done yet.

    Raises:
        RunFailed: it has holes.
        StoreFailed: disk full, or not writable.
        InvalidInput: the store is neither a local folder nor in a bucket.
    """
    context = load_context(plan_href)
    if isinstance(context.types[raster], VectorType):
        _materialise_vector(plan_href, raster)
        return
    path = context.store.place(raster_name(context, raster))
    if has_mosaic(context, raster):
        return
    try:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreFailed(f"{path.parent}: {error.strerror or error}") from error
    mosaicked = mosaic(plan_href, raster, path)
    if mosaicked.holes:
        path.unlink()
        raise RunFailed(f"{raster} has {len(mosaicked.holes)} holes; a later phase needs all of it")
    seal_mosaic(context, raster, mosaicked.product)


def _materialise_vector(plan_href: str, vector: str) -> None:
    """Merge a vector in the run store, if not done yet.

    Raises:
        RunFailed: it has holes.
        StoreFailed: the store cannot be written.
    """
    context = load_context(plan_href)
    name = vector_name(context, vector)
    if context.store.has(name):
        return
    holes: list[Window] = []
    features = list(_located(plan_href, vector, holes))
    if holes:
        raise RunFailed(f"{vector} has {len(holes)} holes; a later phase needs all of it")
    collection: dict[str, object] = {
        "type": "FeatureCollection",
        "crs": crs_member(_crs(context, vector)),
        "features": features,
    }
    context.store.put_json(name, collection)


def _finish(
    context: RunContext, stage: BoundStage, perform: Callable[[Caller], dict[str, object]]
) -> None:
    meter = CostMeter()
    require_planned(context.plan, [stage])
    try:
        caller = planned_caller(context.plan, stage.stage.process)
        with meter.call(stage.id):
            outputs = perform(caller)
    except PestoError as error:
        raise in_stage(error, stage.id) from error
    require_planned(context.plan, [stage])
    document = {name: encode_value(name, value) for name, value in outputs.items()}
    context.store.put_json(scalars_name(context, stage.id), dict(document))
    context.store.put_json(stage_manifest_name(context, stage.id), meter.manifest())


def _layout(context: RunContext, raster: str) -> Layout:
    """Return the header of a product, with what it inherits of the scene of its process.

    Raises:
        RunFailed: neither the contract nor the scene has the bands or the dtype.
        RasterUnreadable: the scene cannot be read.
        SceneChanged: it is not the one that was planned.
    """
    planned = context.raster_type(raster)
    width, height = context.sizes[raster]
    if planned.bands is None or len(planned.dtype) != 1:
        raise RunFailed(f"{raster}: its bands and dtype are not known; declare them at its port")
    scene = context.plan.scenes[planned.scene]
    with (
        unchanged(scene.href, scene.identity),
        raster_settings(),
        RasterReader(scene.href, scene.selection) as reader,
    ):
        georeference = _georeference(context, planned, reader.georeference)
        of_scene = reader.bands(planned.facts) if planned.facts else ()
    return Layout(
        width=width,
        height=height,
        count=len(planned.bands),
        dtype=planned.dtype[0],
        nodata=planned.nodata,
        georeference=georeference,
        bands=classified(
            product_bands(planned, of_scene),
            declared_classes(context, raster),
            planned.dtype[0],
        ),
        # An alpha band that is among the bands marks valid pixels itself.
        has_mask=bool(planned.mask) and all(each.colour != "alpha" for each in of_scene),
        compression=context.plan.compression,
    )


def _georeference(context: RunContext, planned: RasterType, of_scene: Georeference) -> Georeference:
    """Return the place of a product, with the tags of the scene that it inherits from."""
    own = context.raster_type(f"$inputs.{planned.scene}")
    if own.grid == planned.grid:
        scale = planned.scale / own.scale
        return of_scene.rescaled(float(scale.x), float(scale.y))
    place = context.place(planned)
    return Georeference(crs=place.crs, transform=place.transform, tags=of_scene.tags)


def _write(
    path: AnyPath, features: Iterable[dict[str, JsonValue]], *, crs: str | None
) -> tuple[int, str, int]:
    """Write features as one GeoJSON file; return their number, the file's sha256 and its bytes."""
    number = 0

    def chunks() -> Iterator[bytes]:
        nonlocal number
        for number, text in enumerate(collection_text(features, crs=crs)):  # noqa: B007  # counts
            yield text.encode()

    if isinstance(path, RemotePath):
        digest, size = path.write_chunks(chunks())
        return number - 1, digest, size
    try:
        with path.open("wb") as file:
            file.writelines(chunks())
    except OSError as error:
        raise StoreFailed(f"{path}: {error.strerror or error}") from error
    return number - 1, *file_sha256(path)  # the head is 0, the tail the last


def _located(plan_href: str, vector: str, holes: list[Window]) -> Iterator[dict[str, JsonValue]]:
    """Yield every feature in the scene's coordinates; appends blocks with holes to `holes`."""
    context = load_context(plan_href)
    size, transform = context.sizes[vector], context.place(context.grid_type(vector)).transform
    for blocks in blocks_in_order(plan_href, vector, stored_blocks(context, vector)):
        if isinstance(blocks, Blocks):
            texts = blocks.split()
        else:
            holes.append(block_window(blocks, size))
            texts = [_holed_block(context, vector, blocks)]
        for text in texts:
            for feature in decode_block(text):
                yield located(feature, transform)


def _holed_block(context: RunContext, vector: str, index: tuple[int, int]) -> bytes:
    try:
        return context.store.get(holed_name(context, vector, index))
    except Damaged:
        raise
    except NotFound:
        return b"[]"


def _crs(context: RunContext, vector: str) -> str | None:
    return context.place(context.grid_type(vector)).crs
