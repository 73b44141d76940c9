"""The report: its content, that it is one file, and that nothing in it runs."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.errors import StoreFailed
from pesto_runtime.report import PortText, ReportData, ReportImage, tables, write_report
from pesto_runtime.report.page import render
from tests.unit.report.sample_run import PIPELINE, RESULT, tiles_over, write_raster

if TYPE_CHECKING:
    from pydantic import JsonValue

VOID = {"meta", "img", "br", "link", "input"}
SIZE = (60, 50)


class Page(HTMLParser):
    """The elements and texts of a page; fails where an element is not closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that holds nothing."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every element of a tag."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        """All text, in one line."""
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def run(tmp_path: Path) -> ReportData:
    """A complete run over a small scene."""
    rng = np.random.default_rng(3)
    scene = rng.integers(0, 9000, (3, SIZE[1], SIZE[0])).astype(np.uint16)
    path = write_raster(tmp_path / "scene.tif", scene, names=("red", "green", "blue"))
    mask = (scene[0] > 4000).astype(np.uint8)
    write_raster(tmp_path / "mask.tif", mask, nodata=255)
    tiles = tuple(tiles_over(SIZE, 32))
    images = (
        ReportImage("scene", "Scene", path.as_uri()),
        ReportImage("mask", "Output", (tmp_path / "mask.tif").as_uri()),
    )
    return ReportData(RESULT, PIPELINE, tiles, SIZE, images, tmp_path)


def partial(run: ReportData) -> ReportData:
    """The same run with a hole."""
    hole = {"window": [32, 32, 28, 18], "stage": "clean", "error": "sieve: ValueError: odd"}
    document = {"features": [{"properties": hole}]}
    (run.folder / "holes.geojson").write_text(json.dumps(document))
    mask: JsonValue = {"path": "mask.tif", "sha256": "ab" * 32, "blocks_with_holes": 1}
    result: dict[str, JsonValue] = {
        **RESULT,
        "status": "PARTIAL",
        "tiles": {"computed": 3, "reused": 0, "holes": 1},
        "outputs": {"mask": mask},
        "skipped": ["cover"],
        "warnings": ["/inputs/scene: no CRS"],
    }
    holed = replace_last(run, "hole")
    return replace(holed, result=result)


def replace_last(run: ReportData, state: str) -> ReportData:
    """The same run with its last tile in another state."""
    *others, last = run.tiles
    return replace(run, tiles=(*others, replace(last, state=state)))  # type: ignore[type-var]


def test_a_report_is_one_file_that_asks_for_nothing(run: ReportData) -> None:
    """No script, style sheet, font or image from elsewhere; links lead to files beside it."""
    page = Page(render(run))
    assert {tag for tag, _ in page.elements} & {"iframe", "object"} == set()
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert all("src" not in found for found in page.all("script"))
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    links = {str(link["href"]) for link in page.all("a")}
    assert {"./mask.tif", "./cover.json"} <= links
    assert all(href.startswith(("./", "#")) for href in links)
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert "url(http" not in render(run)


def test_the_key_facts_come_first(run: ReportData) -> None:
    """Status, name, seconds, tiles, scene, workers and engine are before the first section."""
    words = Page(render(run)).words
    front = words[: words.index("Results")]
    for fact in ("COMPLETE", "cloud-cover", "12.3 s", "0 reused, no holes", "60 × 50", "threads"):
        assert fact in front
    assert "0.052989" in words[len(front) :]


def test_every_picture_has_words(run: ReportData) -> None:
    """Images and drawings carry what they show; tables their captions; ids are unique."""
    page = Page(render(run))
    assert [image["alt"] for image in page.all("img")] == [
        "Scene scene: bands red, green, blue",
        page.all("img")[1]["alt"],
    ]
    assert all(
        drawing.get("aria-label") or drawing.get("aria-hidden") for drawing in page.all("svg")
    )
    assert len(page.all("caption")) == len(page.all("table")) > 0
    ids = [str(found["id"]) for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    targets = {str(link["href"])[1:] for link in page.all("a") if str(link["href"])[0] == "#"}
    assert targets <= set(ids)


def hostile(value: JsonValue, bait: str) -> JsonValue:
    """The same document with bait in every text that may hold any."""
    if isinstance(value, dict):
        return {key: hostile(each, bait) for key, each in value.items()}
    if isinstance(value, list):
        return [hostile(each, bait) for each in value]
    return value + bait if isinstance(value, str) else value


@pytest.mark.parametrize("bait", ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>"])
def test_no_text_of_a_run_becomes_markup(run: ReportData, bait: str) -> None:
    """Bait in names, values, hrefs, errors and warnings is shown, and makes no element."""
    result = hostile(dict(partial(run).result), bait)
    assert isinstance(result, dict)
    result["outputs"] = {bait: {"path": bait, "sha256": bait, "value": {bait: [bait] * 9}}}
    result["inputs"] = {bait: {"href": bait}, "also": bait}
    result["warnings"], result["skipped"] = [bait], [bait]
    names = ("mask", "clean", "cover")
    result["stages"] = {name: {"process": bait, "where": [bait]} for name in names}
    pipeline = json.loads(json.dumps(PIPELINE))
    pipeline["description"] = bait
    pipeline["stages"][1] |= {"process": bait, "inputs": {bait: bait, "mask": "$mask.cloud"}}
    hole = {"properties": {"window": [bait], "stage": bait, "error": bait}}
    (run.folder / "holes.geojson").write_text(json.dumps({"features": [hole]}))
    images = (
        replace(run.images[0], name=bait), ReportImage("gone", "Output", "file:///" + bait),
    )  # fmt: skip
    texts = {bait: PortText(bait, bait)}
    source = render(replace(run, result=result, pipeline=pipeline, images=images, texts=texts))
    page = Page(source)
    assert bait in page.words
    assert bait in str(page.all("img")[0]["alt"])
    assert [found["type"] for found in page.all("script")] == ["application/json", "module"]
    assert all(str(image["src"]).startswith("data:") for image in page.all("img"))
    assert not any(name.startswith("on") for _, found in page.elements for name in found)


def test_a_link_never_leaves_the_folder(run: ReportData) -> None:
    """A path that looks like a scheme stays a path."""
    outputs: JsonValue = {"x": {"path": "javascript:alert(1)", "sha256": "", "value": 1}}
    page = Page(render(replace(run, result={**RESULT, "outputs": outputs})))
    assert {"./javascript%3Aalert%281%29"} == {
        str(link["href"]) for link in page.all("a") if str(link["href"])[0] != "#"
    }


def test_a_partial_run_says_what_is_missing(run: ReportData) -> None:
    """Holes, what was skipped and warnings are listed; control: a complete run lists nothing."""
    source = render(partial(run))
    words = Page(source).words
    for fact in ("PARTIAL", "1 hole", "sieve: ValueError: odd", "was skipped", "no CRS"):
        assert fact in words
    assert 'class="hole"' in source
    assert "Needs attention" not in Page(render(run)).words


def test_reused_tiles_are_hatched(run: ReportData) -> None:
    """A reused tile has its own look and its place in the legend; control: without, neither."""
    source = render(replace_last(run, "reused"))
    assert '<rect class="reused"' in source
    assert '<rect class="reused"' not in render(run)


def test_the_tooltip_of_a_tile_has_its_window_and_time(run: ReportData) -> None:
    """Column, row, size and duration."""
    assert "<title>column 32, row 0, 28 × 32 px: 2 ms</title>" in render(run)


def test_a_missing_output_does_not_spoil_the_report(run: ReportData) -> None:
    """The error stands in place of the picture."""
    (run.folder / "mask.tif").unlink()
    page = Page(render(run))
    assert "No preview." in page.words
    assert len(page.all("img")) == 1


def test_a_run_without_scenes_has_a_report(tmp_path: Path) -> None:
    """A pipeline of numbers alone: no images, no tiles, still its values and its drawing."""
    pipeline: dict[str, JsonValue] = {
        "name": "verdict",
        "inputs": {"fraction": "number"},
        "stages": [{"id": "v", "process": "verdict", "inputs": {"f": "$inputs.fraction"}}],
        "outputs": {"verdict": "$v.verdict"},
    }
    result: dict[str, JsonValue] = {
        "status": "COMPLETE",
        "pipeline": "verdict",
        "outputs": {"verdict": {"path": "verdict.json", "sha256": "00", "value": "usable"}},
        "phases": [{"kind": "call", "stages": ["v"]}],
    }
    page = Page(render(ReportData(result, pipeline, (), (0, 0), (), tmp_path)))
    assert "usable" in page.words
    assert "Images" not in page.words
    assert "Tiles" not in page.words
    assert len(page.all("svg")) == 1


@pytest.mark.parametrize("side", [512, 160])
def test_a_large_run_has_a_small_report(run: ReportData, side: int) -> None:
    """10 000 tiles, and 100 000, stay under 2 MB and a few seconds, and no hole gets lost."""
    size = (51_200, 51_200)
    many = replace_last(replace(run, tiles=tuple(tiles_over(size, side)), size=size), "hole")
    begun = time.perf_counter()
    source = render(many)
    assert time.perf_counter() - begun < 60
    assert len(source.encode()) < 2_000_000
    assert '<path class="hole"' in source


def test_phases_have_a_map_each(run: ReportData) -> None:
    """Tiles of a second phase cover the scene again, and are drawn apart."""
    twice = replace(run, tiles=(*tiles_over(SIZE, 32), *tiles_over(SIZE, 20)))
    assert render(twice).count('<figure class="map">') == 2
    assert render(run).count('<figure class="map">') == 1


def test_a_report_is_written_whole_or_not_at_all(run: ReportData, tmp_path: Path) -> None:
    """What cannot be written is an error of ours, and leaves no half of a file."""
    write_report(tmp_path / "report.html", run)
    assert (tmp_path / "report.html").read_text().endswith("</html>\n")
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(StoreFailed):
        write_report(tmp_path / "none" / "report.html", run)


def test_a_vector_is_a_count_and_a_file_not_a_picture(run: ReportData) -> None:
    """No image is looked for in it; a run without vectors (control) has no such column."""
    ships: JsonValue = {"path": "ships.geojson", "sha256": "ab" * 32, "features": 1234}
    result = {**RESULT, "outputs": {"ships": ships}}
    shown = Page(render(replace(run, result=result)))
    assert "ships 1234 features" in shown.words
    assert "Features" in shown.words
    assert "No preview" not in shown.words
    assert "Features" not in Page(render(run)).words


def test_small_files_are_carried_by_the_page_on_request(
    run: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the bytes of the file, under its name; a larger one stays a link. Control: by default."""
    mask = run.folder / "mask.tif"
    (run.folder / "cover.json").write_text("0.05")
    carried = {str(link.get("download")): link for link in Page(render(embedding(run))).all("a")}
    head, _, data = str(carried["mask.tif"]["href"]).partition(",")
    assert head == "data:image/tiff;base64"
    assert base64.b64decode(data) == mask.read_bytes()
    assert str(carried["cover.json"]["href"]).startswith("data:application/json;base64,")
    assert "download" not in str(Page(render(run)).all("a"))
    monkeypatch.setattr(tables, "MOST_FILE_BYTES", mask.stat().st_size - 1)
    links = Page(render(embedding(run)))
    assert "./mask.tif" in {str(link["href"]) for link in links.all("a")}
    assert "too large for it" in links.words
    monkeypatch.setattr(tables, "MOST_FILE_BYTES", 1 << 20)
    monkeypatch.setattr(tables, "MOST_FILES_BYTES", mask.stat().st_size + 3)
    together = {str(link["href"])[:5] for link in Page(render(embedding(run))).all("a")}
    assert {"data:", "./cov"} <= together


def embedding(run: ReportData) -> ReportData:
    """The same run, with a page that carries its files."""
    return replace(run, embeds=True)


def test_a_page_never_carries_a_file_of_another_folder(run: ReportData) -> None:
    """A result that anybody may have written cannot have a file read."""
    assert isinstance(run.folder, Path)
    secret = run.folder.parent / "secret.json"
    secret.write_text('"secret"')
    (run.folder / "linked.json").symlink_to(secret)
    for name in ("../secret.json", str(secret), "linked.json"):
        outputs: JsonValue = {"x": {"path": name, "sha256": "", "value": 1}}
        page = render(embedding(replace(run, result={**RESULT, "outputs": outputs})))
        assert base64.b64encode(secret.read_bytes()).decode() not in page


def test_values_have_the_words_and_the_unit_of_their_port(run: ReportData) -> None:
    """The first paragraph, in one line. Control: without, the value stands alone."""
    words = PortText("How much of the scene\nis cloud.\n\nMore of it.", "share")
    page = Page(render(replace(run, texts={"cover": words}))).words
    assert "0.052989 share How much of the scene is cloud." in page
    assert "More of it" not in page
    assert "How much" not in Page(render(run)).words


def test_cpu_seconds_of_a_service_are_not_those_of_its_client(run: ReportData) -> None:
    """They are not shown; control: those of a function are."""
    stages = json.loads(json.dumps(RESULT["stages"]))
    stages["clean"]["where"] = ["sieve.py:sieve"]
    page = render(replace(run, result={**RESULT, "stages": stages}))
    assert page.count('<td class="n">2.00</td>') == 1
    assert page.count('<td class="n">–</td>') >= 2


def test_a_small_screen_has_the_stages_as_a_list(run: ReportData) -> None:
    """Each stage with what it reads and makes."""
    words = Page(render(run)).words
    assert "clean map · sieve 1.0.0 mask ← mask.cloud smallest = 9 → mask" in words
