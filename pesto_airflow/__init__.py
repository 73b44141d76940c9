"""Airflow provider of pesto-workflows: services discovered and chained, tiles as mapped tasks.

The public names stand in `__init__.pyi` and load on first use (Scientific Python's SPEC 1):
Airflow imports every installed provider, so that importing this package must load nothing else.
"""

import lazy_loader

NOT_INSTALLED = "Airflow 3.3 or later is not installed here: pip install 'pesto-workflows[airflow]'"
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "airflow":
            raise
        raise ImportError(f"{name}: {NOT_INSTALLED}", name=error.name) from None
