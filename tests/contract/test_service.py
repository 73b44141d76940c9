"""What a service promises, in this process and behind a socket alike."""

from __future__ import annotations

import base64
import io
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import NUMERIC_DTYPES, Description
from pesto_runtime.hrefs import file_href
from pesto_runtime.processor import load_processor
from pesto_runtime.raster.codec import decode_image, encode_image
from pesto_runtime.raster.image import Image
from tests.contract.calls import (
    COVER,
    FORM,
    NPY,
    PROCESSES,
    PROJECT,
    TIFF,
    UTM,
    image_of,
    npy,
    picked,
    pointers,
    post,
    post_raw,
    text,
    tile_of,
)
from tests.contract.web import WAYS, Farm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]


@pytest.fixture(scope="module", params=WAYS)
def serve(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """Serve targets in one way or the other."""
    with ExitStack() as stack:
        yield Farm(request.param, tmp_path_factory.mktemp("allowed"), stack)


@pytest.mark.parametrize("dtype", NUMERIC_DTYPES)
def test_an_image_arrives_the_same_by_every_transport(
    serve: Farm, dtype: str, tmp_path: Path
) -> None:
    """Pixels, dtype, CRS, transform, nodata and tags: by href, base64, TIFF, .npy with a tile."""
    web, image = serve(PROCESSES + "facts"), image_of(dtype)
    path = tmp_path / "a.tif"
    path.write_bytes(encode_image(image, TIFF))
    answers = [
        post(web, {"image": file_href(path)}),
        post(web, {"image": {"href": file_href(path), "bands": ["red", 1]}}),
        post(web, {"image": text(image)}),
        post_raw(web, encode_image(image, TIFF), TIFF),
        post_raw(web, npy(picked(image)), NPY, pesto=tile_of(image)),
    ]
    expected = {
        "dtype": dtype, "shape": [2, 5, 6], "pixels": picked(image).real.ravel().tolist(),
        "writeable": False, "crs": "EPSG:32616", "transform": list(UTM), "nodata": 7,
        "tag": "OLI", "note": "none", "factors": None,
    }  # fmt: skip
    for answer in answers:
        assert answer.json() == {"facts": expected}


def test_the_transports_would_show_a_difference(serve: Farm) -> None:
    """Control: bare pixels without a tile arrive, and nobody knows where they lie."""
    web, image = serve(PROCESSES + "facts"), image_of()
    found = post_raw(web, npy(picked(image)), NPY).json()["facts"]
    assert (found["crs"], found["transform"], found["nodata"]) == (None, [], None)


@pytest.mark.parametrize("dtype", NUMERIC_DTYPES)
def test_an_image_leaves_the_same_by_every_transport(serve: Farm, dtype: str) -> None:
    """Base64, binary and by reference carry one image; .npy carries its pixels."""
    web, image = serve(PROCESSES + "same"), image_of(dtype)
    body = encode_image(image, TIFF)
    written = serve.allowed / f"{dtype}.tif"
    href = file_href(written)
    in_json = post_raw(web, body, TIFF).json()["image"]
    by_href = post(web, {"image": text(image), "pesto": {"out": {"image": href}}})
    assert by_href.json() == {"image": href}
    files = [
        base64.b64decode(in_json),
        post_raw(web, body, TIFF, TIFF).content,
        written.read_bytes(),
    ]
    for each in files:
        back = decode_image(each)
        assert back.pixels.dtype == dtype
        assert np.array_equal(back.pixels, picked(image))
        assert (back.crs, back.transform, back.nodata) == ("EPSG:32616", UTM, 7)
        assert back.bands == ("red", "nir")
        assert back.tags["SENSOR"] == "OLI"
    bare = post_raw(web, body, TIFF, NPY)
    assert bare.headers["content-type"] == NPY
    assert np.array_equal(np.load(io.BytesIO(bare.content)), picked(image))
    assert sorted(serve.allowed.glob(".*")) == []


def test_a_window_lies_where_it_lies_in_the_scene(serve: Farm, tmp_path: Path) -> None:
    """The transform of a window, by reference or told by its tile, starts at its first pixel."""
    web, image = serve(PROCESSES + "same"), image_of()
    path = tmp_path / "a.tif"
    path.write_bytes(encode_image(image, TIFF))
    by_href = post(web, {"image": {"href": file_href(path), "window": [1, 2, 4, 3]}}, Accept=TIFF)
    tile = {"read": [1, 2, 4, 3], "write": [2, 3, 1, 1], "scene_size": [6, 5],
            "crs": image.crs, "transform": UTM}  # fmt: skip
    window = np.ascontiguousarray(picked(image)[:, 2:5, 1:5])
    by_tile = post_raw(web, npy(window), NPY, TIFF, pesto=json.dumps({"tile": tile}))
    for answer in (by_href, by_tile):
        back = decode_image(answer.content)
        assert np.array_equal(back.pixels, window)
        assert back.transform == (30.0, 0.0, 530.0, 0.0, -30.0, 840.0)


def test_query_parameters_are_the_other_inputs_of_a_raw_body(serve: Farm) -> None:
    """Strings as they are, other values as JSON."""
    web = serve(PROCESSES + "facts")
    body = npy(picked(image_of()))
    found = post_raw(web, body, NPY, note="5", factors="[1, 2.5]").json()["facts"]
    assert (found["note"], found["factors"]) == ("5", [1.0, 2.5])
    wrong = post_raw(web, body, NPY, factors="[1, true]", unknown="x")
    assert pointers(wrong) == ["/factors/1", "/unknown"]


def test_a_reduce_in_two_steps_is_the_reduce_in_one(serve: Farm) -> None:
    """Partial, then finish, is what a plain POST does; the control is another mask."""
    web = serve(COVER)
    mask = np.array([[[0, 1, 1, 255]]], np.uint8)
    plain = post_raw(web, npy(mask), NPY)
    partial = post_raw(web, npy(mask), NPY, pesto='{"partial": true}').json()
    assert partial == {"cloudy": 2, "valid": 3}
    finished = post(web, {"pesto": {"finish": partial}})
    assert finished.json() == plain.json() == {"fraction": 2 / 3}
    other = post_raw(web, npy(mask[:, :, :2]), NPY)
    assert other.json() != plain.json()


def test_a_service_describes_itself(serve: Farm) -> None:
    """The description and links; digest, transports and build in the headers; 304 when known."""
    web = serve(PROCESSES + "same")
    answer = web("GET", "/describe")
    document = answer.json()
    links = document.pop("_links")
    assert links["execution"]["href"] == f"{web.url}/process"
    assert sorted(links) == ["config", "execution", "health", "self", "version"]
    processor = load_processor(PROCESSES + "same")
    assert document == processor.description.to_json()
    assert answer.headers["etag"] == f'"{Description.parse(answer.json()).digest}"'
    assert answer.headers["accept-post"] == f"application/json, {TIFF}, {NPY}, {FORM}"
    assert answer.headers["x-pesto-build"] == processor.build
    known = web("GET", "/describe", headers={"If-None-Match": answer.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert web("GET", "/describe", headers={"If-None-Match": '"other"'}).status_code == 200
    bare = serve(PROCESSES + "nap")("GET", "/describe")
    assert bare.headers["accept-post"] == f"application/json, {FORM}"


def test_each_response_states_build_and_digest(serve: Farm) -> None:
    """Results in each form, errors, jobs, documents: the same two values, once each."""
    web, body = serve(PROCESSES + "same"), encode_image(image_of(), TIFF)
    processor = load_processor(PROCESSES + "same")
    job = web("POST", "/process", content=body,
              headers={"Content-Type": TIFF, "Prefer": "respond-async, wait=10"})  # fmt: skip
    job_path = f"/jobs/{job.json()['id']}"
    large = encode_image(Image(np.zeros((2, 700, 700), np.uint16), bands=("red", "nir")), TIFF)
    responses = [
        job,
        post_raw(web, body, TIFF),
        post_raw(web, body, TIFF, TIFF),
        post_raw(web, body, TIFF, FORM),
        post_raw(web, large, TIFF, NPY),
        web("POST", "/process", json={"image": 5}),
        web("POST", "/process", content=b"{"),
        web("POST", "/process", content=b"x", headers={"Content-Type": "text/csv"}),
        web("GET", "/process"),
        web("GET", "/nothing"),
        *(web("GET", job_path + each) for each in ("", "/status", "/results", "/results/image")),
        web("GET", "/jobs"),
        web("GET", "/jobs/none"),
        web("DELETE", job_path),
        web("GET", "/describe"),
        web("GET", "/describe", headers={"If-None-Match": "*"}),
        web("GET", "/health"),
        web("GET", "/version"),
    ]
    assert {each.status_code for each in responses} >= {200, 201, 304, 400, 404, 405, 415, 422}
    for each in responses:
        assert each.headers.get_list("x-pesto-build") == [processor.build]
        assert each.headers.get_list("x-pesto-digest") == [processor.description.digest]


def test_version_and_openapi_are_as_pesto_has_them(serve: Farm) -> None:
    """JSON with the version and the packaging: PESTO's format, or a function; YAML as text."""
    web = serve(PROJECT)
    version = web("GET", "/version").json()
    assert version["__packaging"] == "packaged with PESTO v1.7.2"
    ours = serve(PROCESSES + "nap")("GET", "/version").json()
    assert ours["__packaging"].startswith("packaged with pesto-workflows ")
    assert version["version"] == load_processor(PROJECT).description.version
    openapi = web("GET", "/openapi")
    assert openapi.headers["content-type"].startswith("text/plain")
    assert "/api/v1/process" in json.loads(openapi.text)["paths"]


def test_a_plain_pesto_port_answers_png_up_to_three_bands(serve: Farm) -> None:
    """PESTO's clients get what they know: PNG, and GeoTIFF above three bands."""
    web = serve(PROJECT)
    for bands, magic in ((1, b"\x89PNG"), (3, b"\x89PNG"), (4, b"II*\x00")):
        pixels = np.arange(bands * 6, dtype=np.uint8).reshape(bands, 2, 3)
        answer = post(web, {"image": text(Image(pixels)), "gain": 1, "offset": 0})
        data = base64.b64decode(answer.json()["image"])
        assert data.startswith(magic)
        assert np.array_equal(decode_image(data).pixels, pixels)
