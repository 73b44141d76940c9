"""The page at /docs in a real browser: a form of the schema, a call made, its answer shown."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from tests.contract.serving import served
from tests.support.browser import browser, why_no_browser
from tests.support.rasters import noise, write_scene

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


@pytest.fixture(scope="module")
def classes() -> Iterator[Server]:
    """A process whose output has classes."""
    with served("tests/data/water_classes.py:water", "--workers", "1") as web:
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
    assert "1 × 3 × 4 (band, row, column), uint16, 0 to 220" in window.text("#answers figcaption")
    drawn = window.run(
        "const canvas = document.querySelector('#answers canvas');"
        "return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    assert isinstance(drawn, list)
    expected = np.rint(pixels.ravel() * (255 / 110))
    assert np.allclose(np.array(drawn[::4]), expected, atol=1)
    assert drawn[3::4] == [255] * 12
    assert window.complaints() == []


def base64_of(path: Path) -> str:
    """The bytes of a file as text, for a script."""
    return base64.b64encode(path.read_bytes()).decode()


READ = """
const [text, done] = arguments;
const blob = new Blob([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))]);
readTiff(blob).then(
  ({dtype, shape, values, nodata, reason, step}) => done({dtype, shape, nodata, reason, step,
    values: values && [...values].map((each) => Number.isNaN(each) ? null : each)}),
  (error) => done({error: error.message}));
"""


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("uint8", {}),
        ("int16", {"tiled": True, "blockxsize": 16, "blockysize": 32}),
        ("uint16", {"compress": "deflate", "predictor": 2, "tiled": True, "blockxsize": 16,
                    "blockysize": 16}),
        ("int32", {"compress": "deflate", "predictor": 2, "interleave": "band"}),
        ("float32", {"compress": "deflate", "predictor": 3}),
        ("float64", {"compress": "deflate", "predictor": 3, "tiled": True, "blockxsize": 16,
                     "blockysize": 16, "bigtiff": "yes"}),
        ("uint16", {"endianness": "big", "compress": "deflate", "predictor": 2}),
        ("float32", {"endianness": "big"}),
    ],
)  # fmt: skip
def test_the_browser_reads_a_geotiff_as_rasterio_does(
    window: Browser, doubling: Server, tmp_path: Path, dtype: str, options: dict[str, object]
) -> None:
    """Tiles, strips, predictors, interleaving, byte orders; edge blocks are cut."""
    window.open(docs(doubling))
    pixels = (np.arange(3 * 37 * 41).reshape(3, 37, 41) * 7 % 251 - 3).astype(dtype)
    path = write_scene(tmp_path / "s.tif", pixels, nodata=5, options=options)
    read = window.later(READ, base64_of(path))
    assert isinstance(read, dict)
    assert (read["dtype"], read["shape"], read["nodata"]) == (dtype, [3, 37, 41], 5)
    assert np.array_equal(np.array(read["values"]).reshape(pixels.shape), pixels)


def test_what_the_browser_cannot_read_is_said(
    window: Browser, doubling: Server, tmp_path: Path
) -> None:
    """Another compression, another format."""
    window.open(docs(doubling))
    path = write_scene(tmp_path / "s.tif", noise(20, 20), options={"compress": "lzw"})
    read = window.later(READ, base64_of(path))
    assert isinstance(read, dict)
    assert (read["values"], read["reason"]) == (None, "compression 5")
    path.write_bytes(b"PNG?" * 9)
    assert window.later(READ, base64_of(path)) == {"error": "not a GeoTIFF"}


def test_classes_have_their_names_and_colours(
    window: Browser, classes: Server, tmp_path: Path
) -> None:
    """The input is shown before the call; the result in the colours of its classes, as GeoTIFF."""
    pixels = np.zeros((2, 4, 6), np.uint16)
    pixels[0, :, :2] = 9
    scene = write_scene(tmp_path / "scene.tif", pixels, names=("green", "nir"))
    window.open(docs(classes))
    window.type("#in-scene", str(scene))
    window.until("document.querySelector('.field figure canvas')")
    assert "2 × 4 × 6 (band, row, column), uint16" in window.text(".field figcaption")
    call(window)
    assert window.text("#answers .classes") == "0 land\n1 water"
    drawn = window.run(
        "const canvas = document.querySelector('#answers canvas');"
        "return [...canvas.getContext('2d').getImageData(1, 0, 2, 1).data]"
    )
    assert drawn == [0x1F, 0x6F, 0xB4, 255, 0xE8, 0xE2, 0xD0, 255]
    window.point("#answers canvas", 0, 0)
    assert "0 land" in window.text("#answers .under")
    window.download("#answers a", tmp_path / "got" / "water.tif")
    with rasterio.open(tmp_path / "got" / "water.tif") as dataset:
        assert dataset.crs.to_epsg() == 32616
        assert np.array_equal(dataset.read(1), (pixels[0] > pixels[1]).astype(np.uint8))


def test_the_page_has_paragraphs_and_all_endpoints(window: Browser, classes: Server) -> None:
    """The docstring's own paragraphs; the command saves a GeoTIFF; POST is listed."""
    window.open(docs(classes))
    assert window.run(
        "return [...document.querySelectorAll('header p:not(#state)')].map((p) => p.textContent)"
    ) == ["Find open water.", "Water reflects more green than near infrared."]
    command = window.text("#command")
    assert "-H 'Accept: image/tiff'" in command
    assert command.endswith("-o water.tif")
    rows = window.text("main section:last-of-type table")
    for each in ("POST /api/v1/process", "POST /api/v1/jobs", "DELETE /api/v1/jobs/ID"):
        assert each in rows


def test_an_empty_form_is_not_sent(window: Browser, classes: Server) -> None:
    """The browser itself asks for the file; control: with an href, the form is sent."""
    window.open(docs(classes))
    window.click("#run")
    assert window.text("#spent") == ""
    assert window.run("return document.querySelector('#in-scene').validity.valueMissing") is True
    window.type(".href", "file:///nowhere.tif")
    call(window)
    assert "HTTP 4" in window.text("#spent")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_fits_and_axe_finds_nothing_serious(
    window: Browser, classes: Server, tmp_path: Path, width: int, dark: bool
) -> None:
    """With a result; nothing is wider than the window."""
    pixels = noise(40, 30, bands=2, dtype="uint16")
    scene = write_scene(tmp_path / "scene.tif", pixels, names=("green", "nir"))
    window.shape(width, dark=dark)
    window.open(docs(classes))
    window.type("#in-scene", str(scene))
    call(window)
    wide = window.run("return document.documentElement.scrollWidth")
    assert isinstance(wide, int)
    assert wide <= width
    assert window.audit() == []
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


def test_the_pages_of_ogc_lead_on_and_are_accessible(
    window: Browser, doubling: Server, tmp_path: Path
) -> None:
    """From the list of processes to one of them; nothing complains, on a narrow window too."""
    root = doubling.url.removesuffix("/api/v1")
    window.open(f"{root}/processes")
    assert window.text("h1") == "Processes"
    window.click("a[href$='/processes/double-only']")
    window.until("document.querySelector('h1').textContent !== 'Processes'")
    assert "minOccurs" in window.text("main")
    for width in (1100, 400):
        window.shape(width)
        assert window.audit() == []
        overflow = "return document.documentElement.scrollWidth > innerWidth"
        assert window.run(overflow) is False
    window.picture(tmp_path / "process.png")
    assert window.complaints() == []
