"""Images and values are the same after every transport, in and out, whatever they hold."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.raster.codec import decode_image, encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.service.limits import Limits
from tests.contract.calls import FORM, NPY, PROCESSES, TIFF, npy, pointers, post, post_raw
from tests.contract.transports import (
    WAYS_IN,
    WAYS_OUT,
    full_range,
    parts_of,
    post_form,
    require_same,
)
from tests.contract.web import WAYS, Farm, by_uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]

COUNTS = "tests/contract/band_counts.py:"
SHAPES = "tests/data/shapes_project"
SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [0, 4], [4, 4], [4, 0], [0, 0]]]}
DTYPES = ("uint8", "uint16", "int16", "float32", "float64")


@pytest.fixture(scope="module", params=WAYS)
def serve(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Farm]:
    """Serve targets in one way or the other."""
    with ExitStack() as stack:
        yield Farm(request.param, tmp_path_factory.mktemp("allowed"), stack)


@pytest.mark.parametrize("count", [1, 3, 4, 13])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_image_is_the_same_after_every_transport(
    serve: Farm, dtype: str, count: int, tmp_path: Path
) -> None:
    """Pixels to the bit, dtype, CRS, transform, nodata, band descriptions and tags: in and out."""
    web, image = serve(f"{COUNTS}same{count}"), full_range(dtype, count)
    for way, send in WAYS_IN.items():
        answer = send(web, image, tmp_path)
        assert answer.status_code == 200, f"{way}: {answer.text}"
        require_same(decode_image(answer.content), image)
    for receive in WAYS_OUT.values():
        require_same(receive(web, encode_image(image, TIFF), serve.allowed), image)
    bare = decode_image(post_raw(web, encode_image(image, TIFF), TIFF, NPY).content)
    assert bare.pixels.tobytes() == image.pixels.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": np.zeros((3, 11, 9), np.uint16)},
        {"pixels": full_range("uint16", 3).pixels.astype(np.int16)},
        {"crs": "EPSG:32617"},
        {"transform": (30.0, 0.0, 501.0, 0.0, -30.0, 900.0)},
        {"nodata": 8.0},
        {"bands": ("b1", "b3", "b2")},
        {"tags": {"SENSOR": "MSI"}},
    ],
)
def test_the_comparison_would_show_a_difference(change: dict[str, object]) -> None:
    """Control: one wrong pixel, dtype or fact is enough."""
    image = full_range("uint16", 3)
    require_same(decode_image(encode_image(image, TIFF)), image)
    with pytest.raises(AssertionError):
        require_same(replace(image, **change), image)  # type: ignore[arg-type]  # each is a field


def test_a_form_carries_several_images_and_values(serve: Farm) -> None:
    """Each by its own media type; text where the schema says string, JSON elsewhere."""
    web = serve(COUNTS + "differ")
    before, after = np.ones((1, 2, 3), np.int16), np.full((1, 2, 3), 3, np.float32)
    parts: list[tuple[str, object]] = [
        ("before", ("b.tif", encode_image(Image(before), TIFF), TIFF)),
        ("after", ("a", npy(after), "application/octet-stream")),
        ("weight", (None, "0.5")),
        ("note", (None, "17")),
    ]
    told = post_form(web, parts).json()["told"]
    assert told == {"change": 6.0, "dtypes": ["int16", "float32"], "note": "17"}
    film = ("unknown", ("x", b"\xff\x00", "video/mp4"))
    assert pointers(post_form(web, [*parts, film])) == ["/unknown"]
    swapped = [("before", parts[1][1]), ("after", parts[0][1])]
    assert post_form(web, swapped).json()["told"]["change"] == -12.0


def test_the_client_sends_several_images_as_they_are() -> None:
    """float64 and int16 arrive as such, without base64."""
    before, after = np.ones((1, 2, 3), np.int16), np.full((1, 2, 3), 3, np.float64)
    with by_uvicorn(COUNTS + "differ", [], Limits(workers=1)) as web, Client(web.url) as client:
        told = client.process({"before": before, "after": Image(after), "note": "a\r\n--b"})["told"]
    assert told == {"change": 12.0, "dtypes": ["int16", "float64"], "note": "a\r\n--b"}


def test_a_form_answers_each_output_as_a_part(serve: Farm) -> None:
    """Values as JSON, images by the image type that is accepted beside the form."""
    parts = [("image", ("a.npy", npy(np.ones((2, 2, 2))), NPY)), ("note", (None, "é"))]
    facts = parts_of(post_form(serve(PROCESSES + "facts"), list(parts), FORM))
    assert facts["facts"][0] == "application/json"
    assert json.loads(facts["facts"][1])["note"] == "é"
    web, body = serve(COUNTS + "same1"), npy(np.ones((1, 2, 2), np.uint16))
    for beside in (TIFF, NPY, "image/png"):
        media_type, data = parts_of(post_raw(web, body, NPY, f"{FORM}, {beside};q=0.5"))["image"]
        assert media_type == beside
        assert decode_image(data).pixels.tolist() == [[[1, 1], [1, 1]]]


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b"", 400, "boundary is not in it"),
        (b"--x--\r\n", 400, "no parts"),
        (b"--x\r\n\r\nabc\r\n--x--\r\n", 400, "no headers"),
        (b"--x\r\nContent-Type: a/b\r\n\r\nabc\r\n--x--\r\n", 400, "the name of its input"),
        (b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc', 400, "truncated"),
        (b'--x\r\nContent-Disposition: form-data; name="note"\r\n\r\n\xff\xfe\r\n--x--\r\n', 422,
         "is not UTF-8 text"),
    ],
)  # fmt: skip
def test_a_broken_form_is_told(serve: Farm, content: bytes, status: int, told: str) -> None:
    """Never 500, and never read past its end."""
    headers = {"Content-Type": 'multipart/form-data; boundary="x"'}
    answer = serve(PROCESSES + "facts")("POST", "/process", content=content, headers=headers)
    assert answer.status_code == status
    assert told in answer.text


def test_an_input_given_twice_is_told(serve: Farm) -> None:
    """Only a list of images has several parts."""
    parts: list[tuple[str, object]] = [("note", (None, "a")), ("note", (None, "b"))]
    answer = post_form(serve(PROCESSES + "facts"), parts)
    assert pointers(answer) == ["/image", "/note"]


def test_polygons_and_definitions_are_judged_and_arrive(serve: Farm) -> None:
    """`$ref` to PESTO's definitions and the author's own, one of which refers to another."""
    web = serve(SHAPES)
    place = {"name": "Toulouse", "height": 146}
    document = {"area": SQUARE, "areas": [SQUARE, SQUARE], "place": place, "mode": "exact"}
    answer = post(web, document).json()
    assert answer["given"] == {"factor": 2, "mode": "exact", "place": place, "count": 2}
    assert answer["outline"] == SQUARE
    assert answer["surface"] == 32
    form = [(name, (None, each if isinstance(each, str) else json.dumps(each)))
            for name, each in document.items()]  # fmt: skip
    assert post_form(web, list(form)).json() == answer


def test_what_the_definitions_refuse_is_refused(serve: Farm) -> None:
    """Control: inside a polygon, inside a definition of a definition, and in a list."""
    place = {"name": "nowhere", "height": 9001}
    line = {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}
    answer = post(serve(SHAPES), {"area": line, "areas": [SQUARE, line], "place": place})
    assert answer.status_code == 422
    assert {each.rpartition("/type")[0] or each for each in pointers(answer)} >= {
        "/area", "/areas/1", "/place/height",
    }  # fmt: skip


def test_absent_optional_inputs_have_their_defaults(serve: Farm) -> None:
    """The schema's default wins over the function's; without either it is None."""
    web = serve(SHAPES)
    assert post(web, {"area": SQUARE}).json()["given"] == {
        "factor": 2, "mode": None, "place": None, "count": 0,
    }  # fmt: skip
    assert post(web, {"area": SQUARE, "factor": 0.25}).json()["surface"] == 4
