"""What a service promises, in this process and behind a socket alike."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import NUMERIC_DTYPES, Description
from pesto_runtime.errors import InvalidContract
from pesto_runtime.hrefs import Gate, file_href
from pesto_runtime.processor import load_processor
from pesto_runtime.raster import Image, decode_image, encode_image
from pesto_runtime.service import Limits, create_app
from tests.contract.web import WAYS, in_process, ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from tests.contract.web import Web

pytestmark = [pytest.mark.contract, pytest.mark.integration]

TIFF, NPY, PROBLEM = "image/tiff", "application/x-npy", "application/problem+json"
PROCESSES = "tests/contract/processes.py:"
COVER = "examples/cloud_cover.py:cloud_cover"
PROJECT = "tests/data/pesto_project"
UTM = (30.0, 0.0, 500.0, 0.0, -30.0, 900.0)
SMALL = Limits(body_bytes=100_000, workers=1, queue=1)

Serve = "Callable[..., Web]"


@pytest.fixture(scope="module", params=WAYS)
def serve(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serve]:  # type: ignore[valid-type]
    """Serve a target, once per way and limits; all are stopped at the end."""
    running: dict[tuple[str, Limits], Web] = {}
    allowed = tmp_path_factory.mktemp("allowed")
    with ExitStack() as stack:

        def start(target: str, limits: Limits = Limits(workers=2)) -> Web:  # noqa: B008  # frozen
            if (target, limits) not in running:
                way = WAYS[request.param](target, [str(allowed)], limits)
                web = stack.enter_context(way)
                ready(web)
                running[target, limits] = web
            return running[target, limits]

        start.allowed = allowed  # type: ignore[attr-defined]  # where it may write
        yield start


def image_of(dtype: str = "uint16", *, size: tuple[int, int] = (5, 6)) -> Image:
    """A georeferenced image whose bands are in another order than the processes want."""
    count = 3 * size[0] * size[1]
    pixels = (np.arange(count) % 100).reshape(3, *size).astype(dtype)
    return Image(
        pixels, crs="EPSG:32616", transform=UTM, nodata=7, bands=("nir", "green", "red"),
        tags={"SENSOR": "OLI"},
    )  # fmt: skip


def picked(image: Image) -> np.ndarray:
    """The bands that the processes want, in their order."""
    return np.ascontiguousarray(image.pixels[[2, 0]])


def npy(pixels: np.ndarray) -> bytes:
    """An array as .npy."""
    return encode_image(Image(pixels), NPY)


def text(image: Image) -> str:
    """An image as base64."""
    return base64.b64encode(encode_image(image, TIFF)).decode()


def post(web: Web, document: object, **headers: str) -> httpx.Response:
    """Call the process with a JSON body."""
    return web("POST", "/process", json=document, headers=headers)


def post_raw(
    web: Web, body: bytes, media_type: str, accept: str = "*/*", **query: str
) -> httpx.Response:
    """Call the process with an image as the body."""
    headers = {"Content-Type": media_type, "Accept": accept}
    return web("POST", "/process", content=body, headers=headers, params=query)


def pointers(answer: httpx.Response) -> list[str]:
    """Pointers of a problem's fields."""
    return sorted(each["pointer"] for each in answer.json()["errors"])


def tile_of(image: Image) -> str:
    """The option that says where bare pixels lie."""
    _, height, width = image.pixels.shape
    whole = [0, 0, width, height]
    tile = {"read": whole, "write": whole, "scene_size": [width, height], "crs": image.crs,
            "transform": image.transform, "nodata": image.nodata, "tags": dict(image.tags)}  # fmt: skip
    return json.dumps({"tile": tile})


@pytest.mark.parametrize("dtype", NUMERIC_DTYPES)
def test_an_image_arrives_the_same_by_every_transport(
    serve: Callable[..., Web], dtype: str, tmp_path: Path
) -> None:
    """Pixels, dtype, CRS, transform, nodata and tags: by href, base64, TIFF and .npy with a tile."""
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


def test_the_transports_would_show_a_difference(serve: Callable[..., Web]) -> None:
    """Control: bare pixels without a tile arrive, and nobody knows where they lie."""
    web, image = serve(PROCESSES + "facts"), image_of()
    found = post_raw(web, npy(picked(image)), NPY).json()["facts"]
    assert (found["crs"], found["transform"], found["nodata"]) == (None, [], None)


@pytest.mark.parametrize("dtype", NUMERIC_DTYPES)
def test_an_image_leaves_the_same_by_every_transport(serve: Callable[..., Web], dtype: str) -> None:
    """Base64, binary and by reference carry one image; .npy carries its pixels."""
    web, image = serve(PROCESSES + "same"), image_of(dtype)
    body = encode_image(image, TIFF)
    written = serve.allowed / f"{dtype}.tif"  # type: ignore[attr-defined]
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
    assert sorted(serve.allowed.glob(".*")) == []  # type: ignore[attr-defined]


def test_a_window_lies_where_it_lies_in_the_scene(
    serve: Callable[..., Web], tmp_path: Path
) -> None:
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


def test_query_parameters_are_the_other_inputs_of_a_raw_body(serve: Callable[..., Web]) -> None:
    """Strings as they are, other values as JSON."""
    web = serve(PROCESSES + "facts")
    body = npy(picked(image_of()))
    found = post_raw(web, body, NPY, note="5", factors="[1, 2.5]", unknown="x").json()["facts"]
    assert (found["note"], found["factors"]) == ("5", [1.0, 2.5])
    assert pointers(post_raw(web, body, NPY, factors="[1, true]")) == ["/factors/1"]


def test_every_bad_field_is_told_at_once(serve: Callable[..., Web]) -> None:
    """Images, values, options and hrefs in one problem, with what is allowed."""
    answer = post(
        serve(PROCESSES + "facts"),
        {
            "image": "file:///nosuch.tif",
            "note": 5,
            "factors": [1, "x"],
            "pesto": {
                "out": {"facts": "file:///elsewhere/a", "nope": "file:///a"},
                "partial": True,
            },
        },
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["retryable"] is False
    assert pointers(answer) == [
        "/factors/1", "/image", "/note", "/pesto/out/facts", "/pesto/out/nope", "/pesto/partial",
    ]  # fmt: skip
    assert len(answer.content) < 4096


@pytest.mark.parametrize(
    ("image", "slug", "told"),
    [
        (12, "invalid-input", "an image is base64, a URI, or an object"),
        ({"href": "file:///a", "window": [0, 0, 0, 1]}, "invalid-input", "window"),
        ({"hrf": "file:///a"}, "invalid-input", "Field required"),
        ("dGhpcyBpcyBub3QgYW4gaW1hZ2U=", "raster-unreadable", "no image that can be read"),
        ("not base64!", "raster-unreadable", "neither base64"),
        ("", "raster-unreadable", "empty"),
        ("file:///nosuch.tif", "raster-unreadable", "does not exist"),
        ("http://10.0.0.1/a.tif", "href-refused", "--allow http://10.0.0.1/"),
        ("file:///vsicurl/http://10.0.0.1/a", "href-refused", "virtual file system"),
        ("s3://bucket/a.tif", "href-refused", "--allow s3://bucket/"),
    ],
)
def test_a_bad_image_is_told_by_its_kind(
    serve: Callable[..., Web], image: object, slug: str, told: str
) -> None:
    """A client can tell an href that was refused from one that cannot be read."""
    problem = post(serve(PROCESSES + "same"), {"image": image}).json()
    assert problem["type"] == f"urn:pesto:error:{slug}"
    assert any(told in each["detail"] for each in problem["errors"])


def test_an_image_that_the_port_does_not_take_is_told(serve: Callable[..., Web]) -> None:
    """Bands by name where it names them, by number where it does not; dtypes by the contract."""
    web = serve(PROCESSES + "same")
    other = Image(image_of().pixels, bands=("a", "b", "red"))
    assert "'nir'" in post_raw(web, encode_image(other, TIFF), TIFF).text
    assert "3 bands; 2 are taken" in post_raw(web, npy(image_of().pixels), NPY).text
    cover = serve(COVER)
    assert "float32; uint8" in post_raw(cover, npy(np.zeros((1, 2, 2), np.float32)), NPY).text


def test_a_tile_that_contradicts_its_image_is_told(serve: Callable[..., Web]) -> None:
    """The read window is the image's size."""
    answer = post_raw(serve(PROCESSES + "same"), npy(picked(image_of(size=(4, 4)))), NPY,
                      pesto=tile_of(image_of()))  # fmt: skip
    assert pointers(answer) == ["/pesto/tile/read"]


def test_writing_needs_permission_and_a_place(serve: Callable[..., Web], tmp_path: Path) -> None:
    """Outside `--allow` nothing is written; inside, a folder that is not there is an error."""
    web, image = serve(PROCESSES + "same"), text(image_of())
    outside = tmp_path / "a.tif"
    answer = post(web, {"image": image, "pesto": {"out": {"image": file_href(outside)}}})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:pesto:error:href-refused")
    assert not outside.exists()
    missing = serve.allowed / "nosuch" / "a.tif"  # type: ignore[attr-defined]
    answer = post(web, {"image": image, "pesto": {"out": {"image": file_href(missing)}}})
    assert (answer.status_code, answer.json()["type"]) == (507, "urn:pesto:error:store-failed")


def test_a_caller_by_another_name_reads_no_local_file(
    serve: Callable[..., Web], tmp_path: Path
) -> None:
    """A web page that points its own name at this machine is not on this machine."""
    path = tmp_path / "a.tif"
    path.write_bytes(encode_image(image_of(), TIFF))
    web = serve(PROCESSES + "same")
    assert post(web, {"image": file_href(path)}).status_code == 200
    answer = post(web, {"image": file_href(path)}, Host="page.example.org")
    assert answer.json()["type"] == "urn:pesto:error:href-refused"


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nosuch", {}, 404),
        ("POST", "/jobs", {}, 404),
        ("GET", "/process", {}, 405),
        ("POST", "/health", {}, 405),
        ("POST", "/process", {"content": b"not json"}, 400),
        ("POST", "/process", {"json": []}, 400),
        ("POST", "/process", {"content": b"<a/>", "headers": {"Content-Type": "text/xml"}}, 415),
        ("POST", "/process", {"content": b"II*", "headers": {"Content-Type": TIFF}}, 415),
        ("POST", "/process", {"json": {}, "headers": {"Accept": TIFF}}, 415),
        ("POST", "/process", {"json": {"pesto": {"nope": 1}}}, 422),
    ],
)
def test_what_cannot_be_understood_is_a_problem(
    serve: Callable[..., Web], method: str, path: str, options: dict[str, object], status: int
) -> None:
    """Never 500, always with `detail` and `retryable`."""
    answer = serve(PROCESSES + "nap")(method, path, **options)
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["status"] == status
    assert answer.json()["detail"]
    assert answer.json()["retryable"] is False
    assert len(answer.content) < 4096


def test_a_body_over_the_limit_is_refused(serve: Callable[..., Web]) -> None:
    """By its Content-Length before it is read, and while it streams without one."""
    web = serve(PROCESSES + "nap", SMALL)

    def stream() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    async def stream_async() -> object:
        for chunk in stream():
            yield chunk

    is_asgi = not hasattr(web, "http")
    bodies = (b" " * 100_001, stream_async() if is_asgi else stream())
    for body in bodies:
        answer = web("POST", "/process", content=body)
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:pesto:error:too-large")
        assert "100000" in answer.json()["detail"]
    control = web("POST", "/process", content=b'{"seconds": 0}' + b" " * 99_000)
    assert control.json() == {"slept": 0}


def test_a_full_queue_says_when_to_come_back_and_health_still_answers(
    serve: Callable[..., Web],
) -> None:
    """One runs, one waits, the third is 503 with Retry-After; health answers all the while."""
    web = serve(PROCESSES + "nap", SMALL)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(post(web, {"seconds": 1}).status_code))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    document: dict[str, dict[str, int]] = {"queue": {"admitted": 0}}
    while document["queue"]["admitted"] < 2:
        document = web("GET", "/health", headers={"Accept": "application/json"}).json()
    began = time.monotonic()
    answer = post(web, {"seconds": 0})
    health = web("GET", "/health")
    assert time.monotonic() - began < 0.9
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert int(answer.headers["retry-after"]) >= 1
    assert (health.status_code, health.text) == (200, "OK")
    for thread in threads:
        thread.join()
    assert found == [200, 200]
    assert post(web, {"seconds": 0}).status_code == 200


def test_a_reduce_in_two_steps_is_the_reduce_in_one(serve: Callable[..., Web]) -> None:
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


def test_a_reduce_says_what_it_cannot_do(serve: Callable[..., Web]) -> None:
    """Nothing valid, a key that no fold knows, a process that is no reduce."""
    web = serve(COVER)
    empty = post_raw(web, npy(np.full((1, 2, 2), 255, np.uint8)), NPY)
    assert (empty.status_code, empty.json()["type"]) == (422, "urn:pesto:error:nothing-valid")
    assert post(web, {"pesto": {"finish": {"nope": 1}}}).status_code == 422
    other = post(serve(PROCESSES + "nap"), {"seconds": 0, "pesto": {"finish": {}}})
    assert pointers(other) == ["/pesto/finish"]


@pytest.mark.parametrize(
    ("how", "status", "told"),
    [("raise", 500, "KeyError: 'no such thing'"), ("nan", 502, "'number'"), ("inf", 502, "inf")],
)
def test_a_failing_algorithm_is_told_and_not_retryable(
    serve: Callable[..., Web], how: str, status: int, told: str
) -> None:
    """Its exception and line; a number that JSON cannot carry by the name of its output."""
    answer = post(serve(PROCESSES + "wrong"), {"how": how})
    assert answer.status_code == status
    assert told in answer.json()["detail"]
    assert answer.json()["retryable"] is False
    assert "Traceback" not in answer.text
    assert post(serve(PROCESSES + "wrong"), {"how": "1.5"}).json() == {"number": 1.5}


def test_a_service_describes_itself(serve: Callable[..., Web]) -> None:
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
    assert answer.headers["accept-post"] == f"application/json, {TIFF}, {NPY}"
    assert answer.headers["x-pesto-build"] == processor.build
    known = web("GET", "/describe", headers={"If-None-Match": answer.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert web("GET", "/describe", headers={"If-None-Match": '"other"'}).status_code == 200
    assert serve(PROCESSES + "nap")("GET", "/describe").headers["accept-post"] == "application/json"


def test_version_and_openapi_are_as_pesto_has_them(serve: Callable[..., Web]) -> None:
    """JSON with the version and the packager; YAML as text."""
    web = serve(PROJECT)
    version = web("GET", "/version").json()
    assert version["__packaging"].startswith("packaged with pesto-workflows ")
    assert version["version"] == load_processor(PROJECT).description.version
    openapi = web("GET", "/openapi")
    assert openapi.headers["content-type"].startswith("text/plain")
    assert "/api/v1/process" in json.loads(openapi.text)["paths"]


def test_a_plain_pesto_port_answers_png_up_to_three_bands(serve: Callable[..., Web]) -> None:
    """PESTO's clients get what they know: PNG, and GeoTIFF above three bands."""
    web = serve(PROJECT)
    for bands, magic in ((1, b"\x89PNG"), (3, b"\x89PNG"), (4, b"II*\x00")):
        pixels = np.arange(bands * 6, dtype=np.uint8).reshape(bands, 2, 3)
        answer = post(web, {"image": text(Image(pixels)), "gain": 1, "offset": 0})
        data = base64.b64decode(answer.json()["image"])
        assert data.startswith(magic)
        assert np.array_equal(decode_image(data).pixels, pixels)


def test_a_service_whose_set_up_failed_says_so() -> None:
    """Health is FAILED with 503, its log tells why, and no call is taken."""
    with in_process(PROCESSES + "broken", [], Limits()) as web:
        ready(web, "FAILED")
        health = web("GET", "/health", headers={"Accept": "application/json"})
        assert (health.status_code, health.json()["state"]) == (503, "FAILED")
        assert "model.onnx" in health.json()["setup"][-1]
        answer = post(web, {"number": 1})
        assert (answer.status_code, answer.json()["retryable"]) == (500, False)


def test_an_asynchronous_process_is_refused_before_it_is_served() -> None:
    """There are no jobs to answer it with; the message says what to change."""

    class Asynchronous:
        """A processor whose description asks for jobs."""

        def __init__(self) -> None:
            self.inner = load_processor(PROCESSES + "nap")
            document = self.inner.description.to_json() | {"asynchronous": True}
            self.description = Description.parse(document)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    with pytest.raises(InvalidContract, match="asynchronous"):
        create_app(Asynchronous(), gate=Gate(loopback=True))  # type: ignore[arg-type]  # it delegates
