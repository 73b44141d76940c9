"""Reports of errors to Conductor, and errors of input that does not fit its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_conductor.attempts import ProgressTracker
from pesto_conductor.binding import TaskContext
from pesto_conductor.errors import report_of
from pesto_conductor.verbs import binding_of
from pesto_runtime.contract import Window
from pesto_runtime.errors import (
    AlgorithmFailed,
    Busy,
    Interrupted,
    InvalidInput,
    InvalidPipeline,
    PestoError,
    TilesFailed,
    Unreachable,
)
from pesto_runtime.run.records import TileRecord
from tests.support.runs import pipeline, stage

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
def test_the_kind_of_an_error_decides_the_status_of_its_task(error: Exception, status: str) -> None:
    """Final, retried, or returned to the queue: by a busy service, or a worker that stops."""
    assert report_of(error).status == status


def test_the_reason_of_every_error_of_ours_is_its_message() -> None:
    """Also of kinds that are added later; the server shows the reason."""
    for kind in PestoError.__subclasses__():
        report = report_of(kind("the words"))
        assert "the words" in report.reason or report.status == "IN_PROGRESS", kind


def test_a_task_of_a_busy_service_returns_after_the_time_of_retry_after() -> None:
    """Conductor assigns the task again only then."""
    assert report_of(Busy("full", retry_after_s=42)).again_after_s == 42


def test_a_long_reason_is_truncated_and_the_log_has_the_whole_text() -> None:
    """Conductor stores 500 characters."""
    report = report_of(InvalidInput("x" * 2000))
    assert len(report.reason) == 500
    assert report.lines == ("x" * 2000,)


def test_a_defect_leaves_its_traceback_in_the_log() -> None:
    """An error that is not one of ours is a defect."""
    report = report_of(ZeroDivisionError("division by zero"))
    assert report.reason == "ZeroDivisionError: division by zero"
    assert "ZeroDivisionError" in "".join(report.lines)


def test_an_input_that_does_not_fit_its_schema_is_rejected_with_every_fault() -> None:
    """Nulls and Conductor's own `__index` are not faults."""
    progress = ProgressTracker()
    context = TaskContext("http://127.0.0.1:9/api", "w", progress.observer, progress.log)
    with pytest.raises(InvalidInput) as caught:
        binding_of("pesto_process").run(
            {"plan": 7, "phase": 0, "start": 0, "holes": None, "__index": 3, "typo": 1}, context
        )
    faults = {(each.pointer, each.detail.split(" ")[0]) for each in caught.value.fields}
    assert ("/plan", "must") in faults
    assert len(faults) == 3, caught.value


def test_a_plan_names_each_input_that_is_null() -> None:
    """Conductor sets a missing input to null; a retry would not help."""
    progress = ProgressTracker()
    context = TaskContext("http://127.0.0.1:9/api", "w", progress.observer, progress.log)
    given: dict[str, JsonValue] = {
        "pipeline": {
            **pipeline(
                stage("high", "above", image="$inputs.scene", level="$inputs.level"),
                outputs={"image": "$high.image"},
                scene="image", level="number", mask="image",
            )
        },
        "folder": "out", "inputs": {"scene": None, "level": 3, "mask": None},
    }  # fmt: skip
    with pytest.raises(InvalidPipeline) as caught:
        binding_of("pesto_plan").run(given, context)
    assert [str(each) for each in caught.value.fields] == [
        "/inputs/scene: requires a value for 'image' of stage 'high': -i scene=…",
        "/inputs/mask: requires a value: -i mask=…",
    ]
    assert report_of(caught.value).status == "FAILED_WITH_TERMINAL_ERROR"
    assert "requires a value" in report_of(caught.value).reason


def test_a_foreign_task_type_has_no_binding() -> None:
    """The error has the prefix that is required."""
    with pytest.raises(InvalidInput, match="pesto_"):
        binding_of("send_mail")


def test_progress_is_reported_once() -> None:
    """Without a new tile there is no line."""
    progress = ProgressTracker()
    assert progress.new_progress() is None
    for state in ("done", "done", "reused", "hole"):
        progress.observer.on_tile(TileRecord(Window(0, 0, 1, 1), 0.1, state))
    line = progress.new_progress()
    assert line is not None
    assert line.startswith("2 tiles computed, 1 reused, 1 failed in ")
    assert progress.new_progress() is None
    assert not progress.observer.should_stop()
    progress.stop()
    assert progress.observer.should_stop()
