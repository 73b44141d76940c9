"""An Airflow of several machines for the tests of this folder; it ends with the last of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.airflow_cluster import airflow_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.airflow_standalone import Airflow


@pytest.fixture(scope="package")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """An Airflow of two workers without a common disk; one for all tests."""
    home = tmp_path_factory.mktemp("cluster")
    with airflow_cluster(tmp_path_factory.getbasetemp(), home, {}) as running:
        yield running
