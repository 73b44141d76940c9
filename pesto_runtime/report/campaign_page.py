"""Render `campaign.html`: all scenes of a campaign in one table, on one map, and what failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pesto_runtime.report import markup
from pesto_runtime.report.location import degrees
from pesto_runtime.report.markup import fact_list, section, table, text
from pesto_runtime.report.page import html_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import JsonValue

_MOST_LISTED = 100
_PADDING = 0.05  # of the extent of all scenes
_LEAST_EXTENT = 0.01  # degrees


def render_campaign(document: Mapping[str, JsonValue]) -> str:
    """Return the report of a campaign as one HTML document.

    Args:
        document: The content of `campaign.json`.
    """
    scenes = dict(_entries(document))
    body = "".join(
        (
            _header(document, scenes),
            _failed(scenes),
            section("Map", _map(scenes), anchor="places"),
            section("Scenes", _table(scenes), anchor="scenes"),
        )
    )
    return html_page(f"{document['pipeline']}: {document['status']}", body, "")


def _entries(document: Mapping[str, JsonValue]) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    found = document["scenes"]
    for name, scene in found.items() if isinstance(found, dict) else ():
        if isinstance(scene, dict):
            yield name, scene


def _header(
    document: Mapping[str, JsonValue], scenes: Mapping[str, Mapping[str, JsonValue]]
) -> str:
    status = str(document["status"])
    kind = "complete" if status == "COMPLETE" else "partial"
    counts = document["counts"]
    listed = counts if isinstance(counts, dict) else {}
    pairs = [
        (name.capitalize(), markup.count(_number(count)), "scenes")
        for name, count in sorted(listed.items())
    ]
    tiles = {
        key: sum(_tiles(scene, key) for scene in scenes.values())
        for key in ("computed", "reused", "holes")
    }
    done = f"{markup.count(tiles['reused'])} reused"
    pairs.append(("Tiles computed", markup.count(tiles["computed"]), done))
    holes = markup.count(tiles["holes"])
    pairs.append(("Holes", f'<span class="bad">{holes}</span>' if tiles["holes"] else holes, ""))
    return (
        f'<header><p class="status {kind}">{text(status)}</p>'
        f"<h1>{text(document['pipeline'])}</h1>{fact_list(pairs)}</header>"
    )


def _failed(scenes: Mapping[str, Mapping[str, JsonValue]]) -> str:
    failed = {name: scene for name, scene in scenes.items() if scene["status"] == "FAILED"}
    if not failed:
        return ""
    points = [
        f"<li><b>{text(name)}</b>: {text(scene.get('error', ''))}</li>"
        for name, scene in list(failed.items())[:_MOST_LISTED]
    ]
    more = len(failed) - len(points)
    rest = f"<p>And {markup.plural(more, 'more scene')}.</p>" if more else ""
    hint = "<p>The same command runs these scenes again.</p>"
    title = f"{markup.plural(len(failed), 'scene')} failed"
    body = section(title, f"<ul>{''.join(points)}</ul>{rest}{hint}", anchor="failed")
    return f'<div class="attention">{body}</div>'


def _table(scenes: Mapping[str, Mapping[str, JsonValue]]) -> str:
    values = sorted({name for scene in scenes.values() for name, _ in _values(scene)})
    head = ["Scene", "Status", *values, "Tiles", "Holes"]
    rows = [
        (
            f'<a href="{text(name)}/report.html">{text(name)}</a>'
            if "tiles" in scene
            else text(name),
            text(scene["status"]),
            *(markup.text(dict(_values(scene)).get(value, "–")) for value in values),
            markup.count(_tiles(scene, "computed") + _tiles(scene, "reused")),
            markup.count(_tiles(scene, "holes")),
        )
        for name, scene in scenes.items()
    ]
    return table("All scenes", head, rows, numeric=len(values) + 2)


def _values(scene: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    """Yield the outputs of a scene that are numbers or texts."""
    outputs = scene.get("outputs")
    for name, value in outputs.items() if isinstance(outputs, dict) else ():
        if isinstance(value, (int, float, str)):
            yield name, markup.value(value)


def _map(scenes: Mapping[str, Mapping[str, JsonValue]]) -> str:
    """Draw the bounds of all scenes in degrees, failed ones on top."""
    boxes = [
        (name, str(scene["status"]), box)
        for name, scene in sorted(scenes.items(), key=lambda item: item[1]["status"] == "FAILED")
        if (box := _box(scene)) is not None
    ]
    if not boxes:
        return ""
    west, south = (min(box[axis] for *_, box in boxes) for axis in (0, 1))
    east, north = (max(box[axis] for *_, box in boxes) for axis in (2, 3))
    pad = max(east - west, north - south, _LEAST_EXTENT) * _PADDING
    view = (west - pad, -north - pad, east - west + 2 * pad, north - south + 2 * pad)
    rects = "".join(_rectangle(name, status, box) for name, status, box in boxes)
    label = (
        f"{markup.plural(len(boxes), 'scene')}: {degrees(west, 'EW')} to {degrees(east, 'EW')}, "
        f"{degrees(south, 'NS')} to {degrees(north, 'NS')}"
    )
    return (
        f'<figure><svg class="footprints" role="img" aria-label="{text(label)}" '
        f'viewBox="{" ".join(f"{each:.6g}" for each in view)}">{rects}</svg>'
        f"<figcaption><p>{text(label)}</p></figcaption></figure>"
    )


def _rectangle(name: str, status: str, box: Sequence[float]) -> str:
    west, south, east, north = box
    return (
        f'<rect class="{status.lower()}" x="{west:.6g}" y="{-north:.6g}" '
        f'width="{max(east - west, 1e-6):.6g}" height="{max(north - south, 1e-6):.6g}">'
        f"<title>{text(name)}: {text(status)}</title></rect>"
    )


def _box(scene: Mapping[str, JsonValue]) -> tuple[float, ...] | None:
    found = scene.get("bbox")
    if not isinstance(found, list) or len(found) != 4:
        return None
    west, south, east, north = (float(each) for each in found if isinstance(each, (int, float)))
    return (west, south, east + 360 if east < west else east, north)


def _tiles(scene: Mapping[str, JsonValue], key: str) -> int:
    tiles = scene.get("tiles")
    return _number(tiles.get(key)) if isinstance(tiles, Mapping) else 0


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
