"""A text is the same value in every way in: it is tried against the schema before it is JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.errors import InvalidInput, PestoError
from pesto_runtime.hrefs import Gate
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.run.single_call import call_once
from tests.contract.test_client_and_service import served
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

pytestmark = [pytest.mark.contract, pytest.mark.integration]

SOURCE = '''
from enum import Enum
from typing import Annotated, Any, Literal, Optional, Union

import numpy as np
from pydantic import BaseModel, Field

from pesto_runtime import Named, Raster, process


class Bits(Enum):
    """Words that look like numbers."""

    eight = "8"
    sixteen = "16"


class Point(BaseModel):
    """A value with a schema of its own."""

    x: float = 0


@process(version="1.0.0")
def echo(
    scene: np.ndarray,
    plain: str = "-",
    maybe: Optional[str] = None,
    several: Union[str, int, None] = None,
    long: Annotated[str, Field(min_length=3)] | None = None,
    bits: Bits = Bits.eight,
    level: Literal["1", "2", "high"] = "high",
    mixed: Literal[1, "1", "b"] = "b",
    whole: int = 1,
    maybe_whole: int | None = None,
    number: float = 0.5,
    flag: bool = False,
    sizes: list[int] | None = None,
    point: Point = Point(),
    anything: Any = None,
) -> Annotated[dict, Named("got")]:
    """Return what came."""
    found = dict(locals())
    del found["scene"]
    found["point"] = point.model_dump()
    found["bits"] = bits.value
    return found


@process(version="1.0.0")
def masked(scene: np.ndarray, mask: np.ndarray | None = None) -> Annotated[bool, Named("got")]:
    """Return whether there is a mask."""
    return mask is not None
'''
PIXELS = noise(4, 3)
WAYS = ("form", "query", "process", "process-url")

TABLE: list[tuple[str, str, JsonValue]] = [
    *[("plain", text, text) for text in ("2024", "12e5", "null", "true", '"a"', "31TCJ", "{}")],
    *[("maybe", text, text) for text in ("2024", "12e5", "null", "true", "[1]", "1_000", "-0")],
    *[("several", text, text) for text in ("5", "null", "five")],
    ("long", "2024", "2024"),
    ("bits", "8", "8"),
    ("bits", "16", "16"),
    ("level", "1", "1"),
    ("level", "high", "high"),
    ("mixed", "1", "1"),
    ("whole", "3", 3),
    ("whole", "3.0", 3),
    ("whole", "-1e2", -100),
    ("maybe_whole", "7", 7),
    ("maybe_whole", "7.0", 7),
    ("maybe_whole", "null", None),
    ("number", "2", 2.0),
    ("number", "2.5e-1", 0.25),
    ("flag", "true", True),
    ("sizes", "[3, 4.0]", [3, 4]),
    ("sizes", "null", None),
    ("point", '{"x": 2}', {"x": 2.0}),
    ("anything", "5", 5),
    ("anything", "null", None),
    ("anything", "a b", "a b"),
]
WRONG = [
    ("bits", "9"),
    ("level", "3"),
    ("long", "12"),
    ("whole", "2.5"),
    ("whole", "two"),
    ("number", "NaN"),
    ("flag", "1"),
    ("sizes", "3,4"),
]


class Ways:
    """Every way in which a text goes into one process."""

    def __init__(self, folder: Path, url: str) -> None:
        """Use a process of a file, and the service of it."""
        self.url, self.target = url, f"{folder}/echo.py:echo"
        self.scene = str(write_scene(folder / "s.tif", PIXELS))

    def __call__(self, way: str, texts: dict[str, str]) -> dict[str, JsonValue]:
        """Return the values that the process received."""
        if way.startswith("process"):
            target = self.url if way == "process-url" else self.target
            found = call_once(target, {"scene": self.scene, **texts}, keep={})["got"]
        elif way == "query":
            found = self.post(params=texts, content=npy(), headers={"Content-Type": NPY})
        else:
            parts = [(name, (None, text)) for name, text in texts.items()]
            found = self.post(files=[("scene", ("s.npy", npy(), NPY)), *parts])
        assert isinstance(found, dict)
        return found

    def post(self, **request: object) -> JsonValue:
        """Return `got` of an answer."""
        answer = httpx.post(f"{self.url}/api/v1/process", **request)  # type: ignore[arg-type]  # httpx judges
        if answer.is_error:
            assert answer.status_code == 422, answer.text
            raise InvalidInput(json.dumps(answer.json()))
        found: JsonValue = answer.json()["got"]
        return found


NPY = "application/x-npy"


def npy() -> bytes:
    """The image as .npy."""
    return encode_image(Image(PIXELS), NPY)


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """A process, and a service of it."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "echo.py").write_text(SOURCE)
    with served(f"{folder}/echo.py:echo", Gate(local_files=True)) as url:
        yield Ways(folder, url)


@pytest.mark.parametrize("way", WAYS)
def test_a_text_is_the_same_value_in_every_way(ways: Ways, way: str) -> None:
    """For each kind of schema: text where the schema accepts it, else JSON."""
    wrong = []
    for name, text, value in TABLE:
        found = ways(way, {name: text})[name]
        if (found, type(found)) != (value, type(value)):
            wrong.append((name, text, value, found))
    assert wrong == []


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_text_is_refused_once(ways: Ways, way: str) -> None:
    """With its pointer; one enum is one error."""
    for name, text in WRONG:
        with pytest.raises(PestoError) as caught:
            ways(way, {name: text})
        assert str(caught.value).count(f"/{name}") == 1, (name, text, str(caught.value))


def test_a_wrong_enum_of_another_type_is_one_error(ways: Ways) -> None:
    """Neither of the schema nor of pydantic a second one."""
    with pytest.raises(InvalidInput) as caught:
        ways.post(json={"scene": "file://" + ways.scene, "level": 5})
    assert len(json.loads(caught.value.detail)["errors"]) == 1


@pytest.mark.parametrize("value", [2.0, -3.0, 1e3])
def test_a_whole_number_with_a_point_is_an_integer(ways: Ways, value: float) -> None:
    """As JSON Schema says, in a body and by a client; 2.5 is none."""
    found = ways.post(json={"scene": "file://" + ways.scene, "whole": value, "number": value})
    assert isinstance(found, dict)
    assert (found["whole"], type(found["whole"])) == (int(value), int)
    with pytest.raises(InvalidInput):
        ways.post(json={"scene": "file://" + ways.scene, "whole": value + 0.5})


@pytest.mark.parametrize(
    "values",
    [
        {name: value for name, _, value in TABLE},
        {"several": 5, "maybe": '"quoted"', "plain": ""},
        {"several": "5", "anything": "5", "maybe": "null"},
        {"anything": ["5", 5, None], "mixed": 1, "maybe": None},
        {"mixed": "1", "anything": {"a": "null"}},
    ],
)
def test_a_client_sends_every_value_as_it_is(ways: Ways, values: dict[str, JsonValue]) -> None:
    """Also those that have no form as a query parameter: 5 for a string or an integer."""
    with Client(ways.url) as client:
        found = client.process({"scene": PIXELS, **values})["got"]
    assert isinstance(found, dict)
    assert {name: found[name] for name in values} == values


@pytest.mark.parametrize("name", ["whole", "maybe_whole", "number", "sizes", "flag"])
def test_an_optional_field_of_a_form_that_is_left_empty_is_absent(ways: Ways, name: str) -> None:
    """A number, a list; an empty text is a value where the schema accepts it."""
    body = _part("scene", ("s.npy", npy(), NPY)) + _part(name, (None, b"", None))
    body += _part("plain", (None, b"", None)) + b"--x--\r\n"
    headers = {"Content-Type": 'multipart/form-data; boundary="x"'}
    found = ways.post(content=body, headers=headers)
    defaults = ways("form", {})
    assert isinstance(found, dict)
    assert found[name] == defaults[name]
    assert (found["plain"], defaults["plain"]) == ("", "-")


def test_a_file_that_is_not_chosen_is_absent(ways: Ways) -> None:
    """Browsers send an empty file without a name; an empty required image is an error."""
    headers = {"Content-Type": 'multipart/form-data; boundary="x"'}
    empty = _part("mask", ("", b"", "application/octet-stream"))
    image = _part("scene", ("s.npy", npy(), NPY))
    with served(ways.target.replace(":echo", ":masked"), Gate(local_files=True)) as url:
        masked = Ways(Path(ways.scene).parent, url)
        assert masked.post(content=image + empty + b"--x--\r\n", headers=headers) is False
        both = image + _part("mask", ("m.npy", npy(), NPY))
        assert masked.post(content=both + b"--x--\r\n", headers=headers) is True
        body = _part("scene", ("", b"", None)) + b"--x--\r\n"
        with pytest.raises(InvalidInput, match="empty"):
            masked.post(content=body, headers=headers)


def _part(name: str, content: tuple[str | None, bytes, str | None]) -> bytes:
    filename, data, media_type = content
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"'
    head += "" if filename is None else f'; filename="{filename}"'
    head += f"\r\nContent-Type: {media_type}" if media_type else ""
    return head.encode() + b"\r\n\r\n" + data + b"\r\n"


@pytest.mark.parametrize(
    "media_type",
    ["application/octet-stream", "application/geotiff", "application/x-tiff", "image/x-tiff", ""],
)
def test_a_file_of_any_type_is_an_image(ways: Ways, media_type: str) -> None:
    """Its content decides the format."""
    data = encode_image(Image(PIXELS), "image/tiff")
    body = _part("scene", ("s.tif", data, media_type or None)) + b"--x--\r\n"
    headers = {"Content-Type": 'multipart/form-data; boundary="x"'}
    assert isinstance(ways.post(content=body, headers=headers), dict)
    # RFC 7578 section 4.2 forbids this form, which some clients send nevertheless.
    encoded = body.replace(b'filename="s.tif"', b"filename*=UTF-8''s%C3%A9.tif")
    assert encoded != body
    assert isinstance(ways.post(content=encoded, headers=headers), dict)


@pytest.mark.parametrize("query", ["whole=1&whole=2", "whole=1&plain=a&whole=1"])
def test_a_parameter_that_is_given_twice_is_refused(ways: Ways, query: str) -> None:
    """As the parts of a form; a parameter that is no input is told as such, also twice."""
    url, headers = f"{ways.url}/api/v1/process", {"Content-Type": NPY}
    answer = httpx.post(f"{url}?{query}", content=npy(), headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/whole")
    other = httpx.post(f"{url}?q=1&q=2", content=npy(), headers=headers)
    assert (other.status_code, other.json()["errors"][0]["pointer"]) == (422, "/q")


def test_a_query_that_is_not_utf_8_is_refused(ways: Ways) -> None:
    """Never another text; UTF-8 is read, with or without percent signs."""
    url, headers = f"{ways.url}/api/v1/process", {"Content-Type": NPY}
    answer = httpx.post(f"{url}?plain=%ff", content=npy(), headers=headers)
    assert (answer.status_code, "not UTF-8" in answer.text) == (400, True)
    for text in ("%C3%A9", "é"):
        answer = httpx.post(f"{url}?plain={text}", content=npy(), headers=headers)
        assert answer.json()["got"]["plain"] == "é"
