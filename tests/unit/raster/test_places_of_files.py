"""Rasters in archives, on plain web servers, and under GDAL's own names."""

from __future__ import annotations

import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import InvalidInput, RasterUnreadable, SceneChanged
from pesto_runtime.hrefs import image_reference
from pesto_runtime.raster.identity import identity_of, require_unchanged
from pesto_runtime.raster.read import read_image, read_scene
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def plain_server(data: bytes, *, ranges: bool) -> Iterator[str]:
    """A web server of one file, with or without range requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            part, status, start = data, 200, 0
            asked = self.headers.get("Range", "").removeprefix("bytes=").split("-")
            if ranges and len(asked) == 2 and body:
                start, stop = int(asked[0]), int(asked[1] or len(data) - 1) + 1
                part, status = data[start:stop], 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(part)))
            if status == 206:
                self.send_header(
                    "Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}"
                )
            self.end_headers()
            if body:
                self.wfile.write(part)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/s.tif"
        server.shutdown()


def test_a_server_without_ranges_is_named_as_the_cause(tmp_path: Path) -> None:
    """The same bytes are read from a server with ranges; and a text is no raster there."""
    pixels = noise(1000, 900)
    data = write_scene(tmp_path / "s.tif", pixels).read_bytes()
    with (
        plain_server(data, ranges=False) as url,
        pytest.raises(RasterUnreadable, match=r"range requests .* download it"),
    ):
        read_scene(url)
    with plain_server(data, ranges=True) as url:
        assert (read_image(url).pixels == pixels).all()
    with (
        plain_server(b"a text" * 999, ranges=True) as url,
        pytest.raises(RasterUnreadable, match="not a raster that can be read"),
    ):
        read_scene(url)


def test_a_raster_in_an_archive_is_read_and_identified_by_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noise(30, 20)
    scene = write_scene(tmp_path / "s.tif", pixels)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(scene, "in/s.tif")
    monkeypatch.chdir(tmp_path)
    href = image_reference("zip://a.zip!/in/s.tif").href
    assert href == f"zip://{tmp_path}/a.zip!/in/s.tif"
    assert (read_image(href).pixels == pixels).all()
    before = identity_of(href)
    require_unchanged(href, before)
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.write(scene, "other.tif")
    with pytest.raises(SceneChanged):
        require_unchanged(href, before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/vsizip/a.zip/s.tif", "zip:///folder/archive.zip!/scene.tif"),
        ("/vsicurl/http://h/s.tif", "the file or URL itself"),
        ("zip://a.zip/s.tif", "where the archive ends"),
    ],
)
def test_other_spellings_have_a_way_out(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        image_reference(text)
