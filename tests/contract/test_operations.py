"""What those who run a service see of it: figures, log lines with their trace, and a page."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import os
import re
from contextlib import ExitStack, contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pesto_runtime.client.client import Client
from pesto_runtime.client.transport import traced
from pesto_runtime.contract import TileInfo, Window
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.logs import JsonLines
from tests.contract.calls import (
    NPY,
    PROCESSES,
    image_of,
    npy,
    picked,
    post,
    post_raw,
    tile_of,
)
from tests.contract.web import WAYS, Farm, Socket, by_uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.web import Web

pytestmark = [pytest.mark.contract, pytest.mark.integration]

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(scope="module", params=WAYS)
def serve(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """Serve targets in one way or the other."""
    with ExitStack() as stack:
        yield Farm(request.param, tmp_path_factory.mktemp("allowed"), stack)


def figures(web: Web) -> dict[tuple[str, str], float]:
    """Figures as Prometheus reads them: (name, labels in order) -> value."""
    answer = web("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_count_calls_their_seconds_and_bytes(serve: Farm) -> None:
    """One good call and one bad one; what was not called is the control."""
    web, before = serve(PROCESSES + "nap"), figures(serve(PROCESSES + "nap"))
    good, bad = post(web, {"seconds": 0.03}), post(web, {"seconds": "x"})
    after = figures(web)

    def grown(name: str, labels: str) -> float:
        return after.get((name, labels), 0) - before.get((name, labels), 0)

    assert grown("pesto_requests_total", "process,200") == 1
    assert grown("pesto_requests_total", "process,422") == 1
    assert grown("pesto_request_seconds_count", "process") == 2
    assert 0.03 <= grown("pesto_request_seconds_sum", "process") < 5
    sent = len(good.request.content) + len(bad.request.content)
    assert grown("pesto_request_bytes_total", "process") == sent
    received = len(good.content) + len(bad.content)
    assert grown("pesto_response_bytes_total", "process") == received
    assert grown("pesto_requests_total", "describe,200") == 0


def test_metrics_know_the_queue_the_memory_and_what_is_served(serve: Farm) -> None:
    """Gauges are asked for, not counted; strangers' paths are one series."""
    web = serve(PROCESSES + "nap", Limits(workers=2, queue=5))
    for path in ("/a", "/b", "/c"):
        assert web("GET", path).status_code == 404
    found = figures(web)
    assert found["pesto_calls_capacity", ""] == 7
    assert found["pesto_calls", ""] == 0
    assert found["pesto_requests_total", "other,404"] == 3
    assert any(name == "pesto_service_info" and each.endswith(",nap,1") for name, each in found)
    # In this process, other tests' children count as workers: an ended one has no memory.
    resident = [
        value
        for (name, labels), value in found.items()
        if name == "pesto_resident_bytes" and (serve.way == "uvicorn" or "server" in labels)
    ]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert all(10e6 < each < machine for each in resident)  # bytes, neither pages nor KiB
    assert len(resident) >= (3 if serve.way == "uvicorn" else 1)


def test_prometheus_finds_the_metrics_where_it_looks(serve: Farm) -> None:
    """At /metrics too, outside the API."""
    web = serve(PROCESSES + "nap")
    answer = web("GET", "/../../metrics")
    assert "pesto_requests_total" in answer.text


@contextmanager
def lines_of_log() -> Iterator[list[dict[str, object]]]:
    """Lines that are logged inside, read back once it is left."""
    stream, found = io.StringIO(), list[dict[str, object]]()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("pesto_runtime")
    handler.setFormatter(JsonLines())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        found += [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_per_call_has_its_trace_and_tile(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As headers tell them; without headers there are none, and health is not logged."""
    with ExitStack() as stack, lines_of_log() as lines:
        web = Farm("in-process", tmp_path_factory.mktemp("log"), stack)(PROCESSES + "nap")
        post(web, {"seconds": 0}, traceparent=PARENT, **{"X-Pesto-Tile": "0,0,8,8"})
        post(web, {"seconds": "x"}, traceparent="nonsense", **{"X-Correlation-ID": "c" * 1000})
    calls = [each for each in lines if each.get("path") == "/api/v1/process"]
    assert len(calls) == len(lines) == 2
    good, bad = calls
    assert (good["trace_id"], good["span_id"]) == (TRACE, "b7ad6b7169203331")
    assert (good["tile"], good["status"], good["level"]) == ("0,0,8,8", 200, "info")
    assert (bad["status"], bad["correlation_id"]) == (422, "c" * 200)
    assert "trace_id" not in bad
    assert "tile" not in bad


def test_an_algorithm_works_under_the_trace_of_its_call(serve: Farm) -> None:
    """Its own calls carry it, and in a worker what it starts; a call without one has none."""
    web = serve(PROCESSES + "kin")
    in_worker = isinstance(web, Socket)
    for header, expected in ((PARENT, PARENT), ("nonsense", ""), (PARENT, PARENT), (None, "")):
        told = post(web, {}, **({} if header is None else {"traceparent": header})).json()["kin"]
        assert told == {"call": expected, "child": expected if in_worker else ""}


def test_the_tile_of_a_body_is_in_the_line_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without a header; one that has a header keeps it, and one without either has none."""
    image = image_of()
    with ExitStack() as stack, lines_of_log() as lines:
        web = Farm("in-process", tmp_path_factory.mktemp("log"), stack)(PROCESSES + "same")
        body = npy(picked(image))
        post_raw(web, body, NPY, pesto=tile_of(image))
        headers = {"Content-Type": NPY, "X-Pesto-Tile": "mine"}
        web("POST", "/process", content=body, headers=headers, params={"pesto": tile_of(image)})
        post_raw(web, body, NPY)
    tiles = [each.get("tile") for each in lines if each.get("path") == "/api/v1/process"]
    assert tiles == ["0,0,6,5", "mine", None]


def test_the_client_sends_its_trace_and_tile_on(capfd: pytest.CaptureFixture[str]) -> None:
    """From `traced` to the other service's log; outside of it nothing is sent."""
    whole = Window(0, 0, 2, 2)
    tile = TileInfo(read=whole, write=whole, scene_size=(2, 2))
    image = np.ones((2, 2, 2), np.uint8)
    with by_uvicorn(PROCESSES + "same", [], Limits(workers=1)) as web, Client(web.url) as client:
        told: list[str | None] = []
        client.describe()
        (http,) = client._idle
        http.event_hooks["request"].append(  # what leaves, as it leaves
            lambda request: told.append(request.headers.get("traceparent"))
        )
        with traced(PARENT):
            client.process({"image": image}, tile=tile)
        client.process({"image": image})
    assert told[-2:] == [PARENT, None]
    assert capfd.readouterr().out == ""


class _Outside(HTMLParser):
    """Everything that a page would fetch, its scripts and its styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.named: list[str] = []
        self.texts: dict[str, str] = {}
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag if tag in ("script", "style") else ""
        for name, value in attrs:
            if name in ("src", "srcset", "action", "data") or (tag == "link" and name == "href"):
                self.fetched.append(value or "")
            if name == "data-name":
                self.named.append(value or "")

    def handle_data(self, data: str) -> None:
        if self._in:
            self.texts[self._in] = self.texts.get(self._in, "") + data
            self.fetched += re.findall(r"(?:@import|url\()\s*['\"]?([^'\")]+)", data)

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # the parser names it
        self._in = ""


def _is_outside(reference: str) -> bool:
    return not reference.startswith(("data:", "#")) and bool(reference)


def test_the_page_works_without_a_network(serve: Farm) -> None:
    """It fetches nothing, its policy forbids to, and lets exactly its own script run."""
    answer = serve(PROCESSES + "facts")("GET", "/../../docs")
    page = _Outside(answer.text)
    assert answer.headers["content-type"].startswith("text/html")
    assert not [each for each in page.fetched if _is_outside(each)]
    assert "http://" not in answer.text
    assert "https://" not in answer.text.replace("https://…", "")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    for kind in ("script", "style"):
        digest = hashlib.sha256(page.texts[kind].encode()).digest()
        assert f"{kind}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert page.named == ["image", "note", "factors"]


def test_a_page_that_needs_the_network_would_be_found() -> None:
    """Control: a script, a style, a font and an image from elsewhere."""
    page = _Outside(
        '<link rel="stylesheet" href="https://cdn.example/a.css"><script src="//cdn.example/a.js">'
        "</script><style>@import 'b.css'; p { background: url(c.png) }</style><img src=d.png>"
    )
    found = [each for each in page.fetched if _is_outside(each)]
    assert found == ["https://cdn.example/a.css", "//cdn.example/a.js", "b.css", "c.png", "d.png"]


def test_the_page_offers_a_field_per_input_of_a_pesto_project(serve: Farm) -> None:
    """By their kinds: choices, numbers with their default, JSON."""
    text = serve("tests/data/shapes_project")("GET", "/../../docs").text
    assert _Outside(text).named == ["area", "areas", "place", "factor", "mode"]
    assert '<select id="in-mode"><option selected></option><option>fast</option>' in text
    assert 'type="number" step="any" value="2"' in text


def test_a_raw_call_is_counted_by_its_pixels(serve: Farm) -> None:
    """Large answers leave in pieces, whole and counted."""
    web = serve(PROCESSES + "same")
    body = npy(np.zeros((2, 1200, 1000), np.uint16))
    before = figures(web).get(("pesto_response_bytes_total", "process"), 0)
    answer = post_raw(web, body, NPY, NPY)
    assert answer.content == body
    assert answer.headers["content-length"] == str(len(body))
    assert figures(web)["pesto_response_bytes_total", "process"] - before == len(body)


def test_the_contract_page_has_every_endpoint(serve: Farm) -> None:
    """What the service's OpenAPI lists is a row of the page, as are /docs and /metrics."""
    text = (Path(__file__).parents[2] / "docs/contract/endpoints.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    paths = json.loads(serve(PROCESSES + "nap")("GET", "/openapi").text)["paths"]
    assert len(paths) >= 10
    for path in (*paths, "/docs", "/metrics"):
        told = path.removeprefix("/api/v1/").replace("{job_id}", "ID").replace("{part}", "NAME")
        assert any(re.search(rf"[ `]{re.escape(told)}`", row) for row in rows), told
