"""The page at /docs in a real browser: a form of the schema, a call made, its answer shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.contract.serving import served
from tests.support.browser import browser, why_no_browser
from tests.support.rasters import write_scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.serving import Server
    from tests.support.browser import Browser

pytestmark = [
    pytest.mark.integration,
    pytest.mark.browser,
    pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser() or "there is one"),
    pytest.mark.timeout(120),
]

ANSWERED = "document.querySelector('#spent').textContent.startsWith('HTTP')"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """A browser for all tests of this module."""
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def menagerie() -> Iterator[Server]:
    """A PESTO project with an input of each kind."""
    with served("tests/data/pesto_menagerie", "--workers", "1") as web:
        yield web


@pytest.fixture(scope="module")
def doubling() -> Iterator[Server]:
    """A process from an image to an image."""
    with served("tests/contract/batched.py:double_only", "--workers", "1") as web:
        yield web


def docs(web: Server) -> str:
    """Where the page is."""
    return web.url.replace("/api/v1", "/docs")


def call(window: Browser) -> None:
    """Click on Run, and wait for the answer."""
    window.click("#run")
    window.until(ANSWERED)


def test_the_form_has_a_field_of_each_kind(window: Browser, menagerie: Server) -> None:
    """Files for images, choices for enums, numbers with their default; and nothing complains."""
    window.open(docs(menagerie))
    window.until("document.querySelector('#state').textContent === 'OK'")
    kinds = window.run(
        "return Object.fromEntries([...document.querySelectorAll('.field')].map((field) => {"
        "const control = document.getElementById('in-' + field.dataset.name);"
        "return [field.dataset.name, control.type + (control.multiple ? ' many' : '')]; }))"
    )
    assert kinds == {
        "show": "text", "picture": "file", "pictures": "file many", "facts": "textarea",
        "notes": "textarea", "amount": "number", "count": "number", "word": "text",
        "flag": "select-one", "row": "textarea", "tree": "textarea", "mode": "select-one",
        "scale": "number", "seconds": "number",
    }  # fmt: skip
    assert window.run("return document.getElementById('in-scale').value") == "5"
    assert window.complaints() == []


def test_values_are_shown_as_they_are_answered(window: Browser, menagerie: Server) -> None:
    """Text, a number and JSON, by their names."""
    window.open(docs(menagerie))
    for field, text in (("show", "x"), ("amount", "2.5"), ("word", "abc"), ("row", "[1, 2]")):
        window.type(f"#in-{field}", text)
    call(window)
    shown = window.text("#answers").split("\n")
    assert shown == ["amount", "2.5", "word", '"abc"', "row", "[1,2]"]


def test_json_is_shown_as_pestos_clients_get_it(window: Browser, menagerie: Server) -> None:
    """One object, by choice."""
    window.open(docs(menagerie))
    window.type("#in-show", "digit")
    window.type("#answer", "JSON")
    call(window)
    assert window.text("#answers") == '{\n"band1": 7\n}'.replace('"b', ' "b')


def test_a_fault_is_shown_at_its_field(window: Browser, menagerie: Server) -> None:
    """What is wrong with a field stands under it; the others are without."""
    window.open(docs(menagerie))
    window.type("#in-show", "x")
    window.type("#in-amount", "-1")
    call(window)
    assert "must be at least" in window.text(".field[data-name=amount] .fault")
    shown = "return [...document.querySelectorAll('.fault:not([hidden])')].length"
    assert window.run(shown) == 1
    assert "422" in window.text("#spent")


def test_an_image_is_called_with_and_shown(
    window: Browser, doubling: Server, tmp_path: Path
) -> None:
    """The picture has each pixel's grey, stretched between the least and the most value."""
    pixels = np.arange(12, dtype=np.uint16).reshape(1, 3, 4) * 10
    window.open(docs(doubling))
    window.type("#in-scene", str(write_scene(tmp_path / "scene.tif", pixels)))
    call(window)
    assert "1 × 3 × 4 (band, row, column), uint16, 0 to 220" in window.text("figcaption")
    drawn = window.run(
        "const canvas = document.querySelector('canvas');"
        "return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    assert isinstance(drawn, list)
    expected = np.rint(pixels.ravel() * (255 / 110))
    assert np.allclose(np.array(drawn[::4]), expected, atol=1)
    assert drawn[3::4] == [255] * 12
    assert window.complaints() == []


def test_a_long_call_can_be_stopped(window: Browser, menagerie: Server) -> None:
    """Stop ends it, at the service too: the next call need not wait for it."""
    window.open(docs(menagerie))
    window.type("#in-show", "x")
    window.type("#in-seconds", "60")
    window.click("#run")
    window.until("!document.querySelector('#stop').hidden")
    window.click("#stop")
    window.until("document.querySelector('#spent').textContent.startsWith('stopped')")
    answer = menagerie("POST", "/process", json={"show": "x", "amount": 1}, timeout=20)
    assert answer.json() == {"amount": 1}


def test_what_a_page_may_not_do_would_be_complained_of(window: Browser, menagerie: Server) -> None:
    """Control: an image from elsewhere, which the page's policy forbids."""
    window.open(docs(menagerie))
    window.run("document.body.append(Object.assign(new Image(), {src: 'https://a.example/b.png'}))")
    window.until("true")
    assert "Content Security Policy" in "".join(window.complaints())
