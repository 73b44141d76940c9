"""A decorated function at work: inputs checked at once, arrays safe, outputs plain, errors told."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, TypedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from pesto_runtime.contract import TileInfo, Window
from pesto_runtime.errors import AlgorithmFailed, ContractBroken, InvalidInput, NotFound
from pesto_runtime.processor import (
    FunctionProcessor,
    Named,
    Processor,
    Raster,
    contract_of,
    encode_value,
    process,
)

SCENE = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


def performing(function: object) -> FunctionProcessor:
    contract = contract_of(function)
    assert contract is not None
    return FunctionProcessor(contract, "sha256:0")


@dataclass
class Corner:
    """A structured input."""

    row: int
    col: int = 3


class Both(TypedDict):
    """Two outputs."""

    image: Annotated[np.ndarray, Raster(dtype="float32")]
    mean: float


@process(version="3.0.0")
def scale(
    scene: Annotated[np.ndarray, Raster(bands=["red", "nir"], dtype=["uint8", "uint16"])],
    factor: Annotated[float, Field(gt=0)] = 2.0,
    mode: Literal["up", "down"] = "up",
    corner: Corner | None = None,
) -> Both:
    """Scale."""
    scaled = (scene[0] * factor).astype(np.float32)
    return {"image": scaled, "mean": scaled.mean() + (corner.col if corner else 0)}


def test_a_function_processor_is_a_processor():
    """It has every member of the protocol; the version document says the version."""
    processor = performing(scale)
    assert isinstance(processor, Processor)
    assert processor.version_document == {"version": "3.0.0"}


def test_defaults_of_absent_inputs_apply_and_outputs_are_plain():
    """A 2-D image becomes one band, a numpy scalar a float, a JSON object a dataclass."""
    outputs = performing(scale).run({"scene": SCENE, "corner": {"row": 1}})
    assert set(outputs) == {"image", "mean"}
    image = outputs["image"]
    assert isinstance(image, np.ndarray)
    assert image.shape == (1, 3, 4)
    assert image[0, 0, 1] == 2.0
    assert type(outputs["mean"]) is float
    assert outputs["mean"] == 14.0


def test_every_bad_input_is_told_at_once_with_its_pointer():
    """Unknown, missing, wrong dtype, too few bands, broken constraint, nested field: one error."""
    bad = {"factor": -1, "mode": "side", "corner": {"row": "one"}, "scenes": 1}
    with pytest.raises(InvalidInput) as refused:
        performing(scale).run(bad)
    pointers = [field.pointer for field in refused.value.fields]
    assert pointers == ["/scenes", "/scene", "/factor", "/mode", "/corner/row"]


@pytest.mark.parametrize(
    ("scene", "reason"),
    [(SCENE.astype(np.int32), "must be uint8 or uint16, not int32"),
     (SCENE[:1], r"must have 2 bands \(red, nir\), not 1"),
     (SCENE[0], r"shape \(band, row, col\), each >= 1, not \[3, 4\]"),
     (SCENE[:, :0], r"each >= 1, not \[2, 0, 4\]"),
     ([[1]], "must be an array"), (None, "must be an array")],
)  # fmt: skip
def test_an_array_that_breaks_the_contract_is_refused(scene, reason):
    """Axes, emptiness, dtype and bands, against `x-raster`."""
    with pytest.raises(InvalidInput, match=reason) as refused:
        performing(scale).run({"scene": scene})
    assert refused.value.fields[0].pointer == "/scene"


@pytest.mark.parametrize("value", ["2.0", True, None, float("nan"), float("inf"), [1], object()])
def test_values_are_read_as_json_and_never_guessed(value):
    """Text is no number, a bool is no number, and JSON has no NaN."""
    with pytest.raises(InvalidInput, match="/factor"):
        performing(scale).run({"scene": SCENE, "factor": value})


def test_an_integer_will_do_for_a_float():
    """The control: JSON does not tell 2 from 2.0."""
    outputs = performing(scale).run({"scene": SCENE, "factor": 2})
    assert outputs["mean"] == 11.0


def test_arrays_arrive_contiguous_and_read_only_and_the_callers_stays_writeable():
    """A strided view is copied; writing into an input fails with the way out."""

    @process
    def greedy(scene: np.ndarray, write: bool = False) -> list[bool]:
        if write:
            scene[:] = 0
        return [scene.flags.c_contiguous, scene.flags.writeable]

    scene = np.zeros((1, 8, 8))[:, ::2, ::2]
    assert performing(greedy).run({"scene": scene}) == {"result": [True, False]}
    with pytest.raises(AlgorithmFailed, match=r"read-only: copy one.*test_function.py:\d+"):
        performing(greedy).run({"scene": scene, "write": True})
    assert scene.flags.writeable


def test_a_tile_parameter_receives_the_tile_or_the_whole_array():
    """Without a tile, the array is the scene."""

    @process(margin=1)
    def placed(scene: np.ndarray, tile: TileInfo) -> dict[str, list[int]]:
        return {"read": list(tile.read), "size": list(tile.scene_size)}

    processor = performing(placed)
    assert processor.run({"scene": SCENE}) == {"result": {"read": [0, 0, 4, 3], "size": [4, 3]}}
    window = Window(5, 6, 4, 3)
    tile = TileInfo(read=window, write=window, scene_size=(100, 90))
    assert processor.run({"scene": SCENE}, tile=tile) == {
        "result": {"read": [5, 6, 4, 3], "size": [100, 90]}
    }


def test_an_authors_exception_names_process_type_text_and_line():
    """The innermost line of the author's, not numpy's and not ours."""

    @process
    def broken(scene: np.ndarray) -> np.ndarray:
        return np.broadcast_to(scene, (7, 7))

    line = broken.__code__.co_firstlineno + 2
    with pytest.raises(AlgorithmFailed, match="broken: ValueError: ") as failed:
        performing(broken).run({"scene": SCENE})
    assert failed.value.detail.endswith(f"(test_function.py:{line})")
    assert not failed.value.retryable


def test_sys_exit_in_an_algorithm_fails_the_call_and_not_the_worker():
    """SystemExit is an author's error as any other; a PestoError passes through as it is."""

    @process
    def leaving(how: str) -> int:
        if how == "exit":
            sys.exit(3)
        raise NotFound("the model is not there")

    with pytest.raises(AlgorithmFailed, match="SystemExit: 3"):
        performing(leaving).run({"how": "exit"})
    with pytest.raises(NotFound, match="the model is not there"):
        performing(leaving).run({"how": "raise"})


@pytest.mark.parametrize(
    ("value", "reason"),
    [(0.5, None), (1.5, "less than or equal to 1, not 1.5"), (float("nan"), "'share' is nan"),
     ("much", "not 'much'"), (None, "not None"), (object(), "no JSON form")],
)  # fmt: skip
def test_an_output_that_is_not_what_its_hint_says_breaks_the_contract(value, reason):
    """Checked at the process, by name, before anyone relies on it."""

    @process
    def share(x: int) -> Annotated[float, Field(le=1), Named("share")]:
        return value  # type: ignore[no-any-return]  # the point

    if reason is None:
        assert performing(share).run({"x": 1}) == {"share": 0.5}
        return
    with pytest.raises(ContractBroken, match=reason):
        performing(share).run({"x": 1})


def test_missing_and_surplus_outputs_break_the_contract():
    """A TypedDict return is a promise of exactly its keys."""

    @process
    def forgetful(x: int) -> Both:
        return {"mean": 1.0, "max": 2.0}  # type: ignore[typeddict-item]  # the point

    with pytest.raises(ContractBroken, match=r"\['image', 'mean'\], but got \['max', 'mean'\]"):
        performing(forgetful).run({"x": 1})


def test_setup_runs_once_and_again_only_after_it_failed():
    """What loads a model for a minute must not do so twice."""
    calls: list[int] = []

    def load() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("no model")

    @process(setup=load)
    def ready(x: int) -> int:
        return x

    processor = performing(ready)
    with pytest.raises(AlgorithmFailed, match="set-up of ready: OSError: no model"):
        processor.run({"x": 1})
    processor.setup()
    processor.setup()
    assert len(calls) == 2


def test_images_go_in_and_out_as_lists():
    """Each is checked by its index."""

    @process
    def turn(
        scenes: Annotated[list[np.ndarray], Raster(dtype="uint16")],
    ) -> Annotated[list[np.ndarray], Raster(dtype="uint16", name="turned")]:
        return [scene[:, ::-1] for scene in scenes]

    turned = performing(turn).run({"scenes": [SCENE, SCENE]})["turned"]
    assert isinstance(turned, list)
    assert np.array_equal(turned[1], SCENE[:, ::-1])
    with pytest.raises(InvalidInput, match="/scenes/1: must be uint16, not float64"):
        performing(turn).run({"scenes": [SCENE, SCENE * 1.0]})
    with pytest.raises(InvalidInput, match="/scenes: must be a list"):
        performing(turn).run({"scenes": SCENE})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(JSON)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_plain_json_encodes_to_itself(value):
    """Nothing is lost or changed of what is JSON already."""
    assert encode_value("x", value) == value


def test_numpy_dates_and_dataclasses_encode_to_plain_json():
    """Every numpy scalar, arrays, dates, tuples and dataclasses; the types are Python's own."""
    value = {
        "f": np.float32(1.5), "d": np.float64(2.5), "i": np.int64(3), "b": np.bool_(True),
        "a": np.arange(3), "t": (1, 2), "c": Corner(1), "when": datetime(2015, 8, 4, tzinfo=UTC),
    }  # fmt: skip
    encoded = encode_value("x", value)
    assert encoded == {
        "f": 1.5, "d": 2.5, "i": 3, "b": True, "a": [0, 1, 2], "t": [1, 2],
        "c": {"row": 1, "col": 3}, "when": "2015-08-04T00:00:00Z",
    }  # fmt: skip
    assert isinstance(encoded, dict)
    assert type(encoded["d"]) is float


@pytest.mark.parametrize(
    "value",
    [
        np.float32("nan"),
        [1.0, float("inf")],
        {"a": -np.inf},
        [1, np.nan],
        [None, "", np.inf],
        np.array([[0.0, 1.0], [2.0, np.nan]]),
    ],
)
def test_a_number_that_json_cannot_carry_is_refused_by_name(value):
    """NaN on the wire is not JSON; the output and the place inside it are named."""
    with pytest.raises(ContractBroken, match=r"output 'mean.*JSON cannot represent"):
        encode_value("mean", value)
