"""The typed arguments of operators are those that Airflow's own accept."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest
from airflow.sdk import BaseOperator, BaseSensorOperator

from pesto_airflow.arguments import CommonArguments, SensorArguments, TaskArguments

if TYPE_CHECKING:
    from collections.abc import Callable


def _names(function: Callable[..., object]) -> set[str]:
    found = inspect.signature(function).parameters.values()
    return {each.name for each in found if each.kind is each.KEYWORD_ONLY}


def test_the_types_name_every_argument_of_airflow() -> None:
    """A new argument of an Airflow version, or one that it drops, is seen here."""
    tasks, sensors = _names(BaseOperator.__init__), _names(BaseSensorOperator.__init__)
    assert {*TaskArguments.__annotations__} == tasks
    assert {*SensorArguments.__annotations__} == (tasks | sensors) - {"poke_interval"}
    assert {*CommonArguments.__annotations__} < tasks


def test_an_unknown_argument_is_refused_when_the_file_is_parsed() -> None:
    """The control: Airflow's own check is reached."""
    from pesto_airflow import PestoProcessOperator

    with pytest.raises(TypeError, match="retrys"):
        PestoProcessOperator(task_id="t", inputs={}, service="http://x", retrys=1)  # type: ignore[call-arg]
