"""A real Airflow for the tests of this folder; it ends with the last of them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.airflow_standalone import Airflow


@pytest.fixture(scope="package")
def metrics() -> Iterator[socket.socket]:
    """A StatsD server: the metrics of pipelines of the Airflow of this folder, by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        yield server


@pytest.fixture(scope="package")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, bucket_port: int, metrics: socket.socket
) -> Iterator[Airflow]:
    """A real Airflow over the DAG files of the repository; 20 s to start, one for all tests.

    Its tasks know the bucket.
    """
    from tests.support.airflow_standalone import shared_airflow
    from tests.support.buckets import variables

    statsd = {
        "STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_INFLUXDB_ENABLED": "True",
        "STATSD_PORT": str(metrics.getsockname()[1]), "METRICS_ALLOW_LIST": "pesto",
    }  # fmt: skip
    env = variables(bucket_port) | {
        f"AIRFLOW__METRICS__{key}": each for key, each in statsd.items()
    }
    with shared_airflow(tmp_path_factory.mktemp("airflow"), env) as running:
        yield running
