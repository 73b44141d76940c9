"""Pictures of a run's vectors: a dot for each feature, over the first scene."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from pesto_runtime.errors import PestoError
from pesto_runtime.raster import read_preview, read_scene
from pesto_runtime.report import wording
from pesto_runtime.report.markup import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Scene

_SIDE = 512
_MOST_DOTS = 5_000
_MOST_BYTES = 64 << 20
_PIXELS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def vector_figures(vectors: Mapping[str, Path], scene_href: str) -> str:
    """A figure for each vector; nothing where neither the file nor the scene can be read.

    Args:
        vectors: Output -> its GeoJSON file.
        scene_href: Of the first scene, in whose coordinates they are.
    """
    if not vectors:
        return ""
    try:
        scene, preview = read_scene(scene_href), read_preview(scene_href, max_side=_SIDE)
    except PestoError:
        return ""
    data = base64.b64encode(preview.data).decode()
    picture = (
        f'<image href="data:{preview.media_type};base64,{data}" width="{scene.width}" '
        f'height="{scene.height}" preserveAspectRatio="none"/>'
    )
    figures = "".join(_figure(name, path, scene, picture) for name, path in vectors.items())
    return f'<div class="gallery">{figures}</div>' if figures else ""


def _figure(name: str, path: Path, scene: Scene, picture: str) -> str:
    dots = _dots(path, scene)
    if dots is None:
        return ""
    told = wording.plural(len(dots), "feature")
    step = -(-len(dots) // _MOST_DOTS) or 1
    drawn = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in dots[::step])
    some = f" · one dot for {step} of them" if step > 1 else ""
    return (
        f'<figure class="dots"><div class="frame"><svg role="img" aria-label="Output {text(name)}: '
        f'{told} over the scene" viewBox="0 0 {scene.width} {scene.height}" '
        f'style="--aspect:{scene.width / scene.height:.5f}">{picture}<path class="under" '
        f'd="{drawn}"/><path d="{drawn}"/></svg></div><figcaption><h3><strong>{text(name)}</strong>'
        f" <span>Output</span></h3><p>{told}{some}</p></figcaption></figure>"
    )


def _dots(path: Path, scene: Scene) -> list[tuple[float, float]] | None:
    """Centres of the features (x, y) in pixels of the scene; None where the file is not for us."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        return [_centre(each["geometry"]["coordinates"], scene) for each in features]
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
        return None


def _centre(coordinates: JsonValue, scene: Scene) -> tuple[float, float]:
    xs, ys = zip(*_positions(coordinates), strict=True)
    a, b, c, d, e, f = scene.transform or _PIXELS
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
