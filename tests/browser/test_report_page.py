"""The report in a real browser: its viewer, small and dark windows, keys alone, an audit by axe."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import RunRequest, SilentListener
from pesto_runtime.run.local import engine
from tests.support.browser import browser, why_no_browser
from tests.support.rasters import pixels_of, write_scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.browser import Browser

pytestmark = [
    pytest.mark.integration,
    pytest.mark.browser,
    pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser() or "there is one"),
    pytest.mark.timeout(180),
]

WIDTH, HEIGHT, HOLE = 1000, 600, (512, 300)
PROCESS = '''
from typing import Annotated

import numpy as np

from pesto_runtime import Named, Raster, process

CLASSES = [{"value": 0, "name": "land", "color_hint": "e8e2d0"},
           {"value": 1, "name": "water", "color_hint": "1f6fb4", "description": "Open water"}]


@process(version="1", margin=0)
def water(
    scene: Annotated[np.ndarray, Raster(bands=["green", "nir"], dtype="uint16")],
) -> Annotated[np.ndarray, Raster(name="water", bands=["water"], dtype="uint8", nodata=255,
                                  classes=CLASSES)]:
    """Find water."""
    if (scene == 4321).any():
        raise ValueError("too bright here")
    return (scene[:1] > scene[1:]).astype(np.uint8)
'''
PIPELINE: dict[str, JsonValue] = {
    "name": "water-map",
    "description": "Open water of a scene.",
    "inputs": {"scene": "image"},
    "services": {"water": "water.py:water"},
    "stages": [{"id": "mask", "process": "water", "inputs": {"scene": "$inputs.scene"}}],
    "outputs": {"water": "$mask.water"},
}


@dataclass(frozen=True)
class Reported:
    """A run with a hole, and the pixels of its scene and its product (band, row, col)."""

    url: str
    scene: np.ndarray
    water: np.ndarray


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """A run of one process with classes over a scene of four bands, with one failing tile."""
    root: Path = tmp_path_factory.mktemp("report")
    rows, cols = np.mgrid[:HEIGHT, :WIDTH]
    bands = [cols % 400 + 1, rows + 200, cols + 100, np.where(cols < 500, 300, 900)]
    pixels = np.stack(bands).astype(np.uint16)
    pixels[3, HOLE[1] + 5, HOLE[0] + 5] = 4321
    scene = write_scene(
        root / "s.tif", pixels, names=("blue", "green", "red", "nir"),
        transform=(10, 0, 600_000, 0, -10, 5_000_040), crs="EPSG:32631",
    )  # fmt: skip
    (root / "water.py").write_text(PROCESS)
    request = RunRequest(
        Pipeline.parse(PIPELINE), root, {"scene": str(scene)}, root / "out", tile=100, workers=1
    )
    engine.run(request, watcher=SilentListener())
    page = (root / "out" / "report.html").as_uri()
    return Reported(page, pixels, pixels_of(root / "out" / "water.tif"))


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    """A browser for all tests of this module."""
    with browser() as found:
        yield found


def opened(window: Browser, reported: Reported, width: int = 1400, *, dark: bool = False) -> None:
    """Open the report, and wait for its viewer."""
    window.shape(width, dark=dark)
    window.open(reported.url)
    window.until("document.querySelector('#viewer').dataset.ready === 'yes'")


def reading(window: Browser) -> str:
    """What the viewer says of the pixel under the pointer, or in the middle."""
    window.run("return new Promise((done) => requestAnimationFrame(() => setTimeout(done, 30)))")
    return window.text("#reading")


def place_of(text: str) -> tuple[int, int]:
    """Column and row of a reading."""
    found = re.search(r"column (\d+), row (\d+)", text)
    assert found, text
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_fits_and_axe_finds_nothing_serious(
    window: Browser, reported: Reported, width: int, dark: bool
) -> None:
    """Nothing is wider than the window, nothing is refused, no serious or critical finding."""
    opened(window, reported, width, dark=dark)
    wide = window.run("return document.documentElement.scrollWidth")
    assert isinstance(wide, int)
    assert wide <= width
    assert window.complaints() == []
    assert window.audit() == []


def test_the_audit_finds_what_is_wrong(window: Browser, reported: Reported) -> None:
    """Control: a button without a name, and grey text on grey."""
    opened(window, reported)
    window.run(
        "document.body.insertAdjacentHTML('beforeend', '<button></button>"
        '<p style="color:#999;background:#aaa">hard to read</p>\')'
    )
    assert {each.split(":")[0] for each in window.audit()} == {"button-name", "color-contrast"}


def test_a_foreign_script_is_refused(window: Browser, reported: Reported) -> None:
    """Control: the policy lets the viewer run, and nothing else."""
    opened(window, reported)
    window.run(
        "const other = document.createElement('script');"
        "other.textContent = 'document.title = \"taken\"'; document.body.append(other)"
    )
    assert "Content Security Policy" in "".join(window.complaints())
    assert window.run("return document.title") == "water-map: PARTIAL"


def test_the_reading_has_coordinates_values_and_classes(
    window: Browser, reported: Reported
) -> None:
    """Of the pixel under the pointer, as rasterio reads it; the mask by names of classes."""
    opened(window, reported)
    window.point("#map", -120, 60)
    text = reading(window)
    col, row = place_of(text)
    assert "EPSG:32631" in text
    x, y = map(float, re.findall(r"[xy] (\d+)", text)[:2])
    assert (x - 600_000) // 10 == pytest.approx(col, abs=1)
    assert (5_000_040 - y) // 10 == pytest.approx(row, abs=1)
    name = {0: "0 land", 1: "1 water"}[int(reported.water[0, row, col])]
    assert f"water: {name}" in text
    for band, place in (("red", 2), ("green", 1), ("blue", 0)):
        shown = re.search(rf"{band} [≈≤≥] ([\d.]+)", text)
        assert shown, text
        values = reported.scene[place]
        assert float(shown[1]) == pytest.approx(values[row, col], abs=0.05 * float(np.ptp(values)))


def test_both_classes_are_read(window: Browser, reported: Reported) -> None:
    """Control of the names: water at the left, land at the right; nodata in the hole."""
    opened(window, reported)
    seen = set()
    for x in (-300, 120):
        window.point("#map", x, 100)
        text = reading(window)
        col, row = place_of(text)
        seen.add((int(reported.water[0, row, col]), text.rpartition("water: ")[2][:7].strip()))
    assert seen == {(1, "1 water"), (0, "0 land")}


def test_a_hole_says_its_reason_and_is_shown_by_its_row(
    window: Browser, reported: Reported
) -> None:
    """The link in the table centres the hole; the reading has the reason of the author."""
    opened(window, reported)
    window.click("a[data-window]")
    text = reading(window)
    col, row = place_of(text)
    assert HOLE[0] <= col < HOLE[0] + 100
    assert HOLE[1] <= row < HOLE[1] + 100
    assert "hole: mask" in text
    assert "too bright here" in text
    assert "water: no data" in text


def test_the_viewer_is_worked_by_keys_alone(window: Browser, reported: Reported) -> None:
    """Tab reaches each control with a visible focus; keys zoom and move."""
    opened(window, reported)
    window.run("document.querySelector('#map').focus()")
    assert place_of(reading(window)) == (WIDTH // 2, HEIGHT // 2)
    window.press("1", "ArrowRight", "ArrowDown", "ArrowDown")
    assert place_of(reading(window)) == (WIDTH // 2 + 40, HEIGHT // 2 + 80)
    window.press("0")
    assert place_of(reading(window)) == (WIDTH // 2, HEIGHT // 2)
    window.run("document.querySelector('#below').focus()")
    reached = []
    for _ in range(11):
        reached.append(window.run("return document.activeElement.id"))
        outline = window.run("return getComputedStyle(document.activeElement).outlineStyle")
        window.press("Tab")
        assert outline != "none" or len(reached) == 1, reached
    assert reached == [
        "below", "above", "swipe", "opacity", "show-tiles", "show-holes", "zoom-in", "zoom-out",
        "zoom-fit", "zoom-one", "map",
    ]  # fmt: skip


def colours(window: Browser) -> list[int]:
    """The colour of the canvas at the left and at the right of its middle."""
    found = window.run(
        "const map = document.querySelector('#map'), pen = map.getContext('2d');"
        "return [0.45, 0.55].flatMap((at) => [...pen.getImageData("
        "at * map.width, map.height * 0.4, 1, 1).data.slice(0, 3)])"
    )
    assert isinstance(found, list)
    return [int(str(each)) for each in found]


def test_swipe_and_opacity_change_the_picture(window: Browser, reported: Reported) -> None:
    """The scene at the left of the line, the mask at its right in the colours of its classes."""
    opened(window, reported)

    def put(control: str, value: str) -> list[int]:
        window.run(
            "const [id, value] = arguments, control = document.getElementById(id);"
            "control.value = value; control.dispatchEvent(new Event('input'))", control, value,
        )  # fmt: skip
        reading(window)
        return colours(window)

    land, water = [0xE8, 0xE2, 0xD0], [0x1F, 0x6F, 0xB4]
    half = put("swipe", "50")
    assert half[3:] in (land, water)
    assert half[:3] not in (land, water)
    assert put("swipe", "0")[:3] in (land, water)
    nothing = put("above", "")
    assert nothing[:3] == half[:3]
    assert nothing[3:] not in (land, water)
    put("above", "1")
    assert put("opacity", "0") == nothing


def test_tiles_are_drawn_over_the_picture(window: Browser, reported: Reported) -> None:
    """By choice, with the duration of the tile under the pointer; control: hidden at first."""
    opened(window, reported)
    window.point("#map", 40, 40)
    assert "tile column" not in reading(window)
    window.run(
        "const control = document.querySelector('#show-tiles'); control.value = '0';"
        "control.dispatchEvent(new Event('input'))"
    )
    window.point("#map", 44, 44)
    assert re.search(r"tile column \d+, row \d+, 100 × 100 px: ", reading(window))


def test_the_picture_is_dragged(window: Browser, reported: Reported) -> None:
    """A finger or the mouse moves it; the pixel that was pressed stays under the pointer."""
    opened(window, reported)
    window.run("document.querySelector('#zoom-one').click()")
    window.point("#map", 0, 0)
    before = place_of(reading(window))
    window.run(
        "const map = document.querySelector('#map'), box = map.getBoundingClientRect();"
        "const send = (type, x, y) => map.dispatchEvent(new PointerEvent(type, {pointerId: 1, "
        "pointerType: 'touch', clientX: box.left + x, clientY: box.top + y, bubbles: true}));"
        "map.setPointerCapture = () => {};"
        "send('pointerdown', 300, 200); send('pointermove', 260, 170); send('pointerup', 260, 170);"
    )
    window.point("#map", 0, 0)
    after = place_of(reading(window))
    assert np.allclose(np.subtract(after, before), (40, 30), atol=2)


def test_the_facts_of_the_viewer_are_json_of_the_page(window: Browser, reported: Reported) -> None:
    """The ground size of a pixel of UTM is 10 m within the scale of its zone."""
    opened(window, reported)
    facts = window.run("return document.querySelector('#viewer-data').textContent")
    document = json.loads(str(facts))
    assert document["metres"] == pytest.approx(10, rel=1e-3)
    assert [layer["name"] for layer in document["layers"]] == ["scene", "water"]
