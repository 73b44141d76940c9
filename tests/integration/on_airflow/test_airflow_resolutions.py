"""A warp, images of two resolutions and folded values on Airflow: the local engine's results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_airflow.catalog import write_catalog
from pesto_runtime.contract import Pipeline
from pesto_runtime.run.services import resolve_services
from tests.support.engine_resolutions import DOCUMENT, TwoPlaces

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.airflow_standalone import Airflow

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(300)]

DAG = """
from airflow.sdk import dag

from pesto_airflow import pesto_campaign, pesto_pipeline

SETTINGS = {{"services": {catalog!r}, "max_tasks": 3}}


@dag(schedule=None)
def two_places():
    pesto_pipeline({file!r}, group_id="alone", inputs={inputs!r}, folder={alone!r}, **SETTINGS)
    pesto_campaign({file!r}, group_id="many", scenes={scenes!r}, folder={out!r}, **SETTINGS)


two_places()
"""


def test_a_run_and_a_campaign_give_the_results_of_the_local_engine(
    airflow: Airflow, tmp_path: Path
) -> None:
    """All bytes and values, of one scene and of two."""
    places, alone, out = TwoPlaces(tmp_path), tmp_path / "alone", tmp_path / "out"
    found = resolve_services(Pipeline.parse(DOCUMENT), base=tmp_path)
    write_catalog(found.found.values(), tmp_path / "catalog")
    airflow.add("two_places", DAG.format(
        file=str(places.file), catalog=str(tmp_path / "catalog"), scenes=places.scenes,
        inputs=places.given("north"), alone=str(alone), out=str(out),
    ))  # fmt: skip
    run_id, state = airflow.run("two_places", {})
    assert state == "success", airflow.logs("two_places", run_id)
    campaign_folders = [(name, out / name) for name in places.names]
    places.require_local_results(("north", alone), *campaign_folders)
