"""A home for Airflow, and a service for its tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import tests.support.airflow_home  # noqa: F401  # before any test imports Airflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.serving import Server


@pytest.fixture(scope="package")
def errands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of the errand, which writes its progress into a file."""
    from tests.contract.serving import ERRANDS, served

    jobs = tmp_path_factory.mktemp("jobs")
    with served(ERRANDS + "errand", "--workers", "2", "--jobs", str(jobs)) as server:
        yield server
