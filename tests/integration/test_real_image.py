"""A real image of a PESTO project: built by buildah on a Debian root, run, and tested by the kit.

It needs buildah, debootstrap, root and a package index; where one is missing, it is skipped.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.kit.claims import NotApplicable
from pesto_runtime.kit.contract_kit import all_checks
from pesto_runtime.kit.service_under_test import ServiceUnderTest
from pesto_runtime.projects.running_service import running_service
from tests.support.commands import ROOT, pesto
from tests.support.projects import write_project

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.integration,
    pytest.mark.image,
    pytest.mark.endurance,
    pytest.mark.timeout(3000),
]

BASE = "localhost/pesto-test-base:1"
CERTIFICATES = "--builder-option=--volume=/etc/ssl/certs:/etc/ssl/certs:ro"


@pytest.fixture(scope="module", autouse=True)
def _chroot() -> Iterator[None]:
    """Buildah without user namespaces and overlays, as a container without privileges has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDAH_ISOLATION", "chroot")
        patch.setenv("STORAGE_DRIVER", "vfs")
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of a Debian root, made once on a machine."""
    lacking = [each for each in ("buildah", "debootstrap") if shutil.which(each) is None]
    if lacking or os.geteuid() != 0:
        pytest.skip(f"NO IMAGE IS TESTED: it needs root and {', '.join(lacking) or 'nothing else'}")
    if run("buildah", "images", "-q", BASE, check=False).stdout:
        return BASE
    root = tmp_path_factory.mktemp("debian")
    made = run("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates",
               "stable", root, check=False)  # fmt: skip
    if made.returncode:
        pytest.skip(f"NO IMAGE IS TESTED: debootstrap has no mirror: {made.stdout[-200:]}")
    container = run("buildah", "from", "scratch").stdout.strip()
    run("buildah", "add", "-q", container, root, "/")
    run("buildah", "commit", "-q", "--rm", container, BASE)
    return BASE


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package as a wheel."""
    out = tmp_path_factory.mktemp("wheel")
    run(Path(sys.executable).with_name("uv"), "build", "--wheel", "-q", "--out-dir", out, ROOT)
    (found,) = out.glob("*.whl")
    return found


def test_a_project_is_built_run_and_passes_the_kit(base: str, wheel: Path, tmp_path: Path) -> None:
    """Its own recorded calls, every check that applies, the user, the labels; then the caches.

    After a change of the algorithm alone, C1 and C2 are reused. With -c, exactly the layers up to
    the level are reused, though nothing has changed.
    """
    project = write_project(tmp_path / "scaled")
    words = (project, "-o", tmp_path / "out", "--base", base, "--runtime", wheel, CERTIFICATES)

    def reused(*options: str) -> list[str]:
        made = pesto("build", *words, *options)
        assert made.returncode == 0, made.stderr[-2000:]
        return cached_steps(made.stderr)

    reused()
    cases = project / "pesto" / "tests" / "resources"
    replayed = pesto("test", "scaled:1.2.0", "--cases", cases)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    with running_service("scaled:1.2.0") as url:
        assert failures(url) == {}
        with Client(url) as client:
            digest = client.digest
    config = json.loads(run("buildah", "inspect", "--type", "image", "scaled:1.2.0").stdout)
    config = config["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.pesto.description.digest"] == digest
    assert "Healthcheck" in config

    code = project / "algorithm" / "process.py"
    code.write_text(code.read_text() + "\n")
    assert reused() == ["C1", "C2"]
    assert reused("-c", "C1") == ["C1"]
    assert reused("-c", "C2") == ["C1", "C2"]
    assert reused("-c", "C3") == ["C1", "C2", "C3"]


def test_a_function_is_built_run_and_passes_the_kit(base: str, wheel: Path, tmp_path: Path) -> None:
    """An example of one file; `pesto list --images` has its image."""
    target = ROOT / "examples" / "cloud_mask.py:cloud_mask"
    made = pesto("build", target, "-o", tmp_path, "--base", base, "--runtime", wheel, CERTIFICATES)
    assert made.returncode == 0, made.stderr[-2000:]
    with running_service("cloud-mask:1.0.0") as url:
        assert failures(url) == {}
    assert "cloud-mask 1.0.0  buildah" in pesto("list", "--images").stdout


def cached_steps(log: str) -> list[str]:
    """The cache levels whose last layer was reused."""
    last = {"C1": "runtime/requirements.txt", "C2": "pip/requirements.txt", "C3": "COPY project/"}
    steps = re.split(r"^STEP ", log, flags=re.MULTILINE)
    return [
        level
        for level, words in last.items()
        if any(words in each.split("\n")[0] and "Using cache" in each for each in steps)
    ]


def failures(url: str) -> dict[str, str]:
    """Checks of the kit that fail, with what they saw."""
    service = ServiceUnderTest.at(url)
    found = {}
    try:
        for name, check in all_checks().items():
            try:
                check.run(service)
            except NotApplicable:
                continue
            except AssertionError as seen:
                found[name] = str(seen)
    finally:
        service.close()
    return found


def run(*words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{words}: {done.stderr[-1000:]}"
    return done
