"""The made images: of the input's dtype, repeatable, and each kind with what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pesto_runtime.contract import NUMERIC_DTYPES
from pesto_runtime.probing.data import ImageSpec, TestImages

SIZE = (60, 80)


def made(kind: str, turn: int = 0, seed: int = 0, **spec: object) -> np.ndarray:
    given = ImageSpec(**{"bands": 1, "dtype": "uint8", **spec})  # type: ignore[arg-type]  # by test
    return TestImages({"image": given}, seed).images(kind, turn, SIZE)["image"]


@pytest.mark.parametrize("dtype", NUMERIC_DTYPES)
def test_every_kind_has_every_dtype(dtype: str) -> None:
    """Shape and dtype are those of the input; nothing is out of range."""
    images = TestImages({"image": ImageSpec(2, dtype, nodata=0)})
    for kind in images.kinds:
        for turn in range(4):
            image = images.images(kind, turn, SIZE)["image"]
            assert image.shape == (2, *SIZE)
            assert image.dtype.name == dtype
            assert np.isfinite(image).all()


def test_numbers_depend_on_seed_kind_and_turn_alone() -> None:
    """The same seed gives the same image."""
    assert np.array_equal(made("noise"), made("noise"))
    assert not np.array_equal(made("noise"), made("noise", seed=1))
    assert not np.array_equal(made("noise"), made("noise", turn=1))


def test_nodata_is_there_only_where_it_is_declared() -> None:
    """Gaps have both values near each other; islands are almost empty."""
    assert "gaps" not in TestImages({"image": ImageSpec(1, "uint8")}).kinds
    gaps = made("gaps", nodata=255) == 255
    assert 0.02 < gaps.mean() < 0.7
    assert np.isnan(made("gaps", dtype="float32", nodata=float("nan"))).any()
    assert (made("islands", nodata=255) == 255).mean() > 0.99
    assert 0.9 < (made("islands", turn=1, nodata=255) == 255).mean() < 0.999


def test_values_reach_from_a_class_to_the_largest() -> None:
    """A threshold at 0.5, 100, 2000 or 60 000 is crossed in some turn."""
    tops = {made("sparse", turn, dtype="uint16", seed=5).max() for turn in range(8)} - {0}
    assert tops == {1, 255, 10_000, 65_535}


@pytest.mark.parametrize("turn", [0, 1])
def test_strokes_have_every_length_and_touch_no_other(turn: int) -> None:
    """In turn 0 they are upright, in turn 1 level; corners do not touch either."""
    numbers, count = ndimage.label(made("strokes", turn)[0], np.ones((3, 3)))
    shapes = [
        (part[0].stop - part[0].start, part[1].stop - part[1].start)
        for part in ndimage.find_objects(numbers)
    ]
    assert count > 30
    assert {shape[turn ^ 1] for shape in shapes} == {1}
    assert {shape[turn] for shape in shapes} == set(range(1, 25))


def test_the_users_image_comes_first_and_is_mirrored_if_it_is_small() -> None:
    """A window of the image, of its dtype and bands, whatever the made ones would have."""
    given = np.arange(2 * 20 * 100, dtype=np.int16).reshape(2, 20, 100)
    images = TestImages({"image": ImageSpec(2, "int16", given=given)})
    assert images.kinds[0] == "given"
    window = images.images("given", 0, SIZE)["image"]
    assert np.array_equal(window[:, :20], window[:, 39:19:-1])
    left = int(window[0, 0, 0])
    assert np.array_equal(window[:, :20], given[:, :, left : left + 80])


def test_several_inputs_have_other_data() -> None:
    """A mask does not always come with the same image."""
    images = TestImages({"a": ImageSpec(1, "uint8"), "b": ImageSpec(1, "uint8")})
    together = images.images("noise", 0, SIZE)
    assert not np.array_equal(together["a"], together["b"])
    later = images.images("constant", 2, SIZE)
    assert len(np.unique(later["a"])) == 1 < len(np.unique(later["b"]))
