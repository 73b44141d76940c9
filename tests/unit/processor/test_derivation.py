"""Schema derivation: whatever the parameters, a whole description or a refusal by name."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from pesto_runtime.contract import Description
from pesto_runtime.errors import InvalidContract
from pesto_runtime.processor import Raster, contract_of, process


@dataclass
class Point:
    """A structured value."""

    row: int
    col: int


class Foreign:
    """Nothing that JSON could say."""


GOOD: dict[str, object] = {
    "number": float, "whole": int, "text": str, "flag": bool, "choice": Literal["a", "b"],
    "limited": Annotated[float, Field(ge=0, le=1), "a share"], "point": Point,
    "points": list[Point], "table": dict[str, int], "pair": tuple[int, int], "maybe": int | None,
    "image": np.ndarray, "images": list[np.ndarray],
    "bands": Annotated[np.ndarray, Raster(bands=["a", "b"], dtype="uint8", margin=3)],
    "masks": Annotated[np.ndarray, Raster(bands=1, nodata="nan", align=2)] | None,
}  # fmt: skip
BAD: dict[str, object] = {
    "foreign": Foreign, "foreigners": list[Foreign], "inside": dict[str, np.ndarray],
    "function": Callable, "named": Annotated[np.ndarray, Raster(name="x")],
    "scaled": Annotated[np.ndarray, Raster(scale=2)],
    "bandless": Annotated[np.ndarray, Raster(bands=[])],
    "odd": Annotated[np.ndarray, Raster(dtype="bool")],
    "skewed": Annotated[np.ndarray, Raster(margin={"up": 1})],
    "unsized": Annotated[np.ndarray, Raster(tile={"size": 1})],
    "loose": Annotated[np.ndarray, Raster(exactness={"rtol": -1})],
    "rasterless": Annotated[int, Raster(bands=1)],
}  # fmt: skip
NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True)
often = settings(deadline=None, derandomize=True, max_examples=60)


def authored(hints: dict[str, object]) -> Callable[..., object]:
    """A function whose parameters have these hints, as if someone had written it."""

    def algorithm(**inputs: object) -> int:
        raise NotImplementedError

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, kind, annotation=hint) for name, hint in hints.items()]
    algorithm.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect reads
    algorithm.__annotations__ = {**hints, "return": int}
    return algorithm


@given(NAMES, st.data())
@often
def test_any_mix_of_known_types_gives_a_valid_description(names, data):
    """Every parameter is a port, in order, and the document survives being read again."""
    hints = {name: GOOD[data.draw(st.sampled_from(sorted(GOOD)))] for name in names}
    contract = contract_of(process(authored(hints)))
    assert contract is not None
    description = contract.description
    assert [port.name for port in description.inputs] == names
    jsonschema.Draft6Validator.check_schema(description.known.input)
    assert Description.parse(description.to_json()).digest == description.digest


@given(NAMES, st.sampled_from(sorted(BAD)), st.data())
@often
def test_one_bad_parameter_among_any_others_is_refused_by_its_name(names, kind, data):
    """Never another error, never another parameter."""
    hints = {name: GOOD[data.draw(st.sampled_from(sorted(GOOD)))] for name in names}
    at = data.draw(st.integers(0, len(names)))
    mixed = dict([*list(hints.items())[:at], ("culprit", BAD[kind]), *list(hints.items())[at:]])
    with pytest.raises(InvalidContract, match=r"algorithm\(\), parameter 'culprit'"):
        process(authored(mixed))
