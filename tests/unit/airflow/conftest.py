"""Airflow writes into its home when it is imported: give it one before any test imports it."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-home-")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.serving import Server


@pytest.fixture(scope="package")
def errands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of the errand, which tells a file what it does."""
    from tests.contract.serving import ERRANDS, served

    jobs = tmp_path_factory.mktemp("jobs")
    with served(ERRANDS + "errand", "--workers", "2", "--jobs", str(jobs)) as server:
        yield server
