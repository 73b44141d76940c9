"""What a service refuses, how it says so, and that it goes on afterwards."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.service.limits import Limits
from tests.contract.calls import (
    COVER,
    NPY,
    PROBLEM,
    PROCESSES,
    TIFF,
    image_of,
    npy,
    picked,
    pointers,
    post,
    post_raw,
    text,
    tile_of,
)
from tests.contract.web import WAYS, Farm, in_process, ready

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]

SMALL = Limits(body_bytes=100_000, workers=1, queue=1)


@pytest.fixture(scope="module", params=WAYS)
def serve(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """Serve targets in one way or the other."""
    with ExitStack() as stack:
        yield Farm(request.param, tmp_path_factory.mktemp("allowed"), stack)


def test_every_bad_field_is_told_at_once(serve: Farm) -> None:
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
        (None, "invalid-input", "an image is base64, a URI, or an object"),
        ({"href": "file:///a", "window": [0, 0, 0, 1]}, "invalid-input", "window"),
        ({"hrf": "file:///a"}, "invalid-input", "Field required"),
        ("dGhpcyBpcyBub3QgYW4gaW1hZ2U=", "raster-unreadable", "not a readable image"),
        ("not base64!", "raster-unreadable", "neither base64"),
        ("", "raster-unreadable", "empty"),
        ("file:///nosuch.tif", "raster-unreadable", "does not exist"),
        ("http://10.0.0.1/a.tif", "href-refused", "--allow http://10.0.0.1/"),
        ("file:///vsicurl/http://10.0.0.1/a", "href-refused", "virtual file system"),
        ("s3://bucket/a.tif", "href-refused", "--allow s3://bucket/"),
    ],
)
def test_a_bad_image_is_told_by_its_kind(serve: Farm, image: object, slug: str, told: str) -> None:
    """A client can tell an href that was refused from one that cannot be read."""
    problem = post(serve(PROCESSES + "same"), {"image": image}).json()
    assert problem["type"] == f"urn:pesto:error:{slug}"
    assert any(told in each["detail"] for each in problem["errors"])


def test_null_is_judged_by_the_schema_and_is_no_default(serve: Farm) -> None:
    """Refused where the schema has no null, passed on where it has; the default is the control."""
    facts, image = serve(PROCESSES + "facts"), text(image_of())
    refused = post(facts, {"image": image, "note": None})
    assert pointers(refused) == ["/note"]
    given = post(facts, {"image": image, "factors": None}).json()["facts"]
    assert (given["factors"], given["note"]) == (None, "none")


def test_an_image_that_the_port_does_not_take_is_told(serve: Farm) -> None:
    """Bands by name where it names them, by number where it does not; dtypes by the contract."""
    web = serve(PROCESSES + "same")
    other = Image(image_of().pixels, bands=("a", "b", "red"))
    assert "band nir is missing" in post_raw(web, encode_image(other, TIFF), TIFF).text
    assert "3 bands; 2 are required" in post_raw(web, npy(image_of().pixels), NPY).text
    cover = serve(COVER)
    assert "float32; uint8" in post_raw(cover, npy(np.zeros((1, 2, 2), np.float32)), NPY).text


def test_a_tile_that_contradicts_its_image_is_told(serve: Farm) -> None:
    """The read window is the image's size."""
    answer = post_raw(serve(PROCESSES + "same"), npy(picked(image_of(size=(4, 4)))), NPY,
                      pesto=tile_of(image_of()))  # fmt: skip
    assert pointers(answer) == ["/pesto/tile/read"]


def test_writing_needs_permission_and_a_place(serve: Farm, tmp_path: Path) -> None:
    """Outside `--allow` nothing is written; inside, folders are made where they can be."""
    web, image = serve(PROCESSES + "same"), text(image_of())
    outside = tmp_path / "a.tif"
    answer = post(web, {"image": image, "pesto": {"out": {"image": file_href(outside)}}})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:pesto:error:href-refused")
    assert not outside.exists()
    new = serve.allowed / "new" / "folder" / "a.tif"
    answer = post(web, {"image": image, "pesto": {"out": {"image": file_href(new)}}})
    assert (answer.status_code, answer.json()) == (200, {"image": file_href(new)})
    assert [each.name for each in new.parent.iterdir()] == ["a.tif"]
    below_a_file = new / "b.tif"
    answer = post(web, {"image": image, "pesto": {"out": {"image": file_href(below_a_file)}}})
    assert (answer.status_code, answer.json()["type"]) == (507, "urn:pesto:error:store-failed")


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nosuch", {}, 404),
        ("PUT", "/jobs", {}, 405),
        ("GET", "/process", {}, 405),
        ("POST", "/health", {}, 405),
        ("POST", "/process", {"content": b"not json"}, 400),
        ("POST", "/process", {"json": 7}, 400),
        ("POST", "/process", {"json": []}, 422),
        ("POST", "/process", {"content": b"<a/>", "headers": {"Content-Type": "text/xml"}}, 415),
        ("POST", "/process", {"content": b"II*", "headers": {"Content-Type": TIFF}}, 415),
        ("POST", "/process", {"json": {}, "headers": {"Accept": TIFF}}, 415),
        ("POST", "/process", {"json": {"pesto": {"nope": 1}}}, 422),
    ],
)
def test_what_cannot_be_understood_is_a_problem(
    serve: Farm, method: str, path: str, options: dict[str, object], status: int
) -> None:
    """Never 500, always with `detail` and `retryable`."""
    answer = serve(PROCESSES + "nap")(method, path, **options)
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["status"] == status
    assert answer.json()["detail"]
    assert answer.json()["retryable"] is False
    assert len(answer.content) < 4096


def test_a_body_over_the_limit_is_refused(serve: Farm) -> None:
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
    serve: Farm,
) -> None:
    """One runs, one waits, the third is 503 with Retry-After; health answers all the while."""
    web = serve(PROCESSES + "nap", SMALL)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(post(web, {"seconds": 3}).status_code))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    document: dict[str, dict[str, int]] = {"queue": {"admitted": 0}}
    while document["queue"]["admitted"] < 2:
        document = web("GET", "/health", headers={"Accept": "application/json"}).json()
    answer = post(web, {"seconds": 0})
    health = web("GET", "/health")
    assert not found, "nobody has been answered before them"
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert int(answer.headers["retry-after"]) >= 1
    assert (health.status_code, health.text) == (200, "OK")
    for thread in threads:
        thread.join()
    assert found == [200, 200]
    assert post(web, {"seconds": 0}).status_code == 200


def test_a_reduce_says_what_it_cannot_do(serve: Farm) -> None:
    """Nothing valid, a key that no fold knows, a process that is no reduce."""
    web = serve(COVER)
    empty = post_raw(web, npy(np.full((1, 2, 2), 255, np.uint8)), NPY)
    assert (empty.status_code, empty.json()["type"]) == (422, "urn:pesto:error:nothing-valid")
    assert post(web, {"pesto": {"finish": {"nope": 1}}}).status_code == 422
    other = post(serve(PROCESSES + "nap"), {"seconds": 0, "pesto": {"finish": {}}})
    assert pointers(other) == ["/pesto/finish"]


@pytest.mark.parametrize(
    ("how", "status", "told"),
    [("raise", 500, "KeyError: 'no such thing'"), ("nan", 500, "'number'"), ("inf", 500, "inf")],
)
def test_a_failing_algorithm_is_told_and_not_retryable(
    serve: Farm, how: str, status: int, told: str
) -> None:
    """Its exception and line; a number that JSON cannot carry by the name of its output."""
    answer = post(serve(PROCESSES + "wrong"), {"how": how})
    assert answer.status_code == status
    assert told in answer.json()["detail"]
    assert answer.json()["retryable"] is False
    assert "Traceback" not in answer.text
    assert post(serve(PROCESSES + "wrong"), {"how": "1.5"}).json() == {"number": 1.5}


def test_a_service_whose_set_up_failed_says_so() -> None:
    """Health is FAILED with 503, its log tells why, and no call is taken."""
    with in_process(PROCESSES + "broken", [], Limits()) as web:
        ready(web, "FAILED")
        health = web("GET", "/health", headers={"Accept": "application/json"})
        assert (health.status_code, health.json()["state"]) == (503, "FAILED")
        assert "model.onnx" in health.json()["setup"][-1]
        answer = post(web, {"number": 1})
        assert (answer.status_code, answer.json()["retryable"]) == (500, False)
