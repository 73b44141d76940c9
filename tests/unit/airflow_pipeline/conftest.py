"""A home for Airflow."""

import tests.support.airflow_home  # noqa: F401  # before any test imports Airflow
