"""Draw the features of vector outputs as dots over the first scene."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from pesto_runtime.raster.preview import draw
from pesto_runtime.report import markup
from pesto_runtime.report.markup import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Scene
    from pesto_runtime.places import AnyPath
    from pesto_runtime.report.pictures import Picture

_SIDE = 512
_MOST_DOTS = 5_000
_MOST_VECTOR_BYTES = 64 << 20
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def vector_figures(vectors: Mapping[str, AnyPath], picture: Picture | None) -> str:
    """Return a figure for each readable vector over the scene; empty without a readable scene.

    Args:
        vectors: Output -> its GeoJSON file.
        picture: The first scene, which has the same CRS.
    """
    if not vectors or picture is None or picture.subject is None:
        return ""
    scene, preview = picture.subject.scene, draw(picture.subject, max_side=_SIDE)
    data = base64.b64encode(preview.data).decode()
    width, height = (side * preview.step for side in preview.picture)
    drawn = (
        f'<image href="data:{preview.media_type};base64,{data}" width="{width}" '
        f'height="{height}" preserveAspectRatio="none"/>'
    )
    figures = "".join(_vector_figure(name, path, scene, drawn) for name, path in vectors.items())
    return f'<div class="gallery">{figures}</div>' if figures else ""


def _vector_figure(name: str, path: AnyPath, scene: Scene, picture: str) -> str:
    dots = _dots(path, scene)
    if dots is None:
        return ""
    count = markup.plural(len(dots), "feature")
    step = -(-len(dots) // _MOST_DOTS) or 1
    # One path of zero-length lines with round caps: 5000 circles would be 5000 elements.
    drawn = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in dots[::step])
    some = f" · one dot for {step} of them" if step > 1 else ""
    return (
        f'<figure class="dots"><div class="frame"><svg role="img" aria-label="Output {text(name)}: '
        f'{count} over the scene" viewBox="0 0 {scene.width} {scene.height}" '
        f'style="--aspect:{scene.width / scene.height:.5f}">{picture}<path class="under" '
        f'd="{drawn}"/><path d="{drawn}"/></svg></div><figcaption><h3><strong>{text(name)}</strong>'
        f" <span>Output</span></h3><p>{count}{some}</p></figcaption></figure>"
    )


def _dots(path: AnyPath, scene: Scene) -> list[tuple[float, float]] | None:
    """Read the centres of features (x, y) in pixels of the scene; None if the file is unusable."""
    try:
        if path.stat().st_size > _MOST_VECTOR_BYTES:
            return None
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        return [_centre(each["geometry"]["coordinates"], scene) for each in features]
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
        return None


def _centre(coordinates: JsonValue, scene: Scene) -> tuple[float, float]:
    xs, ys = zip(*_positions(coordinates), strict=True)
    a, b, c, d, e, f = scene.transform or _IDENTITY
    across, down = (min(xs) + max(xs)) / 2 - c, (min(ys) + max(ys)) / 2 - f
    area = a * e - b * d
    return ((e * across - b * down) / area, (a * down - d * across) / area)


def _positions(coordinates: JsonValue) -> Iterator[tuple[float, float]]:
    if not isinstance(coordinates, list):
        return
    if coordinates and isinstance(coordinates[0], (int, float)):
        x, y = coordinates[:2]
        yield float(str(x)), float(str(y))
        return
    for each in coordinates:
        yield from _positions(each)
