"""500 small scenes and three large ones in one campaign on a real Airflow, with two kills."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from pesto_airflow.catalog import write_catalog
from pesto_runtime.contract import Pipeline
from pesto_runtime.run.services import resolve_services
from tests.support.airflow_standalone import until
from tests.support.campaign_sizes import DOCUMENT, KILLS, MOST_TASKS, TILE, SizesCampaign
from tests.support.commands import saved
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.airflow_standalone import Airflow

pytestmark = [
    pytest.mark.integration, pytest.mark.airflow, pytest.mark.endurance,
    pytest.mark.timeout(2400),
]  # fmt: skip

_LOG = logging.getLogger(__name__)
DAG_ID = "campaign_sizes"
DAG = """
from airflow.sdk import Param, dag, task

from pesto_airflow import pesto_campaign


@dag(schedule=None, params={{"scenes": Param(type="array"), "folder": Param(type="string")}})
def campaign_sizes():
    @task
    def listed(params: dict) -> list[str]:
        return params["scenes"]

    pesto_campaign(
        {pipeline!r}, services={services!r}, scenes=listed(), folder="{{{{ params.folder }}}}",
        group_id="run", tile={tile}, max_tasks={most},
    )


campaign_sizes()
"""


def add_dag(airflow: Airflow, folder: Path) -> None:
    """Add the DAG, with pipeline and descriptions in a folder."""
    found = resolve_services(Pipeline.parse(DOCUMENT), base=ROOT)
    write_catalog(found.found.values(), folder / "catalog")
    pipeline = saved(folder / "pipeline.json", DOCUMENT)
    names = {"pipeline": str(pipeline), "services": str(folder / "catalog")}
    airflow.add(DAG_ID, DAG.format(**names, tile=TILE, most=MOST_TASKS))


def test_small_and_large_scenes_outlive_kills(airflow: Airflow, tmp_path: Path) -> None:
    """Of a task and of the scheduler; a run with the same scenes touches the failed ones alone."""
    campaign = SizesCampaign(tmp_path)
    add_dag(airflow, tmp_path)
    conf: dict[str, JsonValue] = {"scenes": campaign.hrefs, "folder": str(campaign.out)}

    def pids(run_id: str) -> list[int]:
        tasks = airflow.api.tasks(DAG_ID, run_id)
        running = [t for t in tasks if t.task_id.startswith("run.map") and t.state == "running"]
        return [task.pid for task in running if task.pid is not None]

    begun, run_id = time.monotonic(), airflow.api.trigger(DAG_ID, conf)
    campaign.wait_for_packs(KILLS[0])
    until(lambda: pids(run_id))
    os.kill(pids(run_id)[0], signal.SIGKILL)
    campaign.wait_for_packs(KILLS[1])
    airflow.kill("scheduler")
    airflow.restart("scheduler")
    assert airflow.api.await_end(DAG_ID, run_id, timeout_s=1500) == "failed"
    seconds = time.monotonic() - begun
    tasks = airflow.api.tasks(DAG_ID, run_id)
    failed = {each.task_id for each in tasks if each.state == "failed"}
    assert failed == {"run.require_scenes"}, airflow.logs(DAG_ID, run_id)
    assert len(tasks) <= MOST_TASKS + 10
    campaign.require_all_but_the_unreadable()

    campaign.mend()
    begun = time.monotonic()
    run_id, state = airflow.run(DAG_ID, conf, timeout_s=600)
    _LOG.warning("%.0f s, then %.0f s", seconds, time.monotonic() - begun)
    assert state == "success", airflow.logs(DAG_ID, run_id)
    assert len(airflow.api.tasks(DAG_ID, run_id)) <= 2 * 25 + 10
    campaign.require_all()
