"""Airflow provider of pesto-workflows: services discovered and chained, tiles as mapped tasks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_airflow.catalog import Saved, read_saved
    from pesto_airflow.hooks import PestoHook
    from pesto_airflow.operators.call import PestoCallOperator
    from pesto_airflow.operators.close import PestoClosePhaseOperator
    from pesto_airflow.operators.discover import PestoDiscoverOperator
    from pesto_airflow.operators.map import PestoMapOperator
    from pesto_airflow.operators.merge import PestoMergeOperator
    from pesto_airflow.operators.mosaic import PestoMosaicOperator
    from pesto_airflow.operators.plan import PestoPlanOperator
    from pesto_airflow.operators.process import PestoProcessOperator
    from pesto_airflow.operators.publish import PestoPublishOperator
    from pesto_airflow.operators.reduce import PestoReduceOperator
    from pesto_airflow.params import inputs_of, params_of
    from pesto_airflow.pools import placement
    from pesto_airflow.retry import PestoRetryPolicy
    from pesto_airflow.sensors import PestoHealthSensor
    from pesto_airflow.taskgroups import pesto_pipeline

_HOMES = {
    "PestoCallOperator": "operators.call",
    "PestoClosePhaseOperator": "operators.close",
    "PestoDiscoverOperator": "operators.discover",
    "PestoHealthSensor": "sensors",
    "PestoHook": "hooks",
    "PestoMapOperator": "operators.map",
    "PestoMergeOperator": "operators.merge",
    "PestoMosaicOperator": "operators.mosaic",
    "PestoPlanOperator": "operators.plan",
    "PestoProcessOperator": "operators.process",
    "PestoPublishOperator": "operators.publish",
    "PestoReduceOperator": "operators.reduce",
    "PestoRetryPolicy": "retry",
    "Saved": "catalog",
    "inputs_of": "params",
    "params_of": "params",
    "pesto_pipeline": "taskgroups",
    "placement": "pools",
    "read_saved": "catalog",
}

__all__ = [
    "PestoCallOperator",
    "PestoClosePhaseOperator",
    "PestoDiscoverOperator",
    "PestoHealthSensor",
    "PestoHook",
    "PestoMapOperator",
    "PestoMergeOperator",
    "PestoMosaicOperator",
    "PestoPlanOperator",
    "PestoProcessOperator",
    "PestoPublishOperator",
    "PestoReduceOperator",
    "PestoRetryPolicy",
    "Saved",
    "inputs_of",
    "params_of",
    "pesto_pipeline",
    "placement",
    "read_saved",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "airflow":
            raise
        from pesto_airflow.installed import NOT_INSTALLED

        raise ImportError(f"{name}: {NOT_INSTALLED}", name=error.name) from None
    return getattr(home, name)
