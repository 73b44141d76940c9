"""A network that requires multiples of 32, on both orchestrators: the local engine's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.commands import pesto, saved
from tests.support.rasters import noise, pixels_of, sha256_of, write_scene
from tests.support.runs import run_local
from tests.unit.run.test_networks import network, scored

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.airflow_standalone import Airflow
    from tests.support.conductor_workers import Desk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PIXELS = noise(1403, 977)


def require_same_bytes(folder: Path, engine: str) -> None:
    """Run the U-Net on an engine and locally, by other tiles; compare with numpy, too."""
    scene, document = write_scene(folder / "s.tif", PIXELS), network("unet")
    local = run_local(document, folder / "local", {"scene": scene}, tile=512)
    path = saved(folder / "p.json", document)
    done = pesto("run", path, "--engine", engine, "-i", f"scene={scene}", "--tile", 288,
                 "--max-tasks", 4, "-o", folder / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sha256_of(folder / "out" / "image.tif") == local.sha256()
    assert np.array_equal(pixels_of(folder / "out" / "image.tif")[0], scored(PIXELS[0]))


@pytest.mark.airflow
def test_airflow_gives_the_bytes_of_the_local_engine(
    airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped tasks of a real Airflow; no side of the scene is a multiple of 32."""
    monkeypatch.setenv("PESTO_AIRFLOW_URL", airflow.api.url)
    monkeypatch.setenv("PESTO_AIRFLOW_DAGS", str(airflow.dags))
    require_same_bytes(tmp_path, "airflow")


@pytest.mark.conductor
def test_conductor_gives_the_bytes_of_the_local_engine(
    conductor: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks of a real Conductor, with workers of the run."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", conductor.url)
    require_same_bytes(tmp_path, "conductor")
