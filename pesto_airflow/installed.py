"""Whether Airflow is installed here, found out without importing it; and what to say where not."""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec

from pesto_runtime.errors import InvalidInput

NOT_INSTALLED = "Airflow 3.3 or later is not installed here: pip install 'pesto-workflows[airflow]'"


def is_airflow_installed() -> bool:
    """Whether `airflow.sdk` can be imported, and what stops an Airflow's processes.

    Looked for, not imported: importing Airflow writes into its home. A folder `airflow/`, as
    `AIRFLOW_HOME` often is, is a package too to Python, so the name alone says nothing.
    """
    found = find_spec("airflow")
    places = found.submodule_search_locations if found else None
    has_sdk = places is not None and PathFinder.find_spec("airflow.sdk", [*places]) is not None
    return has_sdk and find_spec("psutil") is not None


def require_airflow() -> None:
    """Refuse to start an Airflow where there is none.

    Raises:
        InvalidInput: it is not installed; names the extra.
    """
    if not is_airflow_installed():
        raise InvalidInput(f"{NOT_INSTALLED}; or name one that runs elsewhere by PESTO_AIRFLOW_URL")
