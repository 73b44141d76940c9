"""Parsing the DAG files contacts no service, and imports no library for pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.runs import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DAGS = sorted(path.name for path in (ROOT / "dags").glob("*.py"))
PARSE = """
import runpy, socket, sys

def refuse(*_):
    raise AssertionError("a network call")

import airflow.sdk
before = set(sys.modules)
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
runpy.run_path(sys.argv[1])
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


@pytest.mark.parametrize("name", DAGS)
def test_parsing_a_dag_contacts_no_service_and_imports_no_pixels(tmp_path: Path, name: str) -> None:
    """With sockets that refuse; rasterio, GDAL's bindings, HTTP and stores stay away."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, str(ROOT / "dags" / name)],
        env={"AIRFLOW_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout.splitlines()[-1].replace("'", '"')))
    assert not imported & {"rasterio", "obstore", "scipy", "fastapi", "uvicorn"}
    assert "pesto_airflow" in imported
