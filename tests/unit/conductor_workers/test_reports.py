"""What Conductor is told of errors, and of input that does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_conductor.crew import ProgressTracker
from pesto_conductor.errors import report_of
from pesto_conductor.verbs import TaskContext, binding_of
from pesto_runtime.contract import Window
from pesto_runtime.errors import (
    AlgorithmFailed,
    Busy,
    Interrupted,
    InvalidInput,
    PestoError,
    TilesFailed,
    Unreachable,
)
from pesto_runtime.run.records import TileRecord

if TYPE_CHECKING:
    from pydantic import JsonValue


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidInput("bad"), "FAILED_WITH_TERMINAL_ERROR"),
        (AlgorithmFailed("division by zero"), "FAILED_WITH_TERMINAL_ERROR"),
        (TilesFailed("1 of 4"), "FAILED_WITH_TERMINAL_ERROR"),
        (Unreachable("gone"), "FAILED"),
        (MemoryError("no more"), "FAILED"),
        (Busy("full"), "IN_PROGRESS"),
        (Interrupted("stop"), "IN_PROGRESS"),
    ],
)
def test_retryable_is_all_that_decides_what_a_task_becomes(error: Exception, status: str) -> None:
    """Refusals end it, trouble retries it, a busy service and a stopping worker give it back."""
    assert report_of(error).status == status


def test_every_error_of_ours_has_a_report_with_its_words() -> None:
    """Also the kinds that come later; the reason is what the server shows."""
    for kind in PestoError.__subclasses__():
        report = report_of(kind("the words"))
        assert "the words" in report.reason or report.status == "IN_PROGRESS", kind


def test_a_busy_service_is_asked_again_when_it_said() -> None:
    """Its Retry-After is the server's callback."""
    assert report_of(Busy("full", retry_after_s=42)).again_after_s == 42


def test_a_long_reason_is_cut_and_the_log_has_it_whole() -> None:
    """Conductor keeps 500 characters."""
    report = report_of(InvalidInput("x" * 2000))
    assert len(report.reason) == 500
    assert report.lines == ("x" * 2000,)


def test_a_defect_leaves_its_traceback_in_the_log() -> None:
    """What is no error of ours was not foreseen."""
    report = report_of(ZeroDivisionError("division by zero"))
    assert report.reason == "ZeroDivisionError: division by zero"
    assert "ZeroDivisionError" in "".join(report.lines)


def test_input_is_held_to_its_schema_with_every_fault() -> None:
    """Nulls and Conductor's own `__index` are no faults."""
    lookout = ProgressTracker()
    errand = TaskContext("http://127.0.0.1:9/api", "w", lookout.watch, lookout.say)
    with pytest.raises(InvalidInput) as caught:
        binding_of("pesto_process").run(
            {"plan": 7, "phase": 0, "start": 0, "holes": None, "__index": 3, "typo": 1}, errand
        )
    told = {(each.pointer, each.detail.split(" ")[0]) for each in caught.value.fields}
    assert ("/plan", "must") in told
    assert len(told) == 3, caught.value


def test_a_plan_names_each_input_that_is_null() -> None:
    """As Conductor makes it of an input that was not given; trying again would not help."""
    lookout = ProgressTracker()
    errand = TaskContext("http://127.0.0.1:9/api", "w", lookout.watch, lookout.say)
    given: dict[str, JsonValue] = {
        "pipeline": {}, "folder": "out", "inputs": {"scene": None, "limit": 3, "mask": None},
    }  # fmt: skip
    with pytest.raises(InvalidInput) as caught:
        binding_of("pesto_plan").run(given, errand)
    assert [str(each) for each in caught.value.fields] == [
        "/inputs/scene: input 'scene' is missing (null)",
        "/inputs/mask: input 'mask' is missing (null)",
    ]
    assert report_of(caught.value).status == "FAILED_WITH_TERMINAL_ERROR"
    assert "input 'scene' is missing (null)" in report_of(caught.value).reason


def test_a_foreign_task_type_has_no_binding() -> None:
    """A worker told to take it says so."""
    with pytest.raises(InvalidInput, match="pesto_"):
        binding_of("send_mail")


def test_progress_is_told_once() -> None:
    """Nothing new, no line."""
    lookout = ProgressTracker()
    assert lookout.progress() is None
    for state in ("done", "done", "reused", "hole"):
        lookout.watch.on_tile(TileRecord(Window(0, 0, 1, 1), 0.1, state))
    told = lookout.progress()
    assert told is not None
    assert told.startswith("2 tiles computed, 1 reused, 1 failed in ")
    assert lookout.progress() is None
    assert not lookout.watch.should_stop()
    lookout.stop()
    assert lookout.watch.should_stop()
