"""An Airflow of several machines for the tests of this folder; it ends with the last of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.airflow_cluster import airflow_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.airflow_standalone import Airflow


@pytest.fixture(scope="package")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """An Airflow of two workers without a common disk; one for all tests.

    One DAG reports its lineage: `lineage-*` beside the logs, a file for each event.
    """
    base, home = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("cluster")
    transport = {"type": "file", "log_file_path": f"{base}/logs/lineage", "debug_mode": True}
    policy = [
        {"scope": {}, "controls": {"emit": False}},
        {"scope": {"dag_id": "two_machines"}, "controls": {"emit": True}},
    ]
    env = {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__EMISSION_POLICY": json.dumps(policy),
    }
    with airflow_cluster(base, home, env) as running:
        yield running
