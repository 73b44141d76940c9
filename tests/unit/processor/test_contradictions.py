"""Every contradiction is refused when the function is decorated: who, where, and the way out."""

# mypy: disable-error-code="empty-body"

import asyncio
from collections.abc import Callable
from typing import Annotated, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import Field

from pesto_runtime.errors import InvalidContract
from pesto_runtime.processor import Raster, TileInfo, process

Array = np.ndarray


class Sometimes(TypedDict):
    """An output that may be absent."""

    a: NotRequired[int]


class Keys(TypedDict):
    """A partial."""

    total: int


class Nothing(TypedDict):
    """No output at all."""


class Opaque:
    """Nothing that JSON could say."""


def ok_finish(partial: dict[str, int]) -> float:
    return float(partial["total"])


def no_hint(scene):  # the point
    return scene


def no_return(scene: Array):  # the point
    return scene


def none_return(scene: Array) -> None: ...
def opaque(thing: Opaque) -> int: ...
def opaque_output(x: int) -> Opaque: ...
def star(*scenes: Array) -> int: ...
def double_star(**scenes: Array) -> int: ...
def positional(x: int, /) -> int: ...
def reserved(pesto: int) -> int: ...
def default_too_big(x: Annotated[float, Field(le=1)] = 2.0) -> int: ...
def default_none(x: float = None) -> int: ...  # type: ignore[assignment]  # noqa: RUF013  # the point
def default_nan(x: float = float("nan")) -> int: ...
def default_image(scene: Array = np.zeros(1)) -> int: ...  # noqa: B008  # the point
def named_input(scene: Annotated[Array, Raster(name="x")]) -> int: ...
def scaled_input(scene: Annotated[Array, Raster(scale=2)]) -> int: ...
def margin_output(scene: Array) -> Annotated[Array, Raster(margin=1)]: ...
def raster_of_float(x: Annotated[float, Raster(dtype="uint8")]) -> int: ...
def unknown_dtype(scene: Annotated[Array, Raster(dtype="uint9")]) -> int: ...
def double_band(scene: Annotated[Array, Raster(bands=["a", "a"])]) -> int: ...
def negative(scene: Annotated[Array, Raster(margin=-1)]) -> int: ...
def two_dtypes(scene: Annotated[npt.NDArray[np.uint8], Raster(dtype="int16")]) -> int: ...
def tuple_output(x: int) -> tuple[Array, Array]: ...
def sometimes(x: int) -> Sometimes: ...
def nothing(x: int) -> Nothing: ...
def bad_output_name(x: Array) -> Annotated[Array, Raster(name="a/b")]: ...
def tile_without_image(tile: TileInfo, x: int) -> int: ...
def two_tiles(scene: Array, a: TileInfo, b: TileInfo) -> int: ...
def image(scene: Array) -> Array: ...
def number(x: float) -> float: ...
def partial(scene: Array) -> dict[str, int]: ...
def keyed(scene: Array) -> Keys: ...
def two_needed(partial: dict[str, int], more: int) -> float: ...
def unresolved(x: "Missing") -> int: ...  # type: ignore[name-defined]  # noqa: F821  # the point


Case = tuple[Callable[..., object], dict[str, object], str]
CASES: dict[str, Case] = {
    "no type hint": (no_hint, {}, r"no_hint\(\), parameter 'scene'.*`scene: float`"),
    "no return": (no_return, {}, r"no_return\(\), return.*annotate"),
    "None return": (none_return, {}, r"none_return\(\), return.*annotate"),
    "unknown type": (opaque, {}, r"opaque\(\), parameter 'thing'.*Opaque.*use numbers"),
    "unknown output": (opaque_output, {}, r"opaque_output\(\), return.*Opaque.*use numbers"),
    "unresolved name": (unresolved, {}, r"unresolved\(\).*Missing.*import the names"),
    "var-args": (star, {}, r"star\(\), parameter 'scenes'.*one by one"),
    "keywords": (double_star, {}, r"double_star\(\), parameter 'scenes'.*one by one"),
    "positional only": (positional, {}, r"positional\(\), parameter 'x'.*remove the `/`"),
    "reserved": (reserved, {}, r"parameter 'pesto'.*reserved.*choose another"),
    "default breaks constraint": (default_too_big, {}, r"'x'.*default 2.0.*less than or equal"),
    "default None": (default_none, {}, r"'x'.*annotate it `... \| None`"),
    "default not finite": (default_nan, {}, r"'x'.*nan"),
    "default image": (default_image, {}, r"'scene'.*`\| None = None`"),
    "named input": (named_input, {}, r"'scene'.*rename it"),
    "scale on input": (scaled_input, {}, r"'scene'.*scale belongs to the output"),
    "margin on output": (margin_output, {}, r"return.*margin belongs to the image inputs"),
    "Raster on a number": (raster_of_float, {}, r"'x'.*Raster is for np.ndarray"),
    "unknown dtype": (unknown_dtype, {}, r"'scene'.*\n?.*uint9.*known: uint8"),
    "double band": (double_band, {}, r"'scene'(.|\n)*distinct"),
    "negative margin": (negative, {}, r"'scene'(.|\n)*negative side"),
    "two dtypes": (two_dtypes, {}, r"'scene'.*uint8.*int16.*use the same dtype"),
    "tuple of arrays": (tuple_output, {}, r"return.*TypedDict"),
    "absent output": (sometimes, {}, r"return.*'a'.*`\| None`"),
    "no output": (nothing, {}, r"return.*Nothing has no key"),
    "output name": (bad_output_name, {}, r"return.*'a/b' is not a name"),
    "tile without image": (tile_without_image, {}, r"'tile'.*remove the parameter"),
    "two tiles": (two_tiles, {}, r"two_tiles\(\).*one parameter receives the tile"),
    "margin without image": (number, {"margin": 1}, r"number\(\): margin without an image input"),
    "align without image": (number, {"align": 2}, r"number\(\): align without an image input"),
    "bad margin": (image, {"margin": "2"}, r"'scene'(.|\n)*neither a whole number"),
    "bad align": (image, {"align": 0}, r"'scene'(.|\n)*greater than or equal to 1"),
    "map without image": (number, {"tileable": "map"}, r"number\(\)(.|\n)*needs an image input"),
    "unknown tileable": (image, {"tileable": "tiles"}, r"'tiles' is not one of"),
    "whole with a margin": (image, {"tileable": "whole", "margin": 1}, r"remove one"),
    "unknown option": (image, {"margins": 1}, r"no option 'margins'; it has .*margin"),
    "bad name": (image, {"name": "a b"}, r"name 'a b' must be letters"),
    "no finish": (partial, {"reduce": {"total": "sum"}}, r"'finish' is missing"),
    "no reduce": (partial, {"finish": ok_finish}, r"'reduce' is missing"),
    "unknown fold": (partial, {"reduce": {"total": "mean"}, "finish": ok_finish}, r"'sum', 'min'"),
    "no fold": (partial, {"reduce": {}, "finish": ok_finish}, r"one of"),
    "other keys": (keyed, {"reduce": {"n": "sum"}, "finish": ok_finish}, r"name the same keys"),
    "finish wants more": (partial, {"reduce": {"n": "sum"}, "finish": two_needed},
                          r"two_needed\(partial, more\) must have one"),
    "partial is no dict": (image, {"reduce": {"n": "sum"}, "finish": ok_finish},
                           r"a reduce returns its partial"),
    "reduce without image": (number, {"tileable": "reduce"}, r"contradicts its reduce"),
    "setup is no function": (number, {"setup": 3}, r"setup must be a function"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_contradiction_is_refused_with_its_place_and_the_way_out(case):
    """One case per rule; the message names the function and says what to write instead."""
    function, options, message = case
    with pytest.raises(InvalidContract, match=message) as refused:
        process(**options)(function)
    assert function.__name__ in str(refused.value)


@pytest.mark.parametrize("function", [image, number])
def test_the_plain_ones_are_accepted(function):
    """The control: what the cases start from is no error."""
    assert process(function) is function


def test_a_coroutine_is_refused():
    """Work happens off the event loop; a coroutine would never be awaited."""

    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    with pytest.raises(InvalidContract, match="plain functions"):
        process(later)
