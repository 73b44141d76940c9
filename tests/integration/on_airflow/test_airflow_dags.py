"""Every DAG of `dags/`, run by `dag.test()`: no scheduler, no server, the right bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.rasters import sha256_of
from tests.support.runs import CLOUD_COVER, ROOT, SCENE, Done, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(240)]

TEST_DAGS = """
import json, runpy, sys
from airflow.utils.db import initdb

initdb()
for dag_id, conf in json.loads(sys.argv[1]).items():
    dag = runpy.run_path(f"dags/{dag_id}.py")[dag_id]()
    run = dag.test(run_conf=conf)
    print("STATE", dag_id, run.state)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """What the local engine makes of the scene."""
    folder = tmp_path_factory.mktemp("local") / "out"
    return run_local(json.loads(CLOUD_COVER.read_text()), folder, {"scene": SCENE})


def test_a_dag_of_the_repository_runs_by_itself(tmp_path: Path, local: Done) -> None:
    """Green in one process, which takes 10 s to start, with the local engine's mask."""
    confs: dict[str, JsonValue] = {
        dag_id: {"scene": str(SCENE), "folder": str(tmp_path / dag_id)}
        for dag_id in ("cloud_cover", "chain")
    }
    settings = {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    done = subprocess.run(
        [sys.executable, "-c", TEST_DAGS, json.dumps(confs)],
        cwd=ROOT, env={**os.environ, **settings},
        capture_output=True, text=True, check=False, timeout=230,
    )  # fmt: skip
    for dag_id in confs:
        told = done.stdout[-3000:] + done.stderr[-3000:]
        assert f"STATE {dag_id} success" in done.stdout, told
        assert sha256_of(tmp_path / dag_id / "mask.tif") == local.sha256("mask")
