"""Answers taken apart into results, and put together again."""

from __future__ import annotations

import base64
import json

import pytest

from pesto_runtime.client.multipart import Part, write_parts
from pesto_runtime.contract import Description
from pesto_runtime.service.jobs.results import (
    join_response,
    output_hrefs,
    result_body,
    results_of,
    split_response,
)
from pesto_runtime.service.jobs.states import Result
from pesto_runtime.service.runner import CallResponse

IMAGE = {"$ref": "#/definitions/Image"}
IMAGES = {"$ref": "#/definitions/Images"}
DESCRIPTION = Description.parse(
    {
        "name": "zoo",
        "version": "1",
        "input": {"type": "object", "properties": {}},
        "output": {
            "type": "object",
            "properties": {
                "image": IMAGE,
                "tiles": IMAGES,
                "tiles1": {"type": "number"},
                "band1": {"type": "number"},
                "text": {"type": "string"},
                "count": {"type": "integer"},
                "features": {"type": "object"},
            },
        },
    }
)
TIFF, PNG = b"II*\0 a tiff", b"\x89PNG a png"


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def json_answer(document: object) -> CallResponse:
    return CallResponse(json.dumps(document, separators=(",", ":")).encode(), "application/json")


ANSWERS = {
    "json": json_answer(
        {
            "image": base64_of(PNG),
            "tiles": [base64_of(TIFF + bytes([n])) for n in range(12)],
            "tiles1": 2.5,
            "band1": 7.0,
            "text": "file:///is/a/text.json",
            "count": 3,
            "features": {"a": [1, None]},
        }
    ),
    "hrefs": json_answer({"image": "file:///out/a.tif", "text": "x"}),
    "empty list": json_answer({"tiles": []}),
    "no images": json_answer({"image": None, "tiles": None}),
    "partial": json_answer({"cloudy": 3, "valid": 10}),
    "binary": CallResponse(TIFF, "image/tiff"),
}


def test_an_output_that_is_none_has_no_link_and_stays_in_the_response() -> None:
    """As PESTO 1.7.2 lists the results of a job; False, 0 and an empty text are values."""
    document = {"count": None, "text": "null", "band1": 0, "flag": False, "empty": ""}
    pieces = split_response(
        CallResponse(json.dumps(document).encode(), "application/json"), DESCRIPTION
    )
    results = results_of(pieces)
    links = output_hrefs(results, {each.part: each.part for each in results})
    assert sorted(links) == ["band1", "empty", "flag", "text"]
    assert json.loads(join_response(pieces, "application/json").content) == document


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_the_same_once_put_together_again(name: str) -> None:
    """Byte for byte: whoever asks again under its key is answered as the first one was."""
    answer = ANSWERS[name]
    assert join_response(split_response(answer, DESCRIPTION), answer.media_type) == answer


def test_a_form_keeps_its_parts() -> None:
    """In their order, each with its media type; only the boundary is another one."""
    parts = [
        Part("tiles", TIFF, "image/tiff"), Part("tiles", PNG, "image/png"),
        Part("count", b"3", "application/json"), Part("image", TIFF, "image/tiff"),
    ]  # fmt: skip
    pieces = split_response(CallResponse(*write_parts(parts)), DESCRIPTION)
    assert [(each.output, each.index) for each in pieces] == [
        ("tiles", 0), ("tiles", 1), ("count", None), ("image", None),
    ]  # fmt: skip
    again = join_response(pieces, CallResponse(*write_parts(parts)).media_type)
    assert split_response(again, DESCRIPTION) == pieces


def test_twelve_images_keep_their_order() -> None:
    """PESTO 1.7.2 sorts them as text: 0, 1, 10, 11, 2."""
    pieces = split_response(ANSWERS["json"], DESCRIPTION)
    results = results_of(pieces)
    links = output_hrefs(results, {each.part: each.part for each in results})
    assert links["tiles"] == [
        "tiles0", "tiles.1", *(f"tiles{number}" for number in range(2, 12)),
    ]  # fmt: skip
    assert [each.data for each in pieces if each.output == "tiles"] == [
        TIFF + bytes([number]) for number in range(12)
    ]


def test_an_output_whose_name_ends_in_a_digit_keeps_its_name() -> None:
    """Also where a list has an image of that number, which then steps aside."""
    results = results_of(split_response(ANSWERS["json"], DESCRIPTION))
    links = output_hrefs(results, {each.part: each.part for each in results})
    assert (links["band1"], links["tiles1"]) == ("band1", "tiles1")
    parts = [each.part for each in results]
    assert len(parts) == len(set(parts))


def test_images_are_what_they_are_and_hrefs_where_they_were_written() -> None:
    """The media type is that of the bytes; a text that looks like an href stays a text."""
    results = {each.part: each for each in results_of(split_response(ANSWERS["json"], DESCRIPTION))}
    assert (results["image"].media_type, results["tiles0"].media_type) == (
        "image/png",
        "image/tiff",
    )
    assert results["text"].href is None
    written = results_of(split_response(ANSWERS["hrefs"], DESCRIPTION))[0]
    assert written.href == "file:///out/a.tif"
    assert output_hrefs([written], {})["image"] == "file:///out/a.tif"


@pytest.mark.parametrize(
    ("data", "as_json", "content", "media_type"),
    [
        (b"2.5", False, b"2.5", "text/plain"),
        (b'"abc"', False, b"abc", "text/plain"),
        (b"3", False, b"3", "application/json"),
        (b"true", False, b"true", "application/json"),
        (b"[1,2]", False, b"[1,2]", "application/json"),
        (b'"abc"', True, b'"abc"', "application/json"),
    ],
)
def test_numbers_and_strings_are_text_unless_json_is_wanted(
    data: bytes, as_json: bool, content: bytes, media_type: str
) -> None:
    """As PESTO has it; our client asks for JSON, which tells 2.5 from "2.5"."""
    result = Result("number", "number", "application/json")
    assert result_body(data, result, as_json=as_json) == (content, media_type)


def test_what_was_deleted_is_not_listed() -> None:
    """The others are, in their order."""
    results = [
        Result("a", "a", "image/tiff", is_deleted=True), Result("b", "b0", "image/tiff", 0),
        Result("b", "b1", "image/tiff", 1, is_deleted=True), Result("b", "b2", "image/tiff", 2),
    ]  # fmt: skip
    assert output_hrefs(results, {"b0": "x", "b2": "y"}) == {"b": ["x", "y"]}
