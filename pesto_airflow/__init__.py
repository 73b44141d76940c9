"""Airflow provider of pesto-workflows: services discovered and chained, tiles as mapped tasks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_airflow.catalog import Saved, read_saved
    from pesto_airflow.hooks import PestoHook
    from pesto_airflow.operators.discover import PestoDiscoverOperator
    from pesto_airflow.operators.process import PestoProcessOperator
    from pesto_airflow.params import inputs_of, params_of
    from pesto_airflow.placement import placement
    from pesto_airflow.retry import PestoRetryPolicy
    from pesto_airflow.sensors import PestoHealthSensor

_HOMES = {
    "PestoDiscoverOperator": "operators.discover",
    "PestoHealthSensor": "sensors",
    "PestoHook": "hooks",
    "PestoProcessOperator": "operators.process",
    "PestoRetryPolicy": "retry",
    "Saved": "catalog",
    "inputs_of": "params",
    "params_of": "params",
    "placement": "placement",
    "read_saved": "catalog",
}

__all__ = [
    "PestoDiscoverOperator",
    "PestoHealthSensor",
    "PestoHook",
    "PestoProcessOperator",
    "PestoRetryPolicy",
    "Saved",
    "inputs_of",
    "params_of",
    "placement",
    "read_saved",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
