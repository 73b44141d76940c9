"""What is measured of processes whose answers are known by hand or by theory."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Margin, Scale
from pesto_runtime.errors import AlgorithmFailed
from pesto_runtime.probing.data import ImageSpec, TestImages
from pesto_runtime.probing.measuring import WINDOW, Effort, Measured, measure
from pesto_runtime.probing.subject import ProbedProcess
from pesto_runtime.probing.verdict import Verdict, exactness_of, judge
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from pesto_runtime.contract import Window
    from pesto_runtime.probing.measuring import Images

PROBED = ROOT / "tests" / "support" / "probed.py"
SIEVE = ROOT / "examples" / "sieve.py:sieve"
LIMIT = 16


def measured(target: object, *, seed: int = 0, turns: int = 2) -> tuple[Verdict, Measured]:
    subject = ProbedProcess.load(str(target), {})
    found = measure(
        subject.call,
        TestImages(subject.specs, seed),
        effort=Effort(LIMIT, turns),
        exactness=exactness_of(subject.description),
    )
    return judge(subject.description, found), found


MAPS = {
    "gaussian": Margin.of(3),
    "median_odd": Margin.of(1),
    "median_even": Margin(top=2, right=1, bottom=1, left=2),
    "erosion": Margin.of(2),
    "sobel": Margin.of(1),
    "every_second": Margin(),
    "every_third": Margin(),
    "cropped": Margin(),
    "binning": Margin(),
    "enlarged": Margin(),
    "distance_capped": Margin.of(6),
    "causal": Margin(top=2, left=3),
    "filled": Margin.of(2),
    "threshold": Margin.of(4),
    "rounded": Margin.of(3),
    "convolved": Margin.of(3),
    "faint": Margin(left=2),
    "framed": Margin.of(5),
    "cells_of_four": Margin(),
    "cells_of_three": Margin(),
    "column_pairs": Margin(),
}
ALIGNED = {
    "every_second": 2,
    "every_third": 3,
    "cropped": 2,
    "binning": 2,
    "cells_of_four": 4,
    "cells_of_three": 3,
    "column_pairs": 2,
}
SCALED = {
    "every_second": Fraction(1, 2),
    "every_third": Fraction(1, 3),
    "binning": Fraction(1, 2),
    "enlarged": Fraction(2),
}


@pytest.mark.parametrize("name", MAPS)
def test_margin_alignment_and_scale_of_a_map_are_those_of_theory(name: str) -> None:
    """The contract of each process is right, so nothing is found against it."""
    verdict, found = measured(f"{PROBED}:{name}")
    assert verdict.nature == "map"
    assert verdict.margin == MAPS[name]
    assert found.align == ALIGNED.get(name, 1)
    ratio = SCALED.get(name, Fraction(1))
    assert found.scales == {"image": Scale(ratio, ratio)}
    assert verdict.faults == ()
    assert verdict.remarks == ()
    assert found.is_complete
    assert not found.refused


@pytest.mark.parametrize(
    ("name", "nature"),
    [
        ("running_sum", "not tileable: reaches over 16 pixels to the left"),
        ("fourier", "not tileable: global statistic"),
        ("normalised", "not tileable: global statistic"),
        ("labels", "not tileable"),
        ("holes_filled", "not tileable"),
        ("distance_free", "not tileable: global statistic"),
        ("noisy", "random: two equal calls differ"),
        ("numbered", "not tileable: depends on the position or size of the window"),
        ("numbered_rarely", "not tileable: depends on the position or size of the window"),
    ],
)
def test_a_process_that_no_margin_makes_tileable_is_named(name: str, nature: str) -> None:
    """Its contract declares a map: that is a fault, with a way out."""
    verdict, _ = measured(f"{PROBED}:{name}")
    assert verdict.nature.startswith(nature)
    (fault,) = verdict.faults
    assert fault.pointer == "/tileable"
    assert "declare tileable='whole'" in fault.detail


def test_a_long_thin_object_shows_the_reach_of_a_sieve() -> None:
    """The sieve looks 8 pixels far only along a cloud of 9 pixels."""
    verdict, _ = measured(SIEVE, turns=4)
    assert verdict.margin == Margin.of(8)
    assert {name for each in verdict.reaches for name in each.data} == {"strokes"}


def test_each_input_has_its_own_margin() -> None:
    """The image is looked at 1 pixel far, the mask 3; a run reads both 3 pixels wider."""
    verdict, _ = measured(f"{PROBED}:masked")
    assert {each.input: each.margin for each in verdict.reaches} == {
        "image": Margin.of(1),
        "mask": Margin.of(3),
    }
    assert verdict.faults == ()


def test_an_input_of_which_one_pixel_decides_nothing_is_measured() -> None:
    """Replacing one input alone shows that it is the mask that is looked at 10 pixels far."""
    verdict, _ = measured(f"{PROBED}:gated")
    assert {each.input: each.margin for each in verdict.reaches} == {
        "image": Margin(),
        "mask": Margin.of(10),
    }


def test_rounding_errors_of_a_transform_are_a_tolerance_and_no_margin() -> None:
    """Without the declared tolerance, the same outputs differ at any distance, a little."""
    subject = ProbedProcess.load(f"{PROBED}:convolved", {})
    found = measure(subject.call, TestImages(subject.specs), effort=Effort(LIMIT))
    profile = found.profiles["image", "image", "top"]
    assert profile.reach() > LIMIT
    verdict, _ = measured(f"{PROBED}:convolved")
    assert 0 < verdict.tolerance < 1e-3


@pytest.mark.parametrize("name", ["gaussian", "distance_capped", "filled", "threshold"])
def test_another_seed_gives_the_same_answer(name: str) -> None:
    """Which random numbers are drawn does not decide."""
    first, again = (measured(f"{PROBED}:{name}", seed=seed, turns=4)[0] for seed in (0, 7))
    assert first.margin == again.margin
    assert first.faults == again.faults


def test_a_slow_process_is_measured_as_far_as_the_time_allows() -> None:
    """The first experiments find the most; the answer says that it is not complete."""
    subject = ProbedProcess.load(f"{PROBED}:erosion", {})

    def slow(images: Images, *, window: Window, scene: tuple[int, int]) -> Images:
        time.sleep(0.02)
        return subject.call(images, window=window, scene=scene)

    begun = time.monotonic()
    found = measure(slow, TestImages(subject.specs), effort=Effort(LIMIT, seconds=2))
    assert 2 <= time.monotonic() - begun < 30
    assert not found.is_complete
    verdict = judge(subject.description, found)
    assert (verdict.nature, verdict.margin, found.align) == ("map", Margin.of(2), 1)


def test_data_that_a_process_refuses_are_left_out() -> None:
    """It fails on images without a bright pixel, and returns another output for some."""

    def picky(images: Images, *, window: Window, scene: tuple[int, int]) -> Images:
        (image,) = images.values()
        if not image.any():
            raise AlgorithmFailed("no bright pixel")
        return {"other" if image.min() == image.max() else "image": image}

    found = measure(picky, TestImages({"image": ImageSpec(1, "uint8")}), effort=Effort(LIMIT))
    assert set(found.refused) >= {"constant"}
    assert found.align == 1
    assert {key[:2] for key in found.profiles} == {("image", "image"), (WINDOW, "image")}
    with pytest.raises(AlgorithmFailed, match="no bright pixel"):
        measure(
            lambda _images, *, window, scene: picky({"image": np.zeros((1, 9, 9))}, window=window,
                                                    scene=scene),
            TestImages({"image": ImageSpec(1, "uint8")}),
        )  # fmt: skip
