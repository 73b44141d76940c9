"""Requests taken apart, and errors put together, without a server."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.client.multipart import Part, write_parts
from pesto_runtime.contract import Description
from pesto_runtime.errors import BadField, BadRequest, Busy, InvalidInput, UnsupportedMedia
from pesto_runtime.service.image_loader import parse_roi
from pesto_runtime.service.outputs import negotiate
from pesto_runtime.service.problems import problem_bytes, problem_response
from pesto_runtime.service.request import Faults, RawImage, read_payload
from pesto_runtime.service.runner import Payload, transports

IMAGE = {"$ref": "#/definitions/Image"}
ONE = Description.parse(
    {
        "name": "one",
        "version": "1",
        "input": {"properties": {"image": IMAGE, "n": {"type": "number"}, "s": {"type": "string"},
                                 "any": {}}},
        "output": {"properties": {"image": IMAGE, "n": {"type": "number"}}},
    }
)  # fmt: skip
TWO = Description.parse(
    {
        "name": "two",
        "version": "1",
        "input": {"properties": {"a": IMAGE, "b": IMAGE}},
        "output": {"properties": {"a": IMAGE, "b": IMAGE}},
    }
)


def payload(body: bytes, media_type: str = "application/json", **query: str) -> Payload:
    """A request."""
    return Payload(body, media_type, query, "*/*")


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.text(max_size=9000),
    st.lists(st.tuples(st.text(max_size=3000), st.text(max_size=3000)), max_size=40),
)
def test_no_error_body_reaches_4_kb(detail: str, fields: list[tuple[str, str]]) -> None:
    """Whatever the caller sent is not echoed back to him; the document stays whole JSON."""
    error = InvalidInput(detail, fields=[BadField(p, d, d) for p, d in fields])
    document = json.loads(problem_bytes(error))
    assert len(problem_bytes(error)) < 4096
    assert document["retryable"] is False
    assert document["status"] == 422


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.2, "2"), (60.0, "60")]
)
def test_retry_after_is_never_too_early(seconds: float, header: str) -> None:
    """The header has whole seconds: a part of one counts as one."""
    response = problem_response(Busy("full", retry_after_s=seconds))
    assert response.headers["Retry-After"] == header


def test_a_short_error_is_told_in_full() -> None:
    """Control of the bound: nothing is cut that need not be."""
    document = json.loads(problem_bytes(InvalidInput("bad", fields=[BadField("/a", "why", "1")])))
    assert document["detail"] == "bad"
    assert document["errors"] == [{"pointer": "/a", "detail": "why", "value": "1"}]


def test_a_raw_body_is_the_only_image_and_the_query_the_rest() -> None:
    """Strings stay strings where the schema says so; other parameters are JSON where they parse."""
    call = read_payload(
        payload(b"II*", "image/tiff", n="2.5", s="2.5", any="[1]", pesto='{"partial": true}'),
        ONE,
        Faults(),
    )
    assert call.values == {
        "image": RawImage(b"II*", "image/tiff"), "n": 2.5, "s": "2.5", "any": [1],
    }  # fmt: skip
    assert call.options.partial


def test_the_texts_of_a_form_are_read_as_those_of_the_query() -> None:
    """By the type of the port; JSON where the part says so."""
    parts = [Part(name, b"2.5", "text/plain") for name in ("n", "s", "any")]
    body, media_type = write_parts(parts)
    assert read_payload(payload(body, media_type), ONE, Faults()).values == {
        "n": 2.5, "s": "2.5", "any": 2.5,
    }  # fmt: skip
    body, media_type = write_parts([Part("s", b"2.5", "application/json")])
    assert read_payload(payload(body, media_type), ONE, Faults()).values == {"s": 2.5}


def test_binary_bodies_are_offered_only_where_they_can_be_taken() -> None:
    """With two images nobody knows which one a body is."""
    form = "multipart/form-data"
    assert transports(ONE) == ("application/json", "image/tiff", "application/x-npy", form)
    assert transports(TWO) == ("application/json", form)
    taken = f"two accepts application/json, {form}, not 'image/tiff'"
    with pytest.raises(UnsupportedMedia, match=taken):
        read_payload(payload(b"II*", "image/tiff"), TWO, Faults())


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded",
                                        "application/geo+json"])  # fmt: skip
def test_json_is_read_under_any_media_type_that_callers_of_pesto_send(media_type: str) -> None:
    """PESTO never looks; curl says it is a form."""
    assert read_payload(payload(b'{"n": 1}', media_type), ONE, Faults()).values == {"n": 1}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"a"', b'{"n": NaN}', b'{"n": Infinity}',
                                  b"\xff\xfe{", b"[" * 200_000])  # fmt: skip
def test_what_is_no_json_object_is_a_bad_request(body: bytes) -> None:
    """Not-a-number is no JSON either; deep nesting is refused, not a crash."""
    with pytest.raises(BadRequest):
        read_payload(payload(body), ONE, Faults())


def test_unknown_options_are_told_with_their_pointer() -> None:
    """A wrong tile is gathered with the other faults."""
    faults = Faults()
    read_payload(payload(b'{"pesto": {"tile": {"read": [0, 0, 1, 1]}, "partial": 3}}'), ONE, faults)
    with pytest.raises(InvalidInput) as caught:
        faults.raise_any("call")
    pointers = [field.pointer for field in caught.value.fields]
    assert "/pesto/tile/write" in pointers
    assert "/pesto/partial" in pointers


def test_a_wrong_window_among_the_options_is_a_fault_like_others() -> None:
    """It never escapes before the other faults are gathered."""
    faults = Faults()
    read_payload(payload(b'{"pesto": {"tile": {"read": [0, 0, 0, 1]}}}'), ONE, faults)
    with pytest.raises(InvalidInput, match=r"/pesto.*window \[0, 0, 0, 1\]"):
        faults.raise_any("call")


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("image/tiff", "image/tiff"),
        ("image/*", "image/tiff"),
        ("application/json;q=0.5, application/x-npy", "application/x-npy"),
        ("image/tiff;q=0, application/json", "application/json"),
        ("image/tiff;q=x", "application/json"),
        ("nonsense", "application/json"),
    ],
)
def test_the_answer_is_what_accept_prefers(accept: str, media_type: str) -> None:
    """Weights count; what cannot be answered is JSON, as PESTO never looks."""
    assert negotiate(ONE, accept, {}).media_type == media_type


def test_one_binary_image_of_two_is_refused_with_the_way_out() -> None:
    """Before the process runs."""
    with pytest.raises(UnsupportedMedia, match=r"2 image outputs \(a, b\).*pesto\.out"):
        negotiate(TWO, "image/tiff", {})
    assert negotiate(TWO, "image/tiff", {"a": "file:///a"}).media_type == "application/json"


def test_a_region_of_interest_is_read_with_its_margin_and_trimmed_of_it() -> None:
    """The margin is clipped at the image's border, and the trim knows it."""
    document = {
        "target_in": ["image"],
        "target_out": ["image"],
        "lines": {"first": 2, "number": 3, "margin": 5},
        "columns": {"first": 6, "number": 2, "margin": 1},
    }
    roi = parse_roi(document, ONE)  # type: ignore[arg-type]  # plain JSON
    assert roi is not None
    window = roi.window(8, 9)
    assert tuple(window) == (5, 0, 3, 9)
    image = np.arange(72).reshape(1, 9, 8)
    rows, cols = window.slices
    assert np.array_equal(roi.trimmed(image[:, rows, cols]), image[:, 2:5, 6:8])
    with pytest.raises(InvalidInput, match="not inside the image"):
        roi.window(7, 9)


@pytest.mark.parametrize("document", [{}, {"lines": {"first": 0, "number": 1}},
                                      {"target_in": ["n"], "lines": {"first": 0, "number": 1},
                                       "columns": {"first": 0, "number": 1}}])  # fmt: skip
def test_a_wrong_region_of_interest_is_told(document: dict[str, object]) -> None:
    """Both axes are needed, and targets are images."""
    with pytest.raises(InvalidInput):
        parse_roi(document, ONE)  # type: ignore[arg-type]  # plain JSON
