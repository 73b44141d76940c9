"""Processes of OGC services as stages: only OGC's endpoints are called."""

from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.engines import RunRequest, SilentListener, load_engine
from pesto_runtime.errors import (
    AlgorithmFailed,
    BadRequest,
    InvalidInput,
    NotFound,
    ServiceMisbehaved,
)
from pesto_runtime.finished_run import Run
from pesto_runtime.places import place_of
from pesto_runtime.processor import load_processor
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.run.services import discover
from pesto_runtime.run.targets import pipeline_of
from tests.contract.serving import served
from tests.support.pygeoapi import pygeoapi_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pesto_runtime.contract import Port

MASK, SCENE = "examples/cloud_mask.py:cloud_mask", "examples/data/landsat8_cloudy.tif"
ECHO = "tests/support/ogc_echo.py:echo"
RESULTS = "http://www.opengis.net/def/rel/ogc/1.0/results"


@pytest.fixture(scope="module")
def mask() -> Iterator[str]:
    """The address of a process of OGC."""
    with served(MASK) as server:
        yield server.url.replace("/api/v1", "/processes/cloud-mask")


def run(folder: Path, **services: Any) -> Run:
    source = pipeline_of("workflows/cloud_cover.json")
    request = RunRequest(
        source.pipeline, source.base, {"scene": SCENE}, folder, report="none", tile=256, **services
    )
    load_engine("local").run(request, watcher=SilentListener())
    return Run.of(folder)


def test_a_stage_on_an_ogc_service_makes_the_same_pixels(mask: str, tmp_path: Path) -> None:
    """With an overlay that has what OGC does not say; without one, the check names what is lost."""
    [saved] = discover([mask], tmp_path / "catalog")
    document = json.loads(saved.read_text())
    assert document["url"] == mask
    assert "x-raster" not in json.dumps(document["description"])
    own = load_processor(MASK).description

    def rasters(ports: tuple[Port, ...]) -> dict[str, Any]:
        return {"properties": {each.name: {"x-raster": each.schema["x-raster"]}
                               for each in ports if each.raster}}  # fmt: skip

    document["overlay"] = {
        "tileable": "map", "input": rasters(own.inputs), "output": rasters(own.outputs),
    }  # fmt: skip
    saved.write_text(json.dumps(document))
    by_ogc = run(tmp_path / "ogc", catalog=place_of(tmp_path / "catalog"))
    expected = run(tmp_path / "own")
    result: Any = by_ogc.result
    assert result["stages"]["mask"]["where"] == [mask]
    assert result["tiles"]["computed"] > 4
    np.testing.assert_array_equal(by_ogc.read("mask"), expected.read("mask"))
    assert by_ogc.values == expected.values


def test_values_lists_and_images_arrive(mask: str) -> None:
    """Optional inputs stay optional, an object is qualified, errors are those of the service."""
    pixels = np.arange(12, dtype=np.uint16).reshape(1, 3, 4)
    with served(ECHO) as server, Client(f"{server.url[:-7]}/processes/echo") as client:
        assert client.health() == "OK"
        found = client.process({
            "stringInput": "a", "arrayInput": [1, 2], "imageInput": pixels,
            "mixedInput": {"k": 1}, "bboxInput": {"bbox": [1, 2, 3, 4]},
        })  # fmt: skip
        np.testing.assert_array_equal(found.pop("imageInput"), pixels)
        assert found == {
            "stringInput": "a", "arrayInput": [1, 2], "mixedInput": {"k": 1},
            "bboxInput": {"bbox": [1, 2, 3, 4]},
        }  # fmt: skip
        assert client.process({"stringInput": "b"})["stringInput"] == "b"
        with pytest.raises(InvalidInput, match="stringInput"):
            client.process({})
        with pytest.raises(InvalidInput, match="OGC"):
            client.submit({"stringInput": "a"})
    with pytest.raises(NotFound), Client(f"{mask}s") as client:
        client.describe()


class Foreign(BaseHTTPRequestHandler):
    """A service of others: it has jobs alone, and each process has its own form of result."""

    polls = 0

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        """Describe, or return the state or the result of a job."""
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/processes"):
            image = {"type": "string", "contentMediaType": "image/tiff"}
            schema = image if name == "image" else {"type": "number"}
            one = {"id": name, "version": "2", "jobControlOptions": ["async-execute"],
                   "inputs": {"n": {"schema": {"type": "number"}}},
                   "outputs": {"out": {"schema": schema}}}  # fmt: skip
            self.send(one if name != "processes" else {"processes": [one | {"id": "bare"}]})
        elif self.path == "/jobs/failing":
            self.send({"status": "failed", "message": "no luck"})
        elif self.path.endswith("/results"):
            self.result(self.path.split("/")[2])
        else:
            Foreign.polls += 1
            done = "running" if Foreign.polls % 2 else "successful"
            links = [{"rel": RESULTS, "href": f"{self.path}/results"}]
            self.send({"status": done, "links": links})

    def do_POST(self) -> None:
        """Accept a job; `far` sends its caller to another server."""
        name = self.path.split("/")[2]
        self.rfile.read(int(self.headers["content-length"]))
        assert "respond-async" in self.headers["prefer"]
        host = "http://127.0.0.2:1" if name == "far" else ""
        self.send({}, 201, Location=f"{host}/jobs/{name}")

    def result(self, name: str) -> None:
        """Return the number 4, or an image."""
        if name == "image":
            self.send(encode_image(Image(np.full((1, 2, 2), 4, np.uint8)), "image/tiff"),
                      kind="image/tiff; application=geotiff")  # fmt: skip
        elif name == "related":
            head = b"--b\r\nContent-ID: <out>\r\nContent-Type: application/json\r\n\r\n"
            self.send(head + b"4\r\n--b--", kind="multipart/related; boundary=b")
        else:
            forms: dict[str, Any] = {
                "bare": 4, "document": {"out": 4}, "qualified": {"out": {"value": 4}},
                "entry": {"id": "out", "value": 4},
                "listed": {"outputs": [{"id": "out", "value": 4}]},
                "linked": {"out": {"href": "/jobs/bare/results"}},
            }  # fmt: skip
            self.send(forms[name])

    def send(
        self, content: object, status: int = 200, *, kind: str = "application/json", **headers: str
    ) -> None:
        """Send a response."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, text in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def foreign() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_jobs_and_every_form_of_a_result_are_read(tmp_path: Path) -> None:
    """Of one output: bare, in a document, qualified, by id, in parts, by a link, as an image."""
    with foreign() as root:
        for name in ("bare", "document", "qualified", "entry", "listed", "linked", "related"):
            with Client(f"{root}/processes/{name}") as client:
                assert client.process({"n": 1}) == {"out": 4}, name
        with Client(f"{root}/processes/image") as client:
            assert client.process({"n": 1})["out"].tolist() == [[[4, 4], [4, 4]]]  # type: ignore[attr-defined]
        with (
            pytest.raises(AlgorithmFailed, match="no luck"),
            Client(f"{root}/processes/failing") as client,
        ):
            client.process({"n": 1})
        with (
            pytest.raises(ServiceMisbehaved, match="another server"),
            Client(f"{root}/processes/far") as client,
        ):
            client.process({"n": 1})
        assert [each.name for each in discover([f"{root}/processes"], tmp_path)] == ["bare@2.json"]


@pytest.fixture(scope="module")
def pygeoapi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real pygeoapi with its process hello-world."""
    with pygeoapi_server(tmp_path_factory.mktemp("pygeoapi")) as address:
        yield address


def test_a_process_of_pygeoapi_is_called(pygeoapi: str) -> None:
    """By its description alone; its version, its values, and the errors that it returns."""
    with Client(f"{pygeoapi}/processes/hello-world") as client:
        described = client.describe()
        assert [port.name for port in described.inputs if port.required] == ["name"]
        assert client.process({"name": "Ada"}) == {"echo": "Hello Ada!"}
        assert client.process({"name": "Ada", "message": "Bye."}) == {"echo": "Hello Ada! Bye."}
        with pytest.raises(BadRequest, match="name"):  # pygeoapi refuses it: it wants a name
            client.process({})


def test_a_stage_on_pygeoapi_runs_in_a_pipeline(pygeoapi: str, tmp_path: Path) -> None:
    """It is discovered, checked from its description, and its output is one of the run."""
    [saved] = discover([f"{pygeoapi}/processes/hello-world"], tmp_path / "catalog")
    assert json.loads(saved.read_text())["url"] == f"{pygeoapi}/processes/hello-world"
    source = tmp_path / "pipeline.json"
    stage = {"id": "greet", "process": "hello-world", "inputs": {"name": "$inputs.who"}}
    document = {
        "name": "greeting", "inputs": {"who": "string"}, "stages": [stage],
        "outputs": {"text": "$greet.echo"},
    }  # fmt: skip
    source.write_text(json.dumps(document))
    found = pipeline_of(str(source))
    request = RunRequest(
        found.pipeline, found.base, {"who": "Ada"}, tmp_path / "out", report="none",
        catalog=place_of(tmp_path / "catalog"),
    )  # fmt: skip
    load_engine("local").run(request, watcher=SilentListener())
    assert Run.of(tmp_path / "out").values == {"text": "Hello Ada!"}
