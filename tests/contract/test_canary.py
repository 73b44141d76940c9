"""A secret in the query of an href is in nothing that a service or a run writes."""

from __future__ import annotations

import json
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import BadField, InvalidInput
from pesto_runtime.masking import masked
from tests.contract.serving import AT_ONCE, served
from tests.support.commands import pesto
from tests.support.file_server import serving

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "c4nary-5ecret"
SCENE = "examples/data/landsat8_cloudy.tif"
MASK = "examples/cloud_mask.py:cloud_mask"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://h/a.tif?token={CANARY} is broken", "https://h/a.tif?token=… is broken"),
        (
            f"'https://h/a.tif?X-Amz-Signature={CANARY}&v=2'",
            "'https://h/a.tif?X-Amz-Signature=…&v=…'",
        ),
        (f"http://me:{CANARY}@h:80/a (2 of 3)", "http://…@h:80/a (2 of 3)"),
        (f"http://{CANARY}@h/a", "http://…@h/a"),
        (f"(https://h/a?sig={CANARY}): away", "(https://h/a?sig=…): away"),
        ("s3://bucket/me@home/a.tif#bands=1,2", "s3://bucket/me@home/a.tif#bands=1,2"),
        ("me@example.org?subject=a", "me@example.org?subject=a"),
    ],
)
def test_urls_are_shown_without_their_secrets(text: str, shown: str) -> None:
    """User information and the values of a query; the rest of a message stays."""
    assert masked(text) == shown
    assert masked(shown) == shown


def test_every_error_is_masked(tmp_path: Path) -> None:
    """Its text, its fields and its problem document."""
    href = f"https://h/a?t={CANARY}"
    error = InvalidInput(f"no {href}", fields=[BadField("/scene", f"is {href}", repr(href))])
    assert CANARY not in f"{error} {error!r} {json.dumps(error.to_problem())}"
    assert CANARY not in str(error.prefixed(href))


def test_a_service_writes_no_secret_of_its_callers(tmp_path: Path) -> None:
    """Responses, log lines, jobs and metrics; its files are for their owner alone."""
    jobs = tmp_path / "jobs"
    shutil.copy(SCENE, tmp_path / "a.tif")
    (tmp_path / "b.tif").write_bytes(b"no raster")
    with serving(tmp_path, tmp_path / "log") as files:
        options = ["--allow", files.url, "--jobs", str(jobs), "--log-format", "json"]
        with served(MASK, *options) as server:
            said = []
            for name in ("a.tif", "b.tif", "none.tif", "moved/a.tif"):
                body = {"scene": f"{files.url}/{name}?token={CANARY}"}
                answer = server("POST", "/process", json=body, headers={"Accept": "image/tiff"})
                said.append((answer.status_code, str(answer.json()) if answer.is_error else ""))
                job = server("POST", "/process", json=body, headers=AT_ONCE).json()["id"]
                said += [(0, str(server.over(job))), (0, server("GET", f"/jobs/{job}/log").text)]
            said.append((0, server("GET", "/metrics").text))
            modes = {each: stat.S_IMODE(each.stat().st_mode) for each in (jobs, *jobs.rglob("*"))}
            server.process.terminate()
            assert server.process.stderr is not None
            said.append((0, server.process.stderr.read()))
    assert [code for code, _ in said if code] == [200, 422, 422, 422]
    assert any("token=…" in text for _, text in said)
    assert CANARY in (tmp_path / "log").read_text()  # the control: it was sent
    assert not any(CANARY in text for _, text in said)
    shown = {path.name: oct(mode) for path, mode in modes.items() if mode & 0o077}
    assert {name for name in shown if (jobs / name).exists()} == set()


def test_a_run_writes_no_secret_of_its_scenes(tmp_path: Path) -> None:
    """Neither result nor report, nor what it prints; also if it fails."""
    shutil.copy(SCENE, tmp_path / "a.tif")
    out = tmp_path / "out"
    with serving(tmp_path, tmp_path / "log") as files:
        pipeline = "workflows/cloud_cover.json"
        good = pesto("run", pipeline, "-i", f"scene={files.url}/a.tif?token={CANARY}", "-o", out)
        bad = pesto("run", pipeline, "-i", f"scene={files.url}/b.tif?token={CANARY}", "-o", out)
    assert (good.returncode, bad.returncode) == (0, 2), good.stderr + bad.stderr
    texts = [good.stdout + good.stderr, bad.stdout + bad.stderr]
    written = [each for each in out.rglob("*") if each.is_file()]
    assert {"result.json", "report.html"} <= {each.name for each in written}
    scene = json.loads((out / "result.json").read_text())["inputs"]["scene"]
    assert scene["href"].endswith("/a.tif?token=…")
    assert CANARY in (tmp_path / "log").read_text()
    assert [each for each in written if CANARY.encode() in each.read_bytes()] == []
    assert not any(CANARY in text for text in texts)
