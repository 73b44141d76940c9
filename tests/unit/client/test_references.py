"""Hrefs that a service is sent, and the effect of a refusal on later calls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.client.describing import Described, References
from pesto_runtime.client.jobs import JobSteps
from pesto_runtime.client.sending import EncodedCall, OutgoingCall, outgoing_of
from pesto_runtime.client.steps import Patience, Reply, Request, advance
from pesto_runtime.contract import Description, ImageReference
from pesto_runtime.errors import SceneChanged
from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.identity import identity_of
from pesto_runtime.raster.image import Image

if TYPE_CHECKING:
    from pathlib import Path

HERE, AWAY = "http://127.0.0.1:1/api/v1", "http://host/api/v1"
IMAGE = {"$ref": "#/definitions/Image"}
ONE = Description.parse(
    {
        "name": "one",
        "version": "1",
        "input": {"properties": {"image": IMAGE}},
        "output": {"properties": {"image": IMAGE}},
    }
)
OURS = Described(ONE, ("application/json", "image/tiff", "application/x-npy"), "b", "d")
PLAIN = Described(ONE, (), "b", "d")
PIXELS = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
ANSWER = Reply(
    200, {"content-type": "application/x-npy"}, encode_image(Image(PIXELS), "application/x-npy")
)
REFUSED = Reply(
    422,
    {"content-type": "application/problem+json"},
    b'{"type": "urn:pesto:error:href-refused", "detail": "no", "retryable": false}',
)


@pytest.mark.parametrize(
    ("where", "described", "href", "claim"),
    [
        (HERE, OURS, "file:///a.tif", True),
        (AWAY, OURS, "file:///a.tif", False),
        (AWAY, OURS, "https://host/a.tif", True),
        (AWAY, OURS, "s3://bucket/a.tif", True),
        (HERE, OURS, "memory:///a.tif", False),
        (HERE, PLAIN, "file:///a.tif", False),
        (HERE, PLAIN, "http://127.0.0.1/a.tif", False),
    ],
)
def test_an_href_is_sent_only_where_it_can_mean_the_same(
    where: str, described: Described, href: str, claim: bool
) -> None:
    """A local file to a service on this machine; nothing to one that reads no windows."""
    assert References(where, described).admits(href) is claim


def played(references: References, href: str, replies: list[Reply]) -> list[Request]:
    """Call once with a reference; return the requests."""
    call = OutgoingCall({"image": ImageReference(href=href)})
    steps = JobSteps(OURS, HERE, Patience()).process(call, references)
    sent: list[Request] = []
    step, result = advance(steps, None)
    while isinstance(step, Request):
        sent.append(step)
        step, result = advance(steps, replies.pop(0))
    assert result is not None
    assert np.array_equal(np.asarray(result["image"]), PIXELS)
    return sent


def test_after_a_refusal_pixels_are_sent(tmp_path: Path) -> None:
    """First the reference, then the pixels; in later calls only the pixels."""
    path = tmp_path / "a.tif"
    path.write_bytes(encode_image(Image(PIXELS), "image/tiff"))
    references, href = References(HERE, OURS), file_href(path)
    first, second = played(references, href, [REFUSED, ANSWER])
    assert json.loads(first.content) == {"image": {"href": href}}
    assert second.headers["Content-Type"] == "application/x-npy"
    (third,) = played(references, href, [ANSWER])
    assert third == second


def test_calls_that_are_refused_at_once_all_send_pixels(tmp_path: Path) -> None:
    """Each has sent the reference before any is refused: no refusal reaches the caller."""
    path = tmp_path / "a.tif"
    path.write_bytes(encode_image(Image(PIXELS), "image/tiff"))
    references = References(HERE, OURS)
    call = OutgoingCall({"image": ImageReference(href=file_href(path))})
    threads = [JobSteps(OURS, HERE, Patience()).process(call, references) for _ in range(3)]
    for steps in threads:
        step, _ = advance(steps, None)
        assert isinstance(step, Request)
        assert step.headers["Content-Type"] == "application/json"
    for steps in threads:
        step, _ = advance(steps, REFUSED)
        assert isinstance(step, Request)
        assert step.headers["Content-Type"] == "application/x-npy"


def test_without_a_refusal_each_call_sends_the_reference() -> None:
    """Control: no file is read here, not even one that does not exist."""
    references = References(HERE, OURS)
    for _ in range(2):
        (sent,) = played(references, "file:///nosuch.tif", [ANSWER])
        assert sent.headers["Content-Type"] == "application/json"


def test_pixels_that_are_sent_instead_have_the_identity_of_the_reference(tmp_path: Path) -> None:
    """The client reads them itself then; the control is the raster's own identity."""
    path = tmp_path / "a.tif"
    path.write_bytes(encode_image(Image(PIXELS), "image/tiff"))
    href, away = file_href(path), References(AWAY, OURS)

    def sent(identity: str) -> EncodedCall:
        image = ImageReference(href=href, identity=identity)
        return outgoing_of(OutgoingCall({"image": image}), OURS, away)

    assert sent(identity_of(href)).has_pixels
    with pytest.raises(SceneChanged, match="1-2-3"):
        sent("1-2-3")
