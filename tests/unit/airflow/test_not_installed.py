"""Where Airflow is not installed: one line that names the extra, whatever is called."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pesto_airflow.trial.engine import is_airflow_installed
from pesto_airflow.trial.standalone import running_standalone
from pesto_runtime.errors import RunFailed
from tests.support.runs import CLOUD_COVER, ROOT, SCENE

EXTRA = "pip install 'pesto-workflows[airflow]'"
IMPORT = "from pesto_airflow import pesto_pipeline"
RUN = "from pesto_runtime.cli import main; main()"


@pytest.fixture(scope="module")
def without_airflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that is installed here, but for Airflow."""
    folder = tmp_path_factory.mktemp("site")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.name not in ("airflow", "psutil"):
            (folder / path.name).symlink_to(path)
    return folder


def ran(site: Path, cwd: Path, code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run Python on this folder of packages, beside a folder `airflow/`, as a home of it is."""
    (cwd / "airflow").mkdir(exist_ok=True)
    path = os.pathsep.join(map(str, (cwd, site, ROOT)))
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *map(str, words)],
        cwd=cwd, env={"PYTHONPATH": path, "AIRFLOW_HOME": str(cwd / "airflow"), "PATH": "/bin"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_run_is_refused_before_anything_is_started(without_airflow: Path, tmp_path: Path) -> None:
    """Exit code 2 and one line, though there is a folder `airflow/`; nothing is left behind."""
    words = ("run", CLOUD_COVER, "--engine", "airflow", "-i", f"scene={SCENE}", "-o", "out")
    done = ran(without_airflow, tmp_path, RUN, *words)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert EXTRA in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["airflow"]


def test_an_import_names_the_extra(without_airflow: Path, tmp_path: Path) -> None:
    """An ImportError of one link; the control: with Airflow the same import succeeds."""
    done = ran(without_airflow, tmp_path, IMPORT)
    assert done.stderr.splitlines()[-1].startswith("ImportError: pesto_pipeline: ")
    assert EXTRA in done.stderr
    assert done.stderr.count("Traceback") == 1
    control = ran(Path(sysconfig.get_path("purelib")), tmp_path, IMPORT)
    assert control.returncode == 0, control.stderr


def test_airflow_is_found_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside a folder of its name, which comes first on the path."""
    (tmp_path / "airflow").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert is_airflow_installed()


def test_an_output_that_cannot_be_written_is_refused_before_an_airflow_is_started(
    tmp_path: Path,
) -> None:
    """In the words of the local engine, with exit code 2."""
    site = Path(sysconfig.get_path("purelib"))
    words = ["run", CLOUD_COVER, "-i", f"scene={SCENE}", "-o", "/proc/x", "--engine"]
    airflow, local = (ran(site, tmp_path, RUN, *words, name) for name in ("airflow", "local"))
    assert airflow.returncode == local.returncode == 2
    assert airflow.stderr == local.stderr
    assert "/proc/x cannot be an output folder" in local.stderr


def test_what_goes_wrong_in_stopping_never_hides_the_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that refuses to list its processes: the first error is raised, with a note."""

    def refuse() -> list[int]:
        raise PermissionError("no list of processes")

    monkeypatch.setattr("pesto_airflow.trial.standalone.Standalone.start", lambda _self: None)
    monkeypatch.setattr("pesto_airflow.trial.standalone._all_pids", refuse)
    with (
        pytest.raises(RunFailed, match="the first") as caught,
        running_standalone(tmp_path / "home", tmp_path),
    ):
        raise RunFailed("the first")
    assert "no list of processes" in caught.value.__notes__[0]
    with pytest.raises(PermissionError), running_standalone(tmp_path / "home", tmp_path):
        pass
