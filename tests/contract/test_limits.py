"""What is too large is refused early, in few words, and the service stays small."""

from __future__ import annotations

import base64
import json
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pytest
import rasterio
from prometheus_client.parser import text_string_to_metric_families

from pesto_runtime.hrefs import file_href
from pesto_runtime.service.limits import Limits
from tests.contract.calls import FORM, NPY, PROBLEM, PROCESSES, TIFF, npy, pointers, post, post_raw
from tests.contract.transports import post_form
from tests.contract.web import WAYS, Farm, by_uvicorn, in_process, ready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from tests.contract.web import Web

pytestmark = [pytest.mark.contract, pytest.mark.integration]

COUNTS = "tests/contract/band_counts.py:"
BODY_BYTES = 30_000_000
ANSWER_BYTES = 4096
LONG_S = 10.0
"""A machine alone takes 0.3 s; one that reads the body as a scene, or writes it out, far longer."""


@pytest.fixture(scope="module", params=WAYS)
def serve(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """Serve targets in one way or the other."""
    with ExitStack() as stack:
        yield Farm(request.param, tmp_path_factory.mktemp("allowed"), stack)


def sparse_tiff(folder: Path, side: int) -> bytes:
    """A GeoTIFF of zeros that are not even written: kilobytes, whatever its size."""
    path = folder / f"{side}.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", tiled=True,
        blockxsize=8192, blockysize=8192, compress="deflate", sparse_ok=True,
    ) as dataset:  # fmt: skip
        dataset.set_band_description(1, "b1")
    return path.read_bytes()


def test_thirty_megabytes_without_a_key_are_refused_in_few_words(serve: Farm) -> None:
    """By JSON and by form; neither echoes what was sent."""
    web = serve(COUNTS + "differ")
    image = npy(np.zeros((1, BODY_BYTES // 3000, 3000), np.uint8))
    text = base64.b64encode(image[: BODY_BYTES * 3 // 4]).decode()
    form: list[tuple[str, object]] = [("befor", ("a.npy", image, NPY))]
    for document in (text, None):
        began = time.perf_counter()
        answer = post(web, {"befor": document}) if document else post_form(web, form)
        assert time.perf_counter() - began < LONG_S
        assert pointers(answer) == ["/after", "/befor", "/before"]
        assert len(answer.content) < ANSWER_BYTES


def test_a_big_body_with_its_keys_is_answered(serve: Farm) -> None:
    """Control: it is the key that is refused, not the size."""
    image = npy(np.zeros((1, BODY_BYTES // 6000, 3000), np.uint8))
    parts: list[tuple[str, object]] = [("before", ("a", image, NPY)), ("after", ("b", image, NPY))]
    assert post_form(serve(COUNTS + "differ"), parts).json()["told"]["change"] == 0


@pytest.mark.parametrize("media_type", ["application/json", NPY, f"{FORM}; boundary=x"])
def test_a_body_over_the_limit_is_refused_before_it_is_read(media_type: str) -> None:
    """The answer comes though not one byte of the body was sent; the control gets none yet."""
    limits = Limits(body_bytes=100_000, workers=1, queue=1)
    with by_uvicorn(PROCESSES + "same", [], limits) as web:
        refused = _answer_to_head(web, media_type, 10**12)
        assert refused.startswith(b"HTTP/1.1 413")
        assert b"at most 100000 are accepted" in refused
        assert _answer_to_head(web, media_type, 100_000) == b""


def test_a_body_that_does_not_tell_its_size_is_cut_off() -> None:
    """Chunked, without an end: refused once the limit is passed."""
    limits = Limits(body_bytes=100_000, workers=1, queue=1)
    with by_uvicorn(PROCESSES + "same", [], limits) as web:
        answer = post_chunks(web, 11)
        assert (answer.status_code, answer.json()["status"]) == (413, 413)
        assert post_chunks(web, 9).status_code == 400  # read to its end, and no JSON


def test_a_decompression_bomb_is_refused_before_it_is_decoded(serve: Farm, tmp_path: Path) -> None:
    """100000 x 100000 in some kilobytes: 10 GB decoded; refused at once, by every transport."""
    web, bomb = serve(COUNTS + "same1"), sparse_tiff(tmp_path, 100_000)
    assert len(bomb) < 10_000
    before = _resident_bytes(web)
    began = time.perf_counter()
    for answer in _by_all_ways(web, bomb, tmp_path / "100000.tif"):
        assert answer.status_code == 413, answer.text
        assert "100000 x 100000 pixels of 1 bands, 10000000000 bytes decoded" in answer.text
        assert answer.headers["content-type"] == PROBLEM
    assert time.perf_counter() - began < 5 * LONG_S
    assert _resident_bytes(web) - before < 300e6


def test_a_smaller_one_of_the_same_kind_is_decoded(serve: Farm, tmp_path: Path) -> None:
    """Control: it is the size that is refused, not the file."""
    web, harmless = serve(COUNTS + "same1"), sparse_tiff(tmp_path, 1000)
    for answer in _by_all_ways(web, harmless, tmp_path / "1000.tif"):
        assert answer.status_code == 200, answer.text


def test_too_many_bands_are_refused(serve: Farm) -> None:
    """Before the port is asked how many it takes, which is the control."""
    web = serve(COUNTS + "same1")
    answer = post_raw(web, npy(np.zeros((5000, 1, 1), np.uint8)), NPY)
    assert (answer.status_code, pointers(answer)) == (413, ["/image"])
    assert "at most 4096 bands are accepted" in answer.text
    within = post_raw(web, npy(np.zeros((4096, 1, 1), np.uint8)), NPY)
    assert within.status_code == 422


@pytest.mark.parametrize(
    ("limit", "told"),
    [({"request_bytes": 1999}, "at most 999 bytes"), ({"request_pixels": 1999}, "999 pixels")],
)
def test_images_of_a_request_have_a_bound_together(limit: dict[str, int], told: str) -> None:
    """Each fits alone; the second is refused for what the first has taken. The control fits."""
    image = npy(np.zeros((1, 20, 50), np.uint8))
    parts: list[tuple[str, object]] = [("before", ("a", image, NPY)), ("after", ("b", image, NPY))]
    with in_process(COUNTS + "differ", [], Limits(workers=1, **limit)) as web:  # type: ignore[arg-type]  # numbers
        ready(web)
        answer = post_form(web, parts)
        assert (answer.status_code, pointers(answer)) == (413, ["/after"])
        assert told in answer.text
        assert "images before it in this request have 1000 pixels, 1000 bytes" in answer.text
    within = {name: most + 1 for name, most in limit.items()}
    with in_process(COUNTS + "differ", [], Limits(workers=1, **within)) as web:  # type: ignore[arg-type]  # numbers
        ready(web)
        assert post_form(web, parts).status_code == 200


def post_chunks(web: Web, count: int) -> httpx.Response:
    """Call the process with so many chunks of 10 kB, and no Content-Length."""
    return web("POST", "/process", content=(b" " * 10_000 for _ in range(count)))


def _by_all_ways(web: Web, file: bytes, path: Path) -> Iterator[httpx.Response]:
    yield post_raw(web, file, TIFF)
    yield post(web, {"image": base64.b64encode(file).decode()})
    yield post(web, {"image": file_href(path)})
    yield post_form(web, [("image", ("a.tif", file, TIFF))])


def _resident_bytes(web: Web) -> float:
    told = web("GET", "/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(told)
        for sample in family.samples
        if sample.name == "pesto_resident_bytes"
    )


def _answer_to_head(web: Web, media_type: str, size: int) -> bytes:
    """What comes within a second after the head of a request alone."""
    parts = urlsplit(web.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=1) as connection:
        head = {"Host": "127.0.0.1", "Content-Type": media_type, "Content-Length": str(size)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        connection.sendall(f"POST {parts.path}/process HTTP/1.1\r\n{lines}\r\n".encode())
        answer = b""
        try:
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                answer += connection.recv(4096)
        except TimeoutError:
            return answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["retryable"] is False
    return answer
