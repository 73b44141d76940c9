"""OGC API - Processes, part 1: the abstract tests of OGC 18-062r2, Annex A, one by one."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from openapi_spec_validator import validate

from pesto_runtime.raster.codec import decode_image, encode_image
from pesto_runtime.raster.image import Image
from tests.contract.serving import served, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ECHO = "tests/support/ogc_echo.py:echo"
REL = "http://www.opengis.net/def/rel/ogc/1.0"
CLASSES = "http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf/"
EXCEPTIONS = "http://www.opengis.net/def/exceptions/ogcapi-processes-1/1.0"
PIXELS = np.arange(12, dtype=np.uint16).reshape(1, 3, 4)
TIFF = base64.b64encode(encode_image(Image(PIXELS), "image/tiff")).decode()
ASYNC = {"Prefer": "respond-async"}


class Ogc:
    """The root of a running service."""

    def __init__(self, root: str) -> None:
        """Connect to it."""
        self.root = root
        self.http = httpx.Client(base_url=root, trust_env=False, timeout=60)

    def get(self, path: str, **options: Any) -> Any:
        """A document; its status must be 200."""
        answer = self.http.get(path, **options)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("application/json")
        return answer.json()

    def execute(self, body: object, *, process: str = "echo", **headers: str) -> httpx.Response:
        """Execute the process."""
        return self.http.post(f"/processes/{process}/execution", json=body, headers=headers)

    def submitted(self, body: object) -> dict[str, Any]:
        """The state of a job that was submitted."""
        answer = self.execute(body, **ASYNC)
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"{self.root}/jobs/{answer.json()['jobID']}"
        assert answer.headers["preference-applied"] == "respond-async"
        found: dict[str, Any] = answer.json()
        return found

    def over(self, job: str) -> dict[str, Any]:
        """The state of a job once it is over."""
        until(lambda: self.get(f"/jobs/{job}")["status"] not in ("accepted", "running"))
        found: dict[str, Any] = self.get(f"/jobs/{job}")
        return found


@contextmanager
def service(target: str = ECHO, *options: str) -> Iterator[Ogc]:
    with served(target, *options) as server:
        found = Ogc(server.url.removesuffix("/api/v1"))
        with found.http:
            yield found


@pytest.fixture(scope="module")
def ogc() -> Iterator[Ogc]:
    """The echo process, served."""
    with service() as found:
        yield found


def hrefs(document: dict[str, Any]) -> dict[str, str]:
    """Relation -> href of the links that are JSON or OpenAPI."""
    return {
        each["rel"]: each["href"]
        for each in document["links"]
        if "html" not in each.get("type", "")
    }


def exception(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem document of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"{EXCEPTIONS}/{kind}" or kind == "*"
    assert problem["status"] == status
    assert problem["title"]
    return problem


def test_the_landing_page_leads_to_everything(ogc: Ogc) -> None:
    """/conf/core/landingpage-op, landingpage-success: links to all that there is, which answer."""
    links = hrefs(ogc.get("/", headers={"Accept": "application/json"}))
    assert {"service-desc", f"{REL}/conformance", f"{REL}/processes", f"{REL}/job-list"} <= set(
        links
    )
    for href in links.values():
        assert ogc.http.get(href).status_code == 200


def test_the_conformance_classes_are_stated(ogc: Ogc) -> None:
    """/conf/core/conformance-op, conformance-success."""
    stated = ogc.get("/conformance")["conformsTo"]
    kinds = [
        "core",
        "ogc-process-description",
        "json",
        "html",
        "oas30",
        "job-list",
        "callback",
        "dismiss",
    ]
    assert stated == [
        f"http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf/{each}" for each in kinds
    ]


def test_the_openapi_document_is_valid_and_has_all_paths(ogc: Ogc) -> None:
    """/conf/oas30: version 3.0, with its media type; each path of it exists."""
    answer = ogc.http.get("/api")
    assert answer.headers["content-type"] == "application/vnd.oai.openapi+json;version=3.0"
    document = answer.json()
    validate(document)
    assert document["openapi"].startswith("3.0")
    operations = {(path, verb) for path, each in document["paths"].items() for verb in each}
    for path, verb in operations:
        real = path.replace("{processID}", "echo").replace("{jobID}", "no-job")
        assert ogc.http.request(verb.upper(), real, json={}).status_code not in (405, 501)
    assert ("/jobs/{jobID}", "delete") in operations


def test_processes_are_listed_and_described(ogc: Ogc) -> None:
    """/conf/core/process-list, pl-links, process; /conf/ogc-process-description."""
    listed = ogc.get("/processes")
    assert hrefs(listed)["self"] == f"{ogc.root}/processes"
    [short] = listed["processes"]
    described = ogc.get(hrefs(short)["self"])
    assert {key: described[key] for key in short} == short
    assert (described["id"], described["version"]) == ("echo", "1.0.0")
    assert described["jobControlOptions"] == ["sync-execute", "async-execute", "dismiss"]
    assert described["outputTransmission"] == ["value", "reference"]
    inputs = described["inputs"]
    assert [name for name in inputs if inputs[name]["minOccurs"]] == ["stringInput"]
    assert [each["type"] for each in inputs["mixedInput"]["schema"]["oneOf"]] == [
        "string", "object",
    ]  # fmt: skip
    assert inputs["bboxInput"]["schema"]["type"] == "object"
    image = inputs["imageInput"]["schema"]["oneOf"][0]
    assert image == {
        "type": "string", "contentEncoding": "binary", "contentMediaType": "image/tiff",
    }  # fmt: skip
    assert set(described["outputs"]) == set(inputs) - {"pause"}


@pytest.mark.parametrize("path", ["/processes", "/jobs"])
def test_lists_have_limits(ogc: Ogc, path: str) -> None:
    """/conf/core/pl-limit-definition, pl-limit-response; /conf/job-list/jl-limit-…."""
    for _ in range(2):
        ogc.execute({"inputs": {"stringInput": "a"}})
    assert len(ogc.get(f"{path}?limit=1")[path.removeprefix("/")]) == 1
    for wrong in ("0", "-1", "many"):
        assert exception(ogc.http.get(f"{path}?limit={wrong}"), 400, "*")["detail"].startswith(
            "limit"
        )


def test_unknown_processes_and_jobs_have_their_exceptions(ogc: Ogc) -> None:
    """/conf/core/process-exception/no-such-process, job-exception-no-such-job."""
    exception(ogc.http.get("/processes/none"), 404, "no-such-process")
    exception(ogc.execute({"inputs": {}}, process="none"), 404, "no-such-process")
    as_json = ogc.http.get("/processes/none", headers={"Accept": "application/json"})
    assert (as_json.status_code, as_json.headers["content-type"]) == (404, "application/json")
    for verb, path in (
        ("GET", "/jobs/none"),
        ("GET", "/jobs/none/results"),
        ("DELETE", "/jobs/none"),
    ):
        exception(ogc.http.request(verb, path), 404, "no-such-job")


VALUES = [
    ("stringInput", "text", "text"),
    ("stringInput", {"value": "text"}, "text"),
    ("arrayInput", [1, 2, 3], [1, 2, 3]),
    ("arrayInput", [{"value": 1}, 2], [1, 2]),
    ("mixedInput", "text", "text"),
    ("mixedInput", {"value": "text"}, "text"),
    ("mixedInput", {"value": {"a": {"b": 1}}}, {"value": {"a": {"b": 1}}}),
    ("bboxInput", {"bbox": [1, 2, 3, 4], "crs": "EPSG:4326"},
     {"value": {"bbox": [1, 2, 3, 4], "crs": "EPSG:4326"}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "wanted"), VALUES)
def test_inputs_are_values_qualified_or_not(
    ogc: Ogc, name: str, given: object, wanted: object
) -> None:
    """/conf/core/job-creation-input-inline, -array, -inline-mixed, -inline-object, -inline-bbox."""
    body = {"inputs": {"stringInput": "x", name: given}, "response": "document"}
    answer = ogc.execute(body)
    assert answer.status_code == 200, answer.text
    assert answer.json()[name] == wanted


def test_a_binary_input_is_base64_or_a_link(ogc: Ogc, tmp_path: Path) -> None:
    """/conf/core/job-creation-input-inline-binary, -input-ref: the same pixels come back."""
    (tmp_path / "a.tif").write_bytes(base64.b64decode(TIFF))
    for given in (
        TIFF,
        {"value": TIFF, "mediaType": "image/tiff", "encoding": "base64"},
        {"href": (tmp_path / "a.tif").as_uri(), "type": "image/tiff"},
    ):
        body = {"inputs": {"stringInput": "x", "imageInput": given}, "response": "document"}
        found = ogc.execute(body).json()["imageInput"]
        assert (found["mediaType"], found["encoding"]) == ("image/png", "base64")
        pixels = decode_image(base64.b64decode(found["value"])).pixels
        np.testing.assert_array_equal(pixels, PIXELS)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"inputs": {}}, "/stringInput"),
        ({"inputs": {"stringInput": 7}}, "/stringInput"),
        ({"inputs": {"stringInput": "a", "arrayInput": ["b"]}}, "/arrayInput/0"),
        ({"inputs": {"stringInput": "a", "other": 1}}, "/inputs/other"),
        ({"inputs": {"stringInput": "a"}, "outputs": {"other": {}}}, "/outputs/other"),
        ({"inputs": {"stringInput": "a"}, "response": "both"}, "/response"),
        ({"inputs": [1]}, "/inputs"),
        ({"invalid-execute-request": 1}, "/stringInput"),
    ],
)
def test_wrong_requests_are_refused_before_a_job(ogc: Ogc, body: object, pointer: str) -> None:
    """/conf/core/job-creation-input-validation: 400 names the field; `validation` says the same."""
    before = len(ogc.get("/jobs")["jobs"])
    for answer in (
        ogc.execute(body), ogc.execute(body, **ASYNC),
        ogc.http.post("/processes/echo/validation", json=body),
    ):  # fmt: skip
        problem = exception(answer, 400, "*")
        assert pointer in [each["pointer"] for each in problem["errors"]]
    assert len(ogc.get("/jobs")["jobs"]) == before


def test_a_right_request_is_valid_and_not_executed(ogc: Ogc) -> None:
    """`validation` makes no job."""
    before = len(ogc.get("/jobs")["jobs"])
    answer = ogc.http.post("/processes/echo/validation", json={"inputs": {"stringInput": "a"}})
    assert (answer.status_code, answer.json()) == (200, {"valid": True})
    assert len(ogc.get("/jobs")["jobs"]) == before


def test_one_raw_result_is_the_body(ogc: Ogc) -> None:
    """/conf/core/job-creation-sync-raw-value-one: an image as its file, a value as JSON."""
    inputs = {"stringInput": "x", "imageInput": TIFF}
    image = ogc.execute({"inputs": inputs, "outputs": {"imageInput": {}}})
    assert image.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(decode_image(image.content).pixels, PIXELS)
    text = ogc.execute({"inputs": inputs, "outputs": {"stringInput": {}}, "response": "raw"})
    assert (text.headers["content-type"], text.text) == ("text/plain; charset=utf-8", "x")


def test_several_raw_results_are_parts(ogc: Ogc) -> None:
    """/conf/core/job-creation-sync-raw-value-multi: multipart/related, a part for each."""
    inputs = {"stringInput": "x", "arrayInput": [1], "imageInput": TIFF}
    answer = ogc.execute({"inputs": inputs})
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + answer.content)
    assert message.get_content_type() == "multipart/related"
    parts = {str(each["Content-ID"]): each for each in message.iter_parts()}
    assert set(parts) == {"<stringInput>", "<arrayInput>", "<imageInput>"}  # None is left out
    contents = {name: each.get_payload(decode=True) for name, each in parts.items()}
    assert contents["<arrayInput>"] == b"[1]"
    pixels = decode_image(bytes(contents["<imageInput>"])).pixels
    np.testing.assert_array_equal(pixels, PIXELS)


def test_results_by_reference_are_links_that_work(ogc: Ogc) -> None:
    """/conf/core/job-creation-sync-raw-ref, -raw-mixed-multi, and in a document."""
    inputs = {"stringInput": "x", "imageInput": TIFF}
    by_reference = {"imageInput": {"transmissionMode": "reference"}}
    raw = ogc.execute({"inputs": inputs, "outputs": by_reference})
    assert raw.status_code == 204
    assert raw.links["item"]["type"] == "image/png"
    both = {**by_reference, "stringInput": {}}
    mixed = ogc.execute({"inputs": inputs, "outputs": both})
    assert mixed.status_code == 200
    assert b"Content-Location: http" in mixed.content
    document = ogc.execute({"inputs": inputs, "outputs": both, "response": "document"}).json()
    assert document["stringInput"] == "x"
    for url in (raw.links["item"]["url"], document["imageInput"]["href"]):
        np.testing.assert_array_equal(decode_image(ogc.http.get(url).content).pixels, PIXELS)


def test_a_job_is_created_followed_and_has_results(ogc: Ogc) -> None:
    """/conf/core/job-creation-async-success, job-success, job-results-async-document; job-list."""
    first = ogc.submitted({"inputs": {"stringInput": "x"}, "response": "document"})
    assert (first["type"], first["processID"]) == ("process", "echo")
    assert "finished" not in first or first["status"] == "successful"
    done = ogc.over(first["jobID"])
    assert done["status"] == "successful"
    assert done["created"] <= done["started"] <= done["finished"]
    assert ogc.get(hrefs(done)[f"{REL}/results"])["stringInput"] == "x"
    assert ogc.get(hrefs(done)["monitor"])["jobID"] == first["jobID"]
    assert first["jobID"] in [each["jobID"] for each in ogc.get("/jobs")["jobs"]]


def test_results_that_are_not_ready_are_not_found(ogc: Ogc) -> None:
    """/conf/core/job-results-exception-results-not-ready; the job is dismissed meanwhile."""
    job = ogc.submitted({"inputs": {"stringInput": "x", "pause": 60}})["jobID"]
    exception(ogc.http.get(f"/jobs/{job}/results"), 404, "result-not-ready")
    assert ogc.http.delete(f"/jobs/{job}").json()["status"] == "dismissed"  # /conf/dismiss
    assert ogc.get(f"/jobs/{job}")["status"] == "dismissed"
    assert ogc.http.get(f"/jobs/{job}/results").status_code == 410


def test_a_synchronous_call_ends_when_its_caller_goes(ogc: Ogc) -> None:
    """The worker is free again: the control waits for its end."""
    with pytest.raises(httpx.ReadTimeout):
        ogc.http.post("/processes/echo/execution", timeout=2,
                      json={"inputs": {"stringInput": "gone", "pause": 600}})  # fmt: skip
    until(lambda: all(each["status"] != "running" for each in ogc.get("/jobs")["jobs"]))
    assert ogc.execute({"inputs": {"stringInput": "x"}, "outputs": {"stringInput": {}}}).text == "x"


def test_a_job_that_failed_has_its_error(tmp_path: Path) -> None:
    """/conf/core/job-results-failed: the problem of the algorithm, with its status."""
    with service("tests/support/ogc_echo.py:broken") as ogc:
        answer = ogc.execute({"inputs": {"text": "no light"}}, process="broken")
        assert "no light" in exception(answer, 500, "*")["detail"]
        job = ogc.execute({"inputs": {}}, process="broken", **ASYNC).json()["jobID"]
        done = ogc.over(job)
        assert done["status"] == "failed"
        assert "as asked" in done["message"]
        exception(ogc.http.get(hrefs_of_any(done)[f"{REL}/exceptions"]), 500, "*")


def hrefs_of_any(document: dict[str, Any]) -> dict[str, str]:
    return {each["rel"]: each["href"] for each in document["links"]}


@contextmanager
def listener() -> Iterator[tuple[str, list[tuple[str, str, Any]]]]:
    """An address for callbacks, and what came: path, media type, document."""
    seen: list[tuple[str, str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


def subscriber(url: str) -> dict[str, str]:
    return {
        "successUri": f"{url}/ok", "inProgressUri": f"{url}/now", "failedUri": f"{url}/failed",
    }  # fmt: skip


def test_subscribers_are_told(ogc: Ogc) -> None:
    """/conf/callback/job-callback: below `--callback` alone; results, or the problem."""
    with listener() as (url, seen):
        body = {"inputs": {"stringInput": "x"}, "subscriber": subscriber(url)}
        exception(ogc.execute(body, **ASYNC), 400, "*")  # the control: it is not allowed
        with service(ECHO, "--callback", url) as open_one:
            job = open_one.submitted(body)["jobID"]
            until(lambda: len(seen) == 2)
        with service("tests/support/ogc_echo.py:broken", "--callback", url) as open_one:
            open_one.execute({"inputs": {}, "subscriber": subscriber(url)}, process="broken")
            until(lambda: len(seen) == 4)
    by_path = {path: (kind, document) for path, kind, document in seen}
    assert by_path["/ok"][0] == "application/json"
    assert by_path["/ok"][1]["stringInput"] == "x"
    assert by_path["/failed"][0] == "application/problem+json"
    assert job in [each["jobID"] for path, _, each in seen if path == "/now"]


@pytest.mark.parametrize("path", ["/conformance", "/processes", "/processes/echo", "/jobs"])
def test_browsers_get_pages(ogc: Ogc, path: str) -> None:
    """/conf/html: each document has a page with its links; a name in it cannot be markup."""
    ogc.execute({"inputs": {"stringInput": "<script>"}})
    page = ogc.http.get(path, headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert page.text.count("<a href=") >= (0 if path == "/conformance" else 1)


def test_a_browser_at_the_root_gets_the_page_to_try(ogc: Ogc) -> None:
    """Other clients get the landing page."""
    answer = ogc.http.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")
    assert "links" in ogc.get("/")
