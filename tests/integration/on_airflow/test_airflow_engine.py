"""`pesto run --engine airflow`: the local engine's bytes, and no trace of an Airflow it began."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.commands import descendants, is_alive, pesto, saved, started, waited
from tests.support.processes import MARKER
from tests.support.rasters import noise, pixels_of, sha256_of, write_scene
from tests.support.runs import CLOUD_COVER, SCENE, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.airflow_standalone import Airflow

pytestmark = [pytest.mark.integration, pytest.mark.airflow, pytest.mark.timeout(300)]

WIDTH, HEIGHT, TILE, TILES = 1100, 600, 200, 28


@pytest.fixture
def there(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """An Airflow that commands are told of."""
    monkeypatch.setenv("PESTO_AIRFLOW_URL", airflow.api.url)
    monkeypatch.setenv("PESTO_AIRFLOW_DAGS", str(airflow.dags))
    return airflow


def run_words(pipeline: object, scene: object, out: Path, *more: object) -> list[object]:
    return ["run", pipeline, "-i", f"scene={scene}", "-o", out, "--engine", "airflow", *more]


def result_of(folder: Path) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = json.loads((folder / "result.json").read_text())
    return found


def test_a_run_on_an_airflow_that_is_there_gives_the_same_bytes(
    there: Airflow, tmp_path: Path
) -> None:
    """Its id is in the result, its DAG is gone afterwards; the second time nothing is computed."""
    local = run_local(json.loads(CLOUD_COVER.read_text()), tmp_path / "local", {"scene": SCENE})
    before = sorted(there.dags.iterdir())
    words = run_words(CLOUD_COVER, SCENE, tmp_path / "out")

    first, second = pesto(*words), pesto(*words)

    assert first.returncode == 0, first.stderr
    assert sha256_of(tmp_path / "out" / "mask.tif") == local.sha256("mask")
    engine = result_of(tmp_path / "out")["engine"]
    assert isinstance(engine, dict)
    assert engine["run"] in there.api.runs(str(engine["dag"]))
    assert sorted(there.dags.iterdir()) == before
    assert second.returncode == 0, second.stderr
    assert result_of(tmp_path / "out")["engine"] == engine


def test_holes_are_those_of_the_local_engine(there: Airflow, tmp_path: Path) -> None:
    """A tile that fails for good: exit code 3, PARTIAL, the same bytes, the same hole."""
    pixels = noise(WIDTH, HEIGHT)
    pixels[0, 300, 700] = MARKER
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = chain("fragile", broken=str(scene))
    local = run_local(document, tmp_path / "local", {"scene": scene}, tile=TILE, max_tasks=4)
    path = saved(tmp_path / "p.json", document)

    done = pesto(*run_words(path, scene, tmp_path / "out", "--tile", TILE, "--max-tasks", 4))

    assert done.returncode == 3, done.stderr
    assert result_of(tmp_path / "out")["tiles"] == local.result["tiles"]
    assert sha256_of(tmp_path / "out" / "image.tif") == local.sha256()
    holes = [folder / "holes.geojson" for folder in (tmp_path / "out", tmp_path / "local")]
    assert holes[0].read_bytes() == holes[1].read_bytes()


def test_what_is_wrong_is_told_before_an_airflow_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline that does not check is refused as by any engine: exit code 2, no port needed."""
    monkeypatch.setenv("PESTO_AIRFLOW_URL", "http://127.0.0.1:1")
    path = saved(tmp_path / "p.json", {**chain("grow"), "outputs": {"image": "$s0.imag"}})
    done = pesto(*run_words(path, SCENE, tmp_path / "out"))
    assert done.returncode == 2
    assert "imag" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_the_airflow_that_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its own, interrupted half-way: exit code 130, no process, no folder; it resumes."""
    monkeypatch.delenv("PESTO_AIRFLOW_URL", raising=False)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    pixels = noise(WIDTH, HEIGHT)
    scene = write_scene(tmp_path / "s.tif", pixels)
    path, out = saved(tmp_path / "p.json", chain("slow", seconds=0.4)), tmp_path / "out"
    with started(*run_words(path, scene, out, "--tile", TILE)) as process:
        waited(lambda: any((out / ".pesto").glob("blocks/*/*.pack1")), timeout_s=200)
        begun = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert "resume" in told
    assert "Traceback" not in told
    assert begun
    assert not any(is_alive(pid) for pid in begun)
    assert not any(temporary.iterdir())
    assert not (out / "result.json").exists()

    again = pesto("run", path, "-i", f"scene={scene}", "-o", out, "--tile", TILE)

    assert again.returncode == 0, again.stderr
    tiles = result_of(out)["tiles"]
    assert isinstance(tiles, dict)
    assert 0 < int(str(tiles["computed"])) < TILES
    assert np.array_equal(pixels_of(out / "image.tif"), pixels)
