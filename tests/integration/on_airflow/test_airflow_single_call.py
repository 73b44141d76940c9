"""The DAG of one call by hand: its form, its mask, and the quick way to try it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import file_href
from pesto_runtime.run.single_call import call_once
from tests.contract.serving import Server, served
from tests.support.rasters import pixels_of
from tests.support.runs import ROOT, SCENE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from pydantic import JsonValue

    from tests.support.airflow_standalone import Airflow

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(240)]

MASK = f"{ROOT}/examples/cloud_mask.py:cloud_mask"


@contextmanager
def masks(folder: Path) -> Iterator[Server]:
    """A service of cloud masks that may write to a folder."""
    with served(MASK, "--workers", "1", "--allow", str(folder)) as server:
        yield server


def form(server: Server, out: Path) -> dict[str, JsonValue]:
    """A form filled in rightly."""
    hrefs: dict[str, JsonValue] = {"scene": file_href(SCENE), "out": file_href(out)}
    return {**hrefs, "service": server.url, "threshold": 0.02}


def expected(folder: Path) -> np.ndarray:
    """The mask (band, row, col) of the same call of the function itself."""
    path = folder / "alone.tif"
    call_once(MASK, {"scene": str(SCENE), "threshold": "0.02"}, keep={"cloud": path})
    return pixels_of(path)


def test_the_form_of_a_single_call_is_its_input_schema(airflow: Airflow, tmp_path: Path) -> None:
    """Airflow refuses what the schema does; a right call writes the mask, and answers its href."""
    out = tmp_path / "new" / "folder" / "cloud.tif"
    with masks(tmp_path) as server:
        conf = form(server, out)
        with pytest.raises(InvalidInput, match="threshold"):
            airflow.api.trigger("single_call", {**conf, "threshold": "high"})
        with pytest.raises(InvalidInput, match="scene"):
            airflow.api.trigger("single_call", {"service": server.url})
        run_id, state = airflow.run("single_call", conf)
        assert state == "success", airflow.logs("single_call", run_id)
        task = airflow.task("single_call", run_id, "cloud_mask")
        told = airflow.api.xcoms("single_call", run_id, task)["return_value"]
    assert told == {"cloud": file_href(out)}
    assert (pixels_of(out) == expected(tmp_path)).all()


def test_one_command_tries_it_without_a_scheduler(tmp_path: Path) -> None:
    """`airflow dags test` runs it in its own process.

    The home is its own: a scheduler that shared the database would take the run's task away.
    """
    out = tmp_path / "cloud.tif"
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    _airflow(env, "db", "migrate")
    with masks(tmp_path) as server:
        _airflow(env, "dags", "test", "single_call", "--conf", json.dumps(form(server, out)))
    assert (pixels_of(out) == expected(tmp_path)).all()


def _airflow(env: Mapping[str, str], *words: str) -> None:
    """Run a command of Airflow's."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *words], env=env, check=False, cwd=ROOT,
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
