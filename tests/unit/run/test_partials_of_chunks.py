"""Partials are folded in chunks only where the order cannot be seen: one result for all chunks."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import Chunk, Pipeline
from pesto_runtime.errors import Damaged
from pesto_runtime.pipeline import Sizing
from pesto_runtime.processor import fold
from pesto_runtime.run.chunk import process
from pesto_runtime.run.closing import reduce
from pesto_runtime.run.context import begin_run, load_context, scalars_name
from pesto_runtime.run.partials import PartialWriter, blocks_with_partials, folded_partial
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.plan_files import save_plan
from pesto_runtime.run.planning import plan
from pesto_runtime.run.services import resolve_services
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.contract import Fold
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.tiling import BlockIndex

STATISTICS = '''
from typing import Annotated
import numpy as np
from pesto_runtime import Named, process


def finish(partial: dict) -> Annotated[list, Named("all")]:
    return [partial["counts"].tolist(), partial["total"], partial["places"], partial["top"]]


@process(
    version="1", finish=finish,
    reduce={"counts": "sum", "total": "sum", "places": "concat", "top": "max"},
)
def statistics(image: np.ndarray) -> dict[str, object]:
    """Return values of all folds."""
    values = image.astype(float) / 7
    return {
        "counts": np.bincount(image.ravel(), minlength=256),
        "total": float(values.sum()),
        "places": [float(values[0, 0, 0])],
        "top": int(image.max()),
    }
'''
FOLDS: dict[str, Fold] = {"counts": "sum", "total": "sum", "places": "concat", "top": "max"}
BLOCKS = list(itertools.product(range(3), range(4)))


def planned_run(tmp_path: Path) -> RunContext:
    """A run of a reduce over 3 x 4 blocks."""
    (tmp_path / "statistics.py").write_text(STATISTICS)
    pipeline = Pipeline.parse({
        "name": "statistics",
        "inputs": {"scene": "image"},
        "services": {"statistics": f"{tmp_path}/statistics.py:statistics"},
        "stages": [
            {"id": "s", "process": "statistics", "inputs": {"image": "$inputs.scene"}},
        ],
        "outputs": {"all": "$s.all"},
    })  # fmt: skip
    scene = write_scene(tmp_path / "s.tif", noise(1800, 1100))
    services = resolve_services(pipeline, base=tmp_path, options=(), catalog=None)
    inputs = read_inputs(pipeline, services, {"scene": str(scene)})
    planned = plan(
        pipeline, services, inputs, store=f"file://{tmp_path}/store",
        sizing=Sizing(workers=1, max_tasks=12, tile=512, memory_bytes=1 << 30), folder=tmp_path,
    ).plan  # fmt: skip
    return load_context(begin_run(planned))


def partial_of(index: BlockIndex) -> dict[str, object]:
    """A partial whose floating-point sum depends on the order."""
    random = np.random.default_rng(index[0] * 100 + index[1])
    return {
        "counts": random.integers(0, 1 << 62, 5),
        "total": float(random.normal() * 10.0 ** random.integers(-8, 8)),
        "places": [list(index)],
        "top": int(random.integers(0, 1000)),
    }


def whole() -> dict[str, object]:
    """All partials, folded row-major one by one."""
    result: dict[str, object] = {}
    for index in BLOCKS:
        result = fold(result, partial_of(index), FOLDS)
    return result


def written(context: RunContext, indices: Sequence[BlockIndex]) -> None:
    """Store the partials of some blocks as one chunk does."""
    writer = PartialWriter(context, context.stages["s"])
    for index in indices:
        writer.add(index, partial_of(index))
    writer.flush()


def require_whole(got: dict[str, object] | None) -> None:
    expected = whole()
    assert got is not None
    assert np.array_equal(np.asarray(got.pop("counts")), np.asarray(expected.pop("counts")))
    assert got == expected


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_division_into_chunks_gives_the_same_result(data: st.DataObject) -> None:
    """In any order, by any number of writers: the bits of sums, and the order of lists."""
    with tempfile.TemporaryDirectory() as folder:
        context = planned_run(Path(folder))
        order = data.draw(st.permutations(BLOCKS))
        cuts = sorted(data.draw(st.sets(st.integers(1, 11))))
        for start, stop in itertools.pairwise([0, *cuts, 12]):
            assert folded_partial(context, "s", BLOCKS) is None
            written(context, order[start:stop])
        require_whole(folded_partial(context, "s", BLOCKS))
        assert len(list(context.store.names("partials"))) == len(cuts) + 1


def test_the_order_of_the_sums_can_be_seen() -> None:
    """The control: folded in two halves, the bits of the total differ."""
    halves: list[dict[str, object]] = [{}, {}]
    for number, index in enumerate(BLOCKS):
        half = halves[number % 2]
        halves[number % 2] = fold(half, partial_of(index), FOLDS)
    assert fold(halves[0], halves[1], FOLDS)["total"] != whole()["total"]


def test_only_objects_near_a_chunk_are_read(tmp_path: Path) -> None:
    """Those of other chunks may be many."""
    context = planned_run(tmp_path)
    written(context, BLOCKS[:4])
    written(context, BLOCKS[8:])
    assert blocks_with_partials(context, "s", [(0, 1)]) == set(BLOCKS[:4])
    assert blocks_with_partials(context, "s", [(1, 1)]) == set()
    assert blocks_with_partials(context, "s") == {*BLOCKS[:4], *BLOCKS[8:]}


def test_an_object_that_repeats_blocks_is_made_again(tmp_path: Path) -> None:
    """Two attempts at a chunk at once: no block counts twice."""
    context = planned_run(tmp_path)
    written(context, BLOCKS[:6])
    written(context, BLOCKS[5:])
    with pytest.raises(Damaged, match="repeats blocks"):
        folded_partial(context, "s", BLOCKS)
    missing = set(BLOCKS) - blocks_with_partials(context, "s")
    written(context, sorted(missing))
    require_whole(folded_partial(context, "s", BLOCKS))


def test_a_damaged_object_is_computed_again_by_the_reduce(tmp_path: Path) -> None:
    """Its chunks run again, and only these."""
    context = planned_run(tmp_path)
    href = save_plan(context.plan)
    for number in range(len(context.plan.phases[0].chunks)):
        process(Chunk(plan=href, phase=0, start=number, stop=number + 1))
    assert reduce(href, "s")
    right = context.store.get_json(scalars_name(context, "s"))
    lost = tmp_path / "store" / next(context.store.names("partials"))
    lost.write_bytes(lost.read_bytes()[:-3])
    assert reduce(href, "s")
    assert context.store.get_json(scalars_name(context, "s")) == right
