"""A body with long strings of base64 is the document that `json.loads` makes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import BadRequest
from pesto_runtime.service.long_texts import LongText, read_long_json, restored
from pesto_runtime.service.request import read_json
from pesto_runtime.service.runner import Spool

if TYPE_CHECKING:
    from pydantic import JsonValue

LONG = "QUJD" * 50_000
OTHER = "eHl6" * 40_000 + "eA=="
DOCUMENTS: dict[str, object] = {
    "one": {"image": LONG, "number": 1.5},
    "several": {"images": [LONG, "file:///a.tif", OTHER], "last": LONG},
    "deep": {"a": {"b": [{"c": LONG}]}, "d": None},
    "a key": {LONG: 1},
    "the whole": LONG,
    "no base64": {"text": "not base64! " * 20_000, "image": LONG},
    "escaped": {"text": '"' + LONG, "more": "\\" + LONG, "url": LONG[:-1] + "/"},
    "short": {"image": "QUJD"},
    "numbers": {"values": list(range(60_000))},
}


def parsed(text: bytes) -> tuple[JsonValue, dict[str, LongText]]:
    """A body as a service reads it."""
    document, texts = read_long_json(Spool.of(text), lambda data: read_json(data, "the body"))
    return document, dict(texts)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_is_the_same(name: str) -> None:
    """Wherever the long strings are, with escapes near them or not."""
    for options in ({}, {"indent": 1}, {"ensure_ascii": False}):
        text = json.dumps(DOCUMENTS[name], **options).encode()
        document, texts = parsed(text)
        found = restored(document, texts)
        if name == "a key":
            assert isinstance(found, dict)  # it names no input, whatever it is
        else:
            assert found == json.loads(text)


def test_what_is_parsed_is_short() -> None:
    """The point of it: of 200 kB nothing but a name is left to the parser."""
    document, texts = parsed(json.dumps({"image": LONG}).encode())
    assert isinstance(document, dict)
    assert len(str(document)) < 100
    (text,) = texts.values()
    assert (len(text), text.text() == LONG) == (len(LONG), True)
    assert len(text.begins) == 200


@pytest.mark.parametrize(
    "text",
    [
        f'{{"a": "x"{LONG}"b"}}',
        f'{{"a": {LONG}}}',
        f'{{"a": "{LONG}',
        f'{{"a": "{LONG}" "b"}}',
        f'{{"a": "{LONG}"}} "{LONG}"',
        f'{{"a": \\"{LONG}"}}',
    ],
)
def test_what_is_no_json_is_none(text: str) -> None:
    """Control: taking the strings out makes nothing right that was wrong."""
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    with pytest.raises(BadRequest, match="not JSON"):
        parsed(text.encode())


def test_a_text_is_consumed_in_pieces_and_its_memory_given_back() -> None:
    """3 MB in slices of 1 MiB are the text; its neighbours in the body stay."""
    text, spare = "QUJD" * 750_000, "eHl6" * 50_000
    body = json.dumps({"before": spare, "image": text, "after": spare}).encode()
    document, texts = parsed(body)
    assert isinstance(document, dict)
    before, image, after = (texts[str(document[name])] for name in ("before", "image", "after"))
    pieces = list(image.consumed())
    assert b"".join(pieces).decode() == text
    assert max(map(len, pieces)) == 1 << 20
    assert set(image.text()[200_000:2_000_000]) == {"\0"}
    assert [before.text(), after.text()] == [spare, spare]
