"""Partials fold from left to right, skip what is not there, and travel without loss."""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import Fold
from pesto_runtime.errors import ContractBroken, InvalidInput
from pesto_runtime.processor import decode_partial, encode_partial, fold

exactly = settings(deadline=None, derandomize=True, max_examples=150)
FOLDS: dict[str, Fold] = {"n": "sum", "low": "min", "high": "max", "all": "concat"}
NUMBERS = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
PARTIALS = st.fixed_dictionaries(
    {},
    optional={
        "n": st.none() | NUMBERS, "low": st.none() | NUMBERS, "high": st.none() | NUMBERS,
        "all": st.none() | st.lists(NUMBERS, max_size=3),
    },
)  # fmt: skip
DTYPES = st.sampled_from(["uint8", "int64", "float32", "float64", "complex64"])


def folded(partials: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    merged = partials[0]
    for each in partials[1:]:
        merged = fold(merged, each, FOLDS)
    return merged


def given_values(partials: list[dict[str, object]], key: str) -> list[object]:
    return [each[key] for each in partials if each.get(key) is not None]


@given(st.lists(PARTIALS, min_size=1, max_size=6))
@exactly
def test_a_fold_is_pythons_own_fold_over_what_is_there(partials):
    """Skipping null and absent keys, in order, from the first value and from no zero."""
    merged = folded(partials)
    if len(partials) == 1:
        return
    references: dict[str, Callable[..., object]] = {
        "n": lambda values: functools.reduce(lambda a, b: a + b, values),
        "low": min, "high": max, "all": lambda values: [x for each in values for x in each],
    }  # fmt: skip
    for key, reference in references.items():
        values = given_values(partials, key)
        assert merged[key] == (reference(values) if values else None)


def test_the_order_of_a_float_sum_is_the_order_given():
    """Left to right is a promise: another order of the same three numbers differs."""
    numbers = [0.1, 0.2, 0.3]
    sums = [folded([{"n": n} for n in order])["n"] for order in (numbers, numbers[::-1])]
    assert sums == [0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1]
    assert sums[0] != sums[1]


def test_a_sum_starts_from_the_first_partial_and_not_from_zero():
    """-0.0 stays -0.0; starting from 0 would lose its sign."""
    merged = fold({}, {"n": -0.0}, FOLDS)
    assert math.copysign(1, float(str(merged["n"]))) == -1


@given(DTYPES, st.integers(1, 4), st.integers(1, 4), st.randoms(use_true_random=False))
@exactly
def test_arrays_fold_element_by_element_and_keep_their_dtype(dtype, rows, cols, random):
    """Sum, min and max as numpy does them; concat along the first axis."""
    make = np.random.default_rng(random.getrandbits(32))
    a, b = (make.integers(0, 100, (rows, cols)).astype(dtype) for _ in range(2))
    merged = fold(dict.fromkeys(FOLDS, a), dict.fromkeys(FOLDS, b), FOLDS)
    for key, expected in {"n": a + b, "low": np.minimum(a, b), "high": np.maximum(a, b),
                          "all": np.concatenate([a, b])}.items():  # fmt: skip
        found = merged[key]
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.tolist()) == (expected.dtype, expected.tolist())


def test_lists_of_numbers_fold_element_by_element():
    """A histogram may be a list; nested ones too."""
    merged = fold({"n": [1, [2, 3]]}, {"n": [10, [20, 30]]}, FOLDS)
    assert merged["n"] == [11, [22, 33]]


@pytest.mark.parametrize(
    ("key", "left", "right"),
    [("n", [1], [1, 2]), ("n", 1, "2"), ("n", 1, [1]), ("n", True, True), ("all", 1, 2),
     ("n", np.zeros(2), np.zeros(3)), ("n", np.zeros(2), np.zeros(2, np.int8)),
     ("all", np.zeros(2), np.zeros(2, np.int8)), ("all", np.zeros(2), [1]),
     ("all", np.zeros((1, 2)), np.zeros((1, 3))), ("low", {}, {})],
)  # fmt: skip
def test_values_that_do_not_fit_together_are_refused_by_key(key, left, right):
    """Nothing broadcasts and nothing is guessed."""
    with pytest.raises(ContractBroken, match=f"partial '{key}'"):
        fold({key: left}, {key: right}, FOLDS)


@given(PARTIALS, DTYPES, st.lists(st.integers(0, 3), max_size=3))
@exactly
def test_a_partial_travels_as_json_without_loss(partial, dtype, shape):
    """Numbers exactly, arrays with dtype and shape, empty ones and 0-d ones too."""
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    document = json.loads(json.dumps(encode_partial(partial | {"array": array})))
    back = decode_partial(document)
    found = back.pop("array")
    assert back == partial
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)


def test_not_a_number_survives_in_arrays_but_not_as_a_scalar():
    """A .npy carries NaN, JSON does not."""
    back = decode_partial(encode_partial({"n": np.array([np.nan])}))["n"]
    assert isinstance(back, np.ndarray)
    assert np.isnan(back[0])
    with pytest.raises(ContractBroken, match="'n' is nan"):
        encode_partial({"n": float("nan")})


@pytest.mark.parametrize("text", ["", "%%%", "AAAA", 3, None])
def test_a_damaged_array_is_refused_by_key(text):
    """Whatever comes over the wire in place of a .npy."""
    with pytest.raises(InvalidInput, match=r"partial 'n' is not a \.npy file"):
        decode_partial({"n": {"npy": text}})


def test_a_pickle_is_never_loaded():
    """Arrays of objects would run code when read; both ends refuse them."""
    with pytest.raises(ContractBroken, match="array of objects"):
        encode_partial({"n": np.array([object()])})
