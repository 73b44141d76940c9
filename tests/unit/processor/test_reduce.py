"""A reduce is a partial and a finish; a call does both, and nothing valid is said by name."""

from typing import Annotated, TypedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.errors import AlgorithmFailed, ContractBroken, InvalidInput, NothingValid
from pesto_runtime.processor import (
    FunctionProcessor,
    Named,
    contract_of,
    decode_partial,
    encode_partial,
    fold,
    process,
)


class Statistics(TypedDict):
    """Outputs of the finish."""

    mean: float
    histogram: list[int]


class Counts(TypedDict):
    """Keys of the partial."""

    total: int | None
    count: int | None
    histogram: np.ndarray | None


def finish(partial: dict[str, object]) -> Statistics:
    histogram = partial["histogram"]
    assert isinstance(histogram, np.ndarray)
    return {"mean": partial["total"] / partial["count"], "histogram": histogram}  # type: ignore[operator,typeddict-item]  # numpy is turned into JSON


@process(reduce={"total": "sum", "count": "sum", "histogram": "sum"}, finish=finish)
def statistics(scene: np.ndarray, extra: dict[str, int] | None = None) -> Counts:
    """Measure a scene; zeros are no data."""
    valid = scene[scene > 0]
    if not valid.size:
        return {"total": None, "count": None, "histogram": None}
    counts: Counts = {
        "total": valid.sum(), "count": valid.size, "histogram": np.bincount(valid, minlength=8)
    }  # fmt: skip
    return counts | (extra or {})  # type: ignore[return-value]  # a test breaks it on purpose


def performing(function: object) -> FunctionProcessor:
    contract = contract_of(function)
    assert contract is not None
    return FunctionProcessor(contract, "sha256:0")


@given(st.lists(st.integers(0, 7), min_size=1, max_size=40), st.data())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_blocks_folded_and_finished_equal_the_whole(pixels, data):
    """However the pixels are cut, and over the wire between the steps."""
    processor = performing(statistics)
    scene = np.array(pixels, dtype=np.uint8).reshape(1, 1, -1)
    cuts = data.draw(st.sets(st.integers(1, max(1, len(pixels) - 1)), max_size=4))
    blocks = [each for each in np.split(scene, sorted(cuts), axis=2) if each.size]
    merged: dict[str, object] = {}
    for block in blocks:
        partial = decode_partial(encode_partial(processor.partial({"scene": block})))
        merged = fold(merged, partial, processor.description.folds)
    if not scene.any():
        with pytest.raises(NothingValid, match="statistics"):
            processor.finish(merged)
        return
    assert processor.finish(merged) == processor.run({"scene": scene})
    assert processor.finish(merged)["mean"] == scene[scene > 0].mean()


def test_a_call_without_anything_valid_refuses_by_name():
    """Every key null: the finish of the author is not even called."""
    with pytest.raises(NothingValid, match="statistics: "):
        performing(statistics).run({"scene": np.zeros((1, 2, 2), np.uint8)})
    with pytest.raises(NothingValid, match="statistics: "):
        performing(statistics).finish({})


def test_a_key_that_no_fold_names_is_refused_on_both_ways():
    """From the author it is a broken contract, from a caller a bad input."""
    processor = performing(statistics)
    with pytest.raises(ContractBroken, match=r"statistics: its partial must be a dict with keys"):
        processor.partial({"scene": np.ones((1, 1, 1), np.uint8), "extra": {"more": 1}})
    with pytest.raises(InvalidInput, match="/more: is not a key of"):
        processor.finish({"more": 1})


def test_a_partial_that_is_not_finite_is_refused_by_key():
    """JSON could not carry it to the next task."""
    processor = performing(statistics)
    bad = {"scene": np.ones((1, 1, 1), np.uint8), "extra": {"total": 1}}
    assert processor.partial(bad)["total"] == 1

    @process(reduce={"low": "min"}, finish=lowest)
    def low(scene: np.ndarray) -> dict[str, float]:
        return {"low": float("inf")}

    with pytest.raises(ContractBroken, match="'low' is inf"):
        performing(low).partial({"scene": np.ones((1, 1, 1))})


def lowest(partial: dict[str, float]) -> Annotated[float, Named("lowest")]:
    return partial["lowest"]


def test_an_exception_in_finish_is_the_algorithms_failure():
    """It is told as any other, with the line."""

    @process(reduce={"low": "min"}, finish=lowest)
    def low(scene: np.ndarray) -> dict[str, float]:
        return {"low": float(scene.min())}

    with pytest.raises(AlgorithmFailed, match=r"finish of low: KeyError: 'lowest' \(test_reduce"):
        performing(low).run({"scene": np.ones((1, 1, 1))})


def test_what_is_no_reduce_has_neither_partial_nor_finish():
    """Asking for one is a bad input, not a crash."""

    @process
    def plain(scene: np.ndarray) -> np.ndarray:
        return scene

    with pytest.raises(InvalidInput, match="plain is not a reduce"):
        performing(plain).partial({"scene": np.ones((1, 1, 1))})
    with pytest.raises(InvalidInput, match="plain is not a reduce"):
        performing(plain).finish({})


def test_a_partial_may_leave_keys_out():
    """A TypedDict partial need not be total: an absent key is skipped when partials fold."""

    class Sparse(TypedDict, total=False):
        lowest: float

    @process(reduce={"lowest": "min"}, finish=lowest)
    def low(scene: np.ndarray) -> Sparse:
        return {"lowest": float(scene.min())} if scene.any() else {}

    processor = performing(low)
    assert processor.partial({"scene": np.zeros((1, 1, 1))}) == {}
    merged = fold({}, processor.partial({"scene": np.full((1, 1, 1), 3)}), {"lowest": "min"})
    assert processor.finish(merged) == {"lowest": 3.0}
