"""A network that requires multiples of 32, on Airflow: the local engine's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.engine_networks import require_same_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.airflow_standalone import Airflow

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(300)]


def test_airflow_gives_the_bytes_of_the_local_engine(
    airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped tasks of a real Airflow; no side of the scene is a multiple of 32."""
    monkeypatch.setenv("PESTO_AIRFLOW_URL", airflow.api.url)
    monkeypatch.setenv("PESTO_AIRFLOW_DAGS", str(airflow.dags))
    require_same_bytes(tmp_path, "airflow")
