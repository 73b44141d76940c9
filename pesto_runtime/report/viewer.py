"""Write the viewer of the page: two images over each other, with tiles and holes drawn over them.

Its program is `viewer.js`, which shows the pictures of the page; without scripts they stay as
figures. This file writes its controls, and its facts as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING

from pesto_runtime.raster.preview import ramp_colours
from pesto_runtime.report import tilemap
from pesto_runtime.report.location import coordinate_digits
from pesto_runtime.report.markup import text
from pesto_runtime.report.pictures import class_label, rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from pesto_runtime.raster.place import Place
    from pesto_runtime.raster.preview import Preview
    from pesto_runtime.report.facts import HoleFacts
    from pesto_runtime.report.pictures import Picture
    from pesto_runtime.report.tilemap import Tile

SCRIPT = files("pesto_runtime.report").joinpath("viewer.js").read_text(encoding="utf-8")
"""The only script of the page."""

POLICY = (
    f"script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
)
"""The part of the content security policy that allows this script and no other."""

_KEYS = (
    "Drag to move, pinch or + and − to zoom, 0 for all, 1 for 1:1. With the keyboard, arrows move, "
    "and the readings are of the cross in the middle. After a click the wheel zooms."
)


def viewer(
    pictures: Sequence[Picture],
    size: tuple[int, int],
    *,
    place: Place | None,
    tiles: Sequence[tuple[str, Sequence[Tile]]],
    holes: Sequence[HoleFacts],
) -> str:
    """Return the viewer; empty without a picture.

    Args:
        pictures: Pictures of the scenes and the outputs.
        size: Width and height of the scenes, pixels.
        place: The place of the scenes.
        tiles: Title and tiles of each phase.
        holes: The tiles that could not be computed.
    """
    drawn = [(each, each.preview) for each in pictures if each.preview is not None]
    if not drawn or not all(size):
        return ""
    shown = [each for each, _ in drawn]
    layers = [_layer(each, preview, size) for each, preview in drawn]
    # A mask is compared most often.
    above = min(
        (n for n, each in enumerate(shown) if each.image.role == "Output"),
        key=lambda n: drawn[n][1].kind != "classes",
        default=None,
    )
    document: dict[str, JsonValue] = {
        "size": list(size),
        "layers": list(layers),
        "tiles": [[_tile(each, scale) for each in some] for some, scale in map(_drawn, tiles)],
        "holes": [[*each.window, f"{each.stage}: {each.error}"] for each in holes if each.window],
        "transform": _transform(shown),
        "digits": coordinate_digits(min(place.resolution)) if place else 0,
        "code": (place.code or place.name) if place else "",
        "metres": place.ground[0] if place and place.ground else None,
        "north": place.north if place else 0,
    }
    return _controls(shown, above, [title for title, _ in tiles], has_holes=bool(holes)) + _data(
        document
    )


def _drawn(titled: tuple[str, Sequence[Tile]]) -> tuple[Sequence[Tile], tilemap.ColourScale | None]:
    _, tiles = titled
    extent = (
        max((tile.window.col_stop for tile in tiles), default=1),
        max((tile.window.row_stop for tile in tiles), default=1),
    )
    squares, _ = tilemap.as_squares(tiles, extent)
    return squares, tilemap.ColourScale.of([each.seconds for each in tiles if each.state == "done"])


def _tile(tile: Tile, scale: tilemap.ColourScale | None) -> JsonValue:
    return [*tile.window, tilemap.colour_class(tile, scale), tilemap.tooltip(tile)]


def _layer(picture: Picture, preview: Preview, size: tuple[int, int]) -> dict[str, JsonValue]:
    entry: dict[str, JsonValue] = {
        "id": picture.anchor,
        "name": picture.image.name,
        "kind": preview.kind,
        "bands": list(preview.bands),
        "limits": [list(ends) for ends in preview.limits],
        "step": preview.step,
        # Scene pixels per pixel of the picture: an output may have another resolution.
        "cell": [preview.step * mine / its for mine, its in zip(size, preview.size, strict=True)],
    }
    if preview.kind == "classes":
        entry["colours"] = [rgb(each.colour) for each in preview.classes]
        entry["labels"] = [class_label(each) for each in preview.classes]
    elif preview.kind == "ramp":
        entry["colours"] = [rgb(colour) for colour in ramp_colours(preview.ramp)]
    return entry


def _transform(shown: Sequence[Picture]) -> JsonValue:
    scene = shown[0].subject.scene if shown[0].subject else None
    return list(scene.transform) if scene and scene.transform else None


def _controls(
    shown: Sequence[Picture], above: int | None, phases: Sequence[str], *, has_holes: bool
) -> str:
    names = [f"{each.image.name} ({each.image.role.lower()})" for each in shown]
    under = "".join(f'<option value="{n}">{text(name)}</option>' for n, name in enumerate(names))
    over = "".join(
        f'<option value="{n}"{" selected" if n == above else ""}>{text(name)}</option>'
        for n, name in enumerate(names)
    )
    tiles = "".join(f'<option value="{n}">{text(title)}</option>' for n, title in enumerate(phases))
    tile_choice = (
        f'<label>Tiles <select id="show-tiles"><option value="">hidden</option>{tiles}</select>'
        "</label>"
        if phases
        else ""
    )
    hole_choice = (
        '<label><input type="checkbox" id="show-holes" checked> Holes</label>' if has_holes else ""
    )
    return (
        '<div class="viewer" id="viewer" hidden><div class="tools">'
        f'<label>Below <select id="below">{under}</select></label>'
        f'<label>Above <select id="above"><option value="">nothing</option>{over}</select></label>'
        '<label>Swipe <input type="range" id="swipe" min="0" max="100" value="50"></label>'
        '<label>Opacity <input type="range" id="opacity" min="0" max="100" value="100"></label>'
        f"{tile_choice}{hole_choice}"
        '<span class="zoom"><button type="button" id="zoom-in" aria-label="Zoom in">+</button>'
        '<button type="button" id="zoom-out" aria-label="Zoom out">−</button>'
        '<button type="button" id="zoom-fit">All</button>'
        '<button type="button" id="zoom-one">1:1</button></span></div>'
        '<canvas id="map" tabindex="0" role="application" aria-label="Map of the scene and the '
        'outputs" aria-describedby="map-keys"></canvas><p id="reading" role="status"></p>'
        f'<p class="quiet" id="map-keys">{text(_KEYS)}</p></div>'
    )


def _data(document: dict[str, JsonValue]) -> str:
    # `<` is the only character that could end the element; JSON has an escape for it.
    words = json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="viewer-data">{words}</script>'
