"""A real Airflow for the tests of this folder; it ends with the last of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.airflow_standalone import Airflow


@pytest.fixture(scope="package")
def airflow(tmp_path_factory: pytest.TempPathFactory, bucket_port: int) -> Iterator[Airflow]:
    """A real Airflow over the DAG files of the repository; 20 s to start, one for all tests.

    Its tasks know the bucket.
    """
    from tests.support.airflow_standalone import shared_airflow
    from tests.support.buckets import variables

    with shared_airflow(tmp_path_factory.mktemp("airflow"), variables(bucket_port)) as running:
        yield running
