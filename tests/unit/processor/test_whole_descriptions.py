"""A description is validated as a whole when it is loaded, and one wrong process hides no other."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field

from pesto_runtime import Named, Raster, process
from pesto_runtime.contract import NUMERIC_DTYPES, Description, RasterContract
from pesto_runtime.contract.base import why_no_nodata
from pesto_runtime.errors import InvalidContract, NotFound
from pesto_runtime.processor import load_processor
from pesto_runtime.processor.authoring import contract_of
from pesto_runtime.processor.function import FunctionProcessor
from pesto_runtime.run.services import resolve_services
from tests.support.runs import pipeline, stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import JsonValue

CALLS = iter(range(99))
VALUES = [0, -1, 255, 256, -9999, 65535, 2**31, 2**63, 2**64 - 1, 2**64, 0.5, -0.5, 1e39, -3.4e38,
          1e300, math.nan, math.inf, -math.inf]  # fmt: skip


def _holds(nodata: float, dtype: str) -> bool:
    """Whether numpy stores the value without another one, or a float of it."""
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        return math.isfinite(nodata) and nodata % 1 == 0 and limits.min <= nodata <= limits.max
    return not math.isfinite(nodata) or abs(float(nodata)) <= float(np.finfo(kind).max)


@pytest.mark.parametrize("dtype", NUMERIC_DTYPES)
def test_nodata_fits_each_dtype_or_is_refused(dtype: str) -> None:
    """For every dtype, also in a list of dtypes."""
    for nodata in VALUES:
        fits = _holds(nodata, dtype)
        assert (why_no_nodata(nodata, dtype) is None) == fits, (nodata, dtype)
        value = nodata if math.isfinite(nodata) else str(nodata)
        for declared in (dtype, ["float64", dtype]):
            found = _fault({"dtype": declared, "nodata": value})
            assert (found is None) == fits
            assert fits or f"nodata {nodata} does not fit dtype {dtype}" in str(found)


def _fault(raster: dict[str, object], side: str = "output") -> InvalidContract | None:
    document = described(raster, side)
    try:
        Description.parse(document)
    except InvalidContract as error:
        return error
    return None


def described(raster: dict[str, object], side: str) -> dict[str, JsonValue]:
    """A description with one port on each side; the raster contract is that of `side`."""

    def ports(contract: object) -> dict[str, object]:
        port = {"$ref": "#/definitions/Image", "x-raster": contract}
        return {"properties": {"a": port}, "required": ["a"]}

    document = {"name": "odd", "version": "1", "input": ports({}), "output": ports({})}
    document[side] = ports(raster)
    found: dict[str, JsonValue] = json.loads(json.dumps(document))
    return found


@pytest.mark.parametrize(
    ("raster", "words"),
    [
        ({"align": 32, "tile": {"max": 16}}, "max 16 is not a multiple of align 32"),
        ({"align": 32, "tile": {"fixed": 48}}, "fixed 48 is not a multiple of align 32"),
        ({"margin": 8, "tile": {"max": 16}}, "max 16 includes the margin, and has no room"),
        (
            {"margin": {"left": 9, "right": 9}, "tile": {"fixed": 18}},
            "fixed 18 includes the margin",
        ),
        ({"align": 32, "tile": {"max": 100}}, None),
        ({"align": 32, "tile": {"fixed": 64}, "margin": 8}, None),
        ({"margin": 8, "tile": {"max": 17}}, None),
    ],
)
def test_tile_sizes_fit_alignment_and_margin(raster: dict[str, object], words: str | None) -> None:
    """A process that accepts no tile at all is refused when it is loaded."""
    error = _fault(raster, "input")
    assert (error is None) == (words is None)
    if words is not None:
        assert words in str(error)
        assert "description of 'odd'" in str(error)
        assert "/input/properties/a/x-raster/tile" in str(error)


def test_a_wrong_overlay_and_a_wrong_catalog_name_process_port_and_field(tmp_path: Path) -> None:
    """And the file of the catalog."""
    wrong = {"output": {"properties": {"a": {"x-raster": {"dtype": "uint8", "nodata": -1}}}}}
    good = described({}, "output")
    saved = {"url": "http://127.0.0.1:9", "description": good, "overlay": wrong}
    _refused(tmp_path, saved, "overlay: description of 'odd'")
    bad = described({"dtype": "uint8", "nodata": -1}, "output")
    _refused(tmp_path, {"url": "http://127.0.0.1:9", "description": bad}, "odd@1.json: description")


def _refused(folder: Path, saved: object, words: str) -> None:
    from pesto_runtime.contract import Pipeline

    (folder / "odd@1.json").write_text(json.dumps(saved))
    model = Pipeline.parse(pipeline(stage("s", "odd", a="$inputs.scene"), outputs={"o": "$s.a"}))
    with pytest.raises(InvalidContract) as caught:
        resolve_services(model, base=folder, catalog=folder, ask=False)
    assert words in str(caught.value)
    assert "/output/properties/a/x-raster/nodata: nodata -1 does not fit dtype uint8" in str(
        caught.value
    )


def test_an_input_and_fill_of_contracts_without_dtype_are_not_judged() -> None:
    """The dtype is that of the scene: `check` compares it."""
    assert RasterContract.model_validate({"nodata": -9999}).nodata == -9999


@process(version="1.0.0")
def defaulted(
    n: Annotated[int, Field(default=5, ge=1)],
    sizes: Annotated[list[int], Field(default_factory=lambda: [3])],
    anything: Any = None,
    mixed: str | dict[str, int] | None = None,
    literal: Literal["a", None] = None,
    both: Annotated[int, Field(default=5)] = 7,
) -> Annotated[dict[str, object], Named("got")]:
    """Return its inputs."""
    sizes.append(n)
    return {"n": n, "sizes": sizes, "anything": anything, "mixed": mixed, "literal": literal,
            "both": both}  # fmt: skip


def test_defaults_of_hints_are_defaults() -> None:
    """Not required, described, and received by the function, a new list for each call."""
    contract = contract_of(defaulted)
    assert contract is not None
    description = contract.description
    defaults = {port.name: port.schema["default"] for port in description.inputs}
    assert defaults == {
        "n": 5, "sizes": [3], "anything": None, "mixed": None, "literal": None, "both": 7,
    }  # fmt: skip
    assert not any(port.required for port in description.inputs)
    processor = FunctionProcessor(contract, "build")
    for _ in range(2):
        got = processor.run({})["got"]
        assert got == {**defaults, "sizes": [3, 5]}
    assert processor.run({"n": 2, "mixed": {"a": 1}, "literal": "a"})["got"] == {
        **defaults, "n": 2, "sizes": [3, 2], "mixed": {"a": 1}, "literal": "a",
    }  # fmt: skip


def test_a_default_of_a_hint_must_fit_and_stay_the_same() -> None:
    """As any default."""

    def small(n: Annotated[int, Field(default=0, ge=1)]) -> int:
        return n

    def moving(n: Annotated[int, Field(default_factory=lambda: next(CALLS))]) -> int:
        return n

    def none(n: int = None) -> int:  # type: ignore[assignment]  # noqa: RUF013  # the mistake
        return n

    for function, words in (
        (small, "its default 0 breaks its own contract"),
        (moving, "its default_factory returns another value each time"),
        (none, "its default is None; annotate it `... | None`"),
    ):
        wrong: Callable[..., object] = function
        with pytest.raises(InvalidContract, match=words):
            process(wrong)


SOURCE = '''
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process

Image = Annotated[np.ndarray, Raster(name="out", dtype="uint8", nodata={nodata})]


@process(version="1.0.0", margin=0)
def good(scene: np.ndarray) -> np.ndarray:
    """Return it."""
    return scene


@process(version="1.0.0", margin=0)
def bad(scene: np.ndarray) -> Image:
    """Return it."""
    return scene
'''


def test_a_wrong_process_does_not_hide_its_neighbours(tmp_path: Path) -> None:
    """Its own error is raised for it; without a name, both are listed."""
    (tmp_path / "two.py").write_text(SOURCE.format(nodata=-9999))
    assert load_processor("two.py:good", base=tmp_path).description.name == "good"
    with pytest.raises(InvalidContract, match="nodata -9999 does not fit dtype uint8"):
        load_processor("two.py:bad", base=tmp_path)
    with pytest.raises(NotFound) as caught:
        load_processor("two.py", base=tmp_path)
    assert "there is two.py:good; two.py:bad is wrong: bad(), return" in str(caught.value)
    (tmp_path / "two.py").write_text(SOURCE.format(nodata=255))
    assert load_processor("two.py:bad", base=tmp_path).description.name == "bad"


def test_outside_of_a_target_the_decorator_raises() -> None:
    """In a notebook or a test, at once."""
    with pytest.raises(InvalidContract, match="nodata -1 does not fit dtype uint8"):

        @process(version="1.0.0", margin=0)
        def bad(
            scene: np.ndarray,
        ) -> Annotated[np.ndarray, Raster(name="out", dtype="uint8", nodata=-1)]:
            return scene
