"""Forms of any writer are read back unchanged, and invalid ones are errors."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.client.multipart import Part, is_form, media_type_of, read_parts, write_parts
from pesto_runtime.errors import BadRequest

NAMES = st.text(
    st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp", "Zs")), min_size=1, max_size=12
)
PARTS = st.lists(
    st.builds(
        Part,
        name=NAMES,
        data=st.binary(max_size=200) | st.sampled_from([b"\r\n", b"--", b"\r\n--x", b"\r\n\r\n"]),
        media_type=st.sampled_from(["", "image/tiff", "application/json"]),
        filename=st.sampled_from(["", "a.tif", 'q"u\\o.te']),
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(PARTS)
def test_a_written_form_is_read_back(parts: list[Part]) -> None:
    """Names, bytes, media types and file names, whatever the bytes look like."""
    body, content_type = write_parts(parts)
    assert read_parts(body, media_type_of(content_type)) == parts


@pytest.mark.parametrize("data", [b"", b"\r\n", b"\r\n--", b"a" * 100_000, b"--frontier"])
def test_a_form_of_httpx_is_read(data: bytes) -> None:
    """The other library has its own writer."""
    form = {"n": "5"}
    image = {"image": ("a.tif", data, "image/tiff")}
    request = httpx.Request("POST", "http://localhost", data=form, files=image)
    parts = read_parts(request.read(), media_type_of(request.headers["content-type"]))
    assert parts == [Part("n", b"5"), Part("image", data, "image/tiff", "a.tif")]


def test_a_preamble_and_padding_are_skipped() -> None:
    """The standard permits text before the first boundary, and blanks after each."""
    body = (
        b"hello\r\n--x  \r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\nbye\r\n--x"
    )
    assert read_parts(body, 'multipart/form-data; boundary="x"') == [Part("a", b"1")]


def test_a_line_that_only_begins_like_the_boundary_is_content_when_no_line_end_is_before_it() -> (
    None
):
    """A delimiter begins a line; the control has the line end, and the content ends there."""
    head = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    media_type = 'multipart/form-data; boundary="x"'
    assert read_parts(head + b"1--x--\r\n--x--", media_type)[0].data == b"1--x--"
    assert read_parts(head + b"1\r\n--x--\r\n--x--", media_type)[0].data == b"1"


@pytest.mark.parametrize(
    ("body", "media_type", "message"),
    [
        (b"--x--", "multipart/form-data", "requires a boundary"),
        (b"--x--", f'multipart/form-data; boundary="{"y" * 71}"', "requires a boundary"),
        (b"", 'multipart/form-data; boundary="x"', "not in it"),
        (b"--x", 'multipart/form-data; boundary="x"', "truncated"),
        (b"--x\r\n", 'multipart/form-data; boundary="x"', "truncated"),
        (b"--x\r\n" + b"h" * 9000 + b"\r\n\r\n1\r\n--x--", 'multipart/form-data; boundary="x"',
         "no headers"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 1001 + b"--x--",
         'multipart/form-data; boundary="x"', "over 1000 parts"),
    ],
)  # fmt: skip
def test_a_body_that_is_not_a_form_is_an_error(body: bytes, media_type: str, message: str) -> None:
    """Truncated at any place, too long, or without a boundary."""
    assert is_form(media_type)
    with pytest.raises(BadRequest, match=message):
        read_parts(body, media_type)


def test_a_form_with_the_largest_permitted_number_of_parts_is_read() -> None:
    """A thousand; the test above has one more."""
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    assert len(read_parts(part * 1000 + b"--x--", 'multipart/form-data; boundary="x"')) == 1000


def test_a_line_that_continues_after_the_boundary_is_content() -> None:
    """Blanks after the boundary are padding, and end the part: the control."""
    head = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    media_type = 'multipart/form-data; boundary="x"'
    assert read_parts(head + b"1\r\n--xy\r\n--x--", media_type)[0].data == b"1\r\n--xy"
    assert [each.data for each in read_parts(head + b"1\r\n--x \t\r\n" + head[5:] + b"2\r\n--x--",
                                             media_type)] == [b"1", b"2"]  # fmt: skip


def test_a_broken_form_is_an_error_and_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """The sender receives the error; the log of a service is for its operator."""
    with pytest.raises(BadRequest, match="no headers that can be read"):
        read_parts(b"--x\r\nno header\r\n\r\n1\r\n--x--", 'multipart/form-data; boundary="x"')
    assert not caplog.records


def test_other_media_types_lose_their_parameters() -> None:
    """Only a form needs one of them; its boundary keeps its case."""
    assert media_type_of("Application/JSON; charset=utf-8") == "application/json"
    assert (
        media_type_of("multipart/FORM-data;BOUNDARY=AbC") == 'multipart/form-data; boundary="AbC"'
    )
    assert not is_form("multipart/mixed")
    assert media_type_of("") == ""
