"""One service with several processes, of which one is a pipeline."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from pesto_runtime.cli.main import app
from pesto_runtime.client.client import Client
from pesto_runtime.engines import RunRequest, SilentListener, load_engine
from pesto_runtime.errors import InvalidInput, NotFound
from pesto_runtime.finished_run import Run
from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.codec import decode_image
from pesto_runtime.run.targets import pipeline_of
from pesto_runtime.service.app import _require_names
from tests.contract.serving import AT_ONCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator

PIPELINE, MASK = "workflows/cloud_cover.json", "examples/cloud_mask.py:cloud_mask"
ECHO = "tests/support/ogc_echo.py:echo"
SCENE = file_href("examples/data/landsat8_cloudy.tif")
_PESTO = "from pesto_runtime.cli import main; main()"


@dataclass(frozen=True)
class Joint:
    """A service of several processes.

    Attributes:
        root: Its address.
        http: A client.
        lines: What it printed until all processes were ready.
    """

    root: str
    http: httpx.Client
    lines: tuple[str, ...]

    def api(self, process: str) -> str:
        """The address of PESTO's endpoints of a process."""
        return f"{self.root}/{process}/api/v1"


@contextmanager
def joint(*targets: str, options: tuple[str, ...] = ()) -> Iterator[Joint]:
    words = ["serve", *targets, "--port", "0", "--workers", "1", *options]
    with subprocess.Popen(
        [sys.executable, "-c", _PESTO, *words], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            lines = [process.stderr.readline() for _ in targets]
            found = re.search(r"http://[^/]+", lines[0])
            assert found is not None, lines
            with httpx.Client(trust_env=False, timeout=60) as http:
                yield Joint(found[0], http, tuple(lines))
        finally:
            process.kill()
            process.stderr.read()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joint]:
    """A pipeline, and two functions; two callers."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text("alice alice-0123456789abcdef\nbob bob-0123456789abcdef\n")
    allowed = ("--allow", "examples/data", "--token-file", str(tokens))
    with joint(PIPELINE, MASK, ECHO, options=allowed) as found:
        found.http.headers["Authorization"] = "Bearer alice-0123456789abcdef"
        yield found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same pipeline, run by the local engine."""
    folder = tmp_path_factory.mktemp("run") / "out"
    source = pipeline_of(PIPELINE)
    request = RunRequest(source.pipeline, source.base, {"scene": SCENE}, folder, report="none")
    load_engine("local").run(request, watcher=SilentListener())
    return Run.of(folder)


def test_each_process_has_its_endpoints_and_all_are_listed(service: Joint) -> None:
    """The printed addresses are those of PESTO's endpoints; the root has none of one process."""
    listed = service.http.get(f"{service.root}/processes").json()["processes"]
    names = [each["id"] for each in listed]
    assert names == ["cloud-cover", "cloud-mask", "echo"]
    for name in names:
        assert any(service.api(name) in line for line in service.lines)
        document = service.http.get(f"{service.api(name)}/describe").json()
        assert document["name"] == name
        assert document["_links"]["execution"]["href"] == f"{service.api(name)}/process"
        assert service.http.get(f"{service.root}/{name}/docs").status_code == 200
    builds = {
        service.http.get(f"{service.api(n)}/describe").headers["x-pesto-build"] for n in names
    }
    assert len(builds) == 3
    absent = service.http.get(f"{service.root}/api/v1/describe")
    assert absent.status_code == 404
    assert "/cloud-mask" in absent.json()["detail"]


def test_a_whole_scene_is_one_call_of_the_pipeline(service: Joint, expected: Run) -> None:
    """Its products are those of a run, byte for byte."""
    answer = service.http.post(f"{service.api('cloud-cover')}/process", json={"scene": SCENE})
    assert answer.status_code == 200, answer.text
    assert answer.json()["cover"] == expected.values["cover"]
    raw = service.http.post(
        f"{service.api('cloud-cover')}/process", json={"scene": SCENE},
        headers={"Accept": "image/tiff"},
    )  # fmt: skip
    assert raw.content == Path(str(expected.path("mask"))).read_bytes()


def test_pixels_in_the_request_are_a_scene_too(service: Joint, expected: Run) -> None:
    """In a form; the answer is one, if that is accepted."""
    content = Path("examples/data/landsat8_cloudy.tif").read_bytes()
    answer = service.http.post(
        f"{service.api('cloud-cover')}/process",
        files={"scene": ("s.tif", content, "image/tiff")},
        headers={"Accept": "multipart/form-data"},
    )
    assert answer.status_code == 200, answer.text
    with Client(service.api("cloud-cover"), headers=dict(service.http.headers)) as client:
        found = client.process({"scene": decode_image(content)})
    np.testing.assert_array_equal(found["mask"], expected.read("mask"))
    assert found["cover"] == expected.values["cover"]


def test_a_run_is_a_job_with_progress(service: Joint, expected: Run) -> None:
    """By OGC: results by reference to files that the service keeps."""
    body = {
        "inputs": {"scene": {"href": SCENE}},
        "outputs": {"mask": {"transmissionMode": "reference"}, "cover": {}},
        "response": "document",
    }
    execution = f"{service.root}/processes/cloud-cover/execution"
    job = service.http.post(execution, json=body, headers={"Prefer": "respond-async"})
    assert job.status_code == 201, job.text
    url = job.headers["location"]
    until(lambda: service.http.get(url).json()["status"] not in ("accepted", "running"))
    assert service.http.get(url).json()["progress"] == 100
    results = service.http.get(f"{url}/results").json()
    assert results["cover"] == expected.values["cover"]
    mask = service.http.get(results["mask"]["href"])
    assert mask.content == Path(str(expected.path("mask"))).read_bytes()
    assert results["mask"]["href"].startswith(service.api("cloud-cover"))


def test_a_dismissed_run_stops(tmp_path: Path) -> None:
    """Its worker is killed, and another one takes the next call."""
    pipeline = tmp_path / "slow.json"
    pipeline.write_text(
        '{"name": "slow", "inputs": {"a": "image"}, "services": {"wait": "p.py:wait"},'
        ' "stages": [{"id": "w", "process": "wait", "inputs": {"a": "$inputs.a"}}],'
        ' "outputs": {"b": "$w.result"}}'
    )
    (tmp_path / "p.py").write_text(
        "import time\nfrom typing import Annotated\nimport numpy as np\nimport pesto_runtime\n"
        "from pesto_runtime import Raster\n"
        "@pesto_runtime.process(version='1.0.0')\n"
        "def wait(a: Annotated[np.ndarray, Raster(margin=0)]) -> "
        "Annotated[np.ndarray, Raster()]:\n    time.sleep(3600)\n    return a\n"
    )
    from tests.contract.serving import served

    with served(str(pipeline)) as server:
        job = server.submit({"a": SCENE}).json()["id"]
        until(lambda: server.job(job)["state"] == "running")
        assert server("DELETE", f"/jobs/{job}").status_code == 200
        assert server.job(job)["state"] == "dismissed"
        until(lambda: server("GET", "/health").text == "OK")


def test_a_quote_is_the_plan_of_a_pipeline(service: Joint) -> None:
    """Tiles, bytes, memory, seconds; a wrong scene is an error; one process has none."""
    quote = f"{service.root}/processes/cloud-cover/quote"
    answer = service.http.post(quote, json={"inputs": {"scene": {"href": SCENE}}})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["processID"] == "cloud-cover"
    assert found["tiles"] >= 1
    assert found["bytesRead"] >= 627 * 603 * 4 * 2
    assert found["memoryBytes"] > 0
    wrong = service.http.post(quote, json={"inputs": {"scene": {"href": SCENE + "x"}}})
    assert 400 <= wrong.status_code < 500
    other = service.http.post(
        quote.replace("cloud-cover", "echo"), json={"inputs": {"stringInput": "a"}}
    )
    assert other.status_code == 400
    assert "pipeline" in other.json()["detail"]


def test_scenes_of_a_pipeline_pass_the_gate(service: Joint) -> None:
    """And inputs are checked against what the stages need, before anything runs."""
    for scene in ("file:///etc/hostname", "http://127.0.0.1:9/a.tif", "s3://b/a.tif"):
        answer = service.http.post(f"{service.api('cloud-cover')}/process", json={"scene": scene})
        assert answer.status_code == 422, answer.text
        assert answer.json()["type"].endswith("href-refused")
    url = f"{service.api('cloud-cover')}/process"
    for body in ({}, {"scene": SCENE, "more": 1}, {"scene": 3}):
        assert service.http.post(url, json=body).status_code == 422


def test_callers_see_their_own_jobs_of_every_process(service: Joint) -> None:
    """Below the name of a process as at the root."""
    submitted = service.http.post(
        f"{service.api('echo')}/process", json={"stringInput": "a"},
        headers={"Prefer": "respond-async"},
    )  # fmt: skip
    job = submitted.json()["id"]
    bob = {"Authorization": "Bearer bob-0123456789abcdef"}
    paths = (f"{service.api('echo')}/jobs/{job}", f"{service.root}/jobs/{job}")
    for path in (*paths, f"{service.api('echo')}/jobs/{job}/results"):
        assert service.http.get(path, headers=bob).status_code == 404, path
    for path in paths:
        assert service.http.get(path).status_code == 200, path
    listed = service.http.get(f"{service.root}/jobs", headers=bob).json()["jobs"]
    assert job not in [each["jobID"] for each in listed]
    for path in (f"{service.root}/api/v1/health", f"{service.api('echo')}/health"):
        assert httpx.get(path).text == "OK"
    assert httpx.get(f"{service.api('echo')}/describe").status_code == 401


def test_health_and_metrics_are_of_all(service: Joint) -> None:
    """A state for each process; figures are added up."""
    document = service.http.get(
        f"{service.root}/api/v1/health", headers={"Accept": "application/json"}
    ).json()
    assert set(document["processes"]) == {"cloud-cover", "cloud-mask", "echo"}
    text = service.http.get(f"{service.root}/metrics").text
    assert "pesto_workers 3.0" in text
    assert text.count("pesto_service_info{") == 3
    assert 'pesto_requests_total{endpoint="process"' in text


def test_discover_saves_all_processes_of_a_service(tmp_path: Path) -> None:
    """From the address of the service; from that of one process, one."""
    with joint(MASK, ECHO, options=("--local-files",)) as found:
        saved = CliRunner().invoke(app, ["discover", found.root, "--save", str(tmp_path / "all")])
        assert saved.exit_code == 0, saved.output
        assert sorted(each.name for each in (tmp_path / "all").iterdir()) == [
            "cloud-mask@1.0.0.json", "echo@1.0.0.json",
        ]  # fmt: skip
        one = ["discover", found.api("echo"), "--save", str(tmp_path / "one")]
        assert CliRunner().invoke(app, one).exit_code == 0
        assert [each.name for each in (tmp_path / "one").iterdir()] == ["echo@1.0.0.json"]
        with pytest.raises(NotFound), Client(found.root) as client:
            client.describe()


@pytest.mark.parametrize(
    ("names", "word"), [(["a", "a"], "two"), (["a", "jobs"], "jobs"), (["a", "b/c"], "b/c")]
)
def test_names_that_cannot_be_told_apart_are_refused(names: list[str], word: str) -> None:
    """Two of one name, one of a path of the service, one that is no part of a path."""
    with pytest.raises(InvalidInput, match=word):
        _require_names(names)
    _require_names(["a", "b"])


def test_a_quota_is_of_all_processes_together(tmp_path: Path) -> None:
    """A caller whose call or job runs in one process has none left in another; others have."""
    tokens = tmp_path / "tokens"
    tokens.write_text("alice alice-0123456789abcdef\nbob bob-0123456789abcdef\n")
    options = ("--token-file", str(tokens), "--caller-calls", "1", "--caller-jobs", "1")
    with joint("tests/contract/processes.py:nap", ECHO, options=options) as found:

        def post(process: str, caller: str, *, as_job: bool) -> httpx.Response:
            body = {"seconds": 3.0} if process == "nap" else {"stringInput": "a"}
            headers = {"Authorization": f"Bearer {caller}-0123456789abcdef"}
            headers |= AT_ONCE if as_job else {}
            url = f"{found.api(process)}/process"
            return found.http.post(url, json=body, headers=headers)

        assert post("nap", "alice", as_job=True).status_code == 201
        assert post("echo", "alice", as_job=True).status_code == 429
        assert post("echo", "bob", as_job=True).status_code == 201
        with ThreadPoolExecutor() as threads:
            threads.submit(post, "nap", "bob", as_job=False)

            def admitted() -> int:
                url = f"{found.api('nap')}/health"
                document = found.http.get(url, headers={"Accept": "application/json"}).json()
                count: int = document["queue"]["admitted"]
                return count

            until(lambda: admitted() == 1)
            assert post("echo", "bob", as_job=False).status_code == 429
            assert post("echo", "alice", as_job=False).status_code == 200
