"""Inputs that cannot be read: alone with their own error, else all in one report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidPipeline, PestoError, RasterUnreadable, Unreachable
from pesto_runtime.pipeline import Sizing
from pesto_runtime.run.pipeline_inputs import PipelineInputs, read_inputs
from pesto_runtime.run.planning import plan
from pesto_runtime.run.services import resolve_services
from tests.support.rasters import noise, write_scene
from tests.support.runs import ROOT, pipeline, stage

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

BOTH = Pipeline.parse(
    pipeline(
        stage("sum", "add", first="$inputs.first", second="$inputs.second"),
        stage("high", "above", image="$sum.image", level="$inputs.level"),
        outputs={"image": "$high.image"},
        first="image", second="image", level="number",
    )
)  # fmt: skip

FOUND = resolve_services(BOTH, base=ROOT)


def error_of(inputs: PipelineInputs) -> PestoError:
    """The error of a plan."""
    with pytest.raises(PestoError) as caught:
        plan(
            BOTH, FOUND, inputs, store="file:///none", sizing=Sizing(workers=1),
        )  # fmt: skip
    return caught.value


def test_one_unreadable_scene_keeps_the_class_of_its_error(tmp_path: Path) -> None:
    """A retry policy depends on it."""
    scene = str(write_scene(tmp_path / "s.tif", noise(9, 9)))
    given: dict[str, JsonValue] = {"first": scene, "second": str(tmp_path / "none"), "level": 1}
    error = error_of(read_inputs(BOTH, FOUND, given))
    assert type(error) is RasterUnreadable
    assert "none does not exist" in str(error)


def test_two_unreadable_scenes_are_in_one_report(tmp_path: Path) -> None:
    """Beside a wrong value, too."""
    given: dict[str, JsonValue] = {
        "first": str(tmp_path / "a"), "second": str(tmp_path / "b"), "level": 1,
    }  # fmt: skip
    error = error_of(read_inputs(BOTH, FOUND, given))
    assert type(error) is InvalidPipeline
    assert [each.pointer for each in error.fields] == ["/inputs/first", "/inputs/second"]
    error = error_of(
        read_inputs(BOTH, FOUND, {**given, "second": str(tmp_path / "a"), "level": "high"})
    )
    assert [each.pointer for each in error.fields] == [
        "/inputs/first", "/inputs/second", "/inputs/level",
    ]  # fmt: skip


def test_an_error_that_a_retry_can_help_is_raised_only_if_nothing_else_is_wrong() -> None:
    """With a wrong value beside it, a retry could not help."""
    unreadable = {"first": RasterUnreadable("gone"), "second": Unreachable("try later")}
    error = error_of(PipelineInputs({}, {"level": 1}, unreadable))
    assert (str(error), error.retryable) == ("try later", True)
    error = error_of(PipelineInputs({}, {"level": "high"}, unreadable))
    assert (type(error), error.retryable, len(error.fields)) == (InvalidPipeline, False, 3)


@pytest.mark.parametrize("value", ["", 5, {"file": "s.tif"}, ["s.tif"], True])
def test_what_is_no_path_or_href_is_named(value: JsonValue) -> None:
    """Orchestrators pass any JSON; a number is not a file of that name."""
    (error,) = read_inputs(BOTH, FOUND, {"first": value}).unreadable.values()
    assert str(error).startswith(
        "an image is a path or href, with bands and window as in HREF#bands"
    )
    assert "/href: Field required" in str(error) or str(error).endswith(f", not {value!r}")


def test_null_is_as_if_the_input_were_absent() -> None:
    """Conductor passes null for each input that a workflow was started without."""
    assert read_inputs(BOTH, FOUND, {"first": None, "level": None}) == PipelineInputs({}, {}, {})
    assert read_inputs(BOTH, FOUND, {"level": "null"}).parameters == {"level": None}
