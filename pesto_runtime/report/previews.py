"""Draw previews of a run's scenes, image outputs and vectors, each with its legend.

An image that cannot be read becomes a figure with the error; it never ends the report.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import PestoError
from pesto_runtime.raster.preview import RAMPS, Preview, read_preview
from pesto_runtime.raster.read import read_scene
from pesto_runtime.report import markup
from pesto_runtime.report.markup import code, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Scene
    from pesto_runtime.raster.preview import Colour, Ramp


_SIDES = (768, 512, 320, 192)
_MOST_PICTURES = 24
_MOST_BYTES = 1_200_000
"""Of all pictures together, before base64 adds a third."""
_VECTOR_SIDE = 512
_MOST_DOTS = 5_000
_MOST_VECTOR_BYTES = 64 << 20
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Subject:
    """An image to show.

    Attributes:
        name: Name of the input or output.
        role: `Scene` or `Output`.
        href: Path or href of the image.
        ramp: Colours of a single band.
    """

    name: str
    role: str
    href: str | Path
    ramp: Ramp


def gallery(subjects: Sequence[Subject]) -> str:
    """Return figures side by side, at the largest size that fits into the limit of bytes."""
    shown = subjects[:_MOST_PICTURES]
    previews: list[Preview | PestoError] = []
    for side in _SIDES:
        previews = [_preview(subject, side) for subject in shown]
        if sum(len(each.data) for each in previews if isinstance(each, Preview)) <= _MOST_BYTES:
            break
    figures = "".join(
        _figure(subject, each, number)
        for number, (subject, each) in enumerate(zip(shown, previews, strict=True), start=1)
    )
    hidden = len(subjects) - len(shown)
    more = f"<p>{markup.plural(hidden, 'more image')} not shown.</p>" if hidden else ""
    return f'<div class="gallery">{figures}</div>{more}' if figures else ""


def _preview(subject: Subject, side: int) -> Preview | PestoError:
    try:
        return read_preview(subject.href, max_side=side, ramp=subject.ramp)
    except PestoError as error:
        return error


def _figure(subject: Subject, preview: Preview | PestoError, number: int) -> str:
    heading = f"<strong>{text(subject.name)}</strong> <span>{text(subject.role)}</span>"
    if isinstance(preview, PestoError):
        return (
            f'<figure><div class="frame none"><p>No preview. {text(preview.detail)}</p></div>'
            f"<figcaption><h3>{heading}</h3></figcaption></figure>"
        )
    anchor = f"picture-{number}"
    return (
        f'<figure id="{anchor}"><div class="frame"><a class="open" href="#{anchor}">'
        f'{_image(subject, preview)}</a><a class="close" href="#images">Close</a></div>'
        f"<figcaption><h3>{heading}</h3><p>{_remark(preview)}</p>{_legend(preview)}</figcaption>"
        "</figure>"
    )


def _image(subject: Subject, preview: Preview) -> str:
    data = base64.b64encode(preview.data).decode()
    width, height = preview.size
    grain = ' class="coarse"' if max(preview.picture) < 400 else ""
    alt = f"{subject.role} {subject.name}: {_content(preview)}"
    return (
        f'<img{grain} src="data:{preview.media_type};base64,{data}" alt="{text(alt)}" '
        f'width="{preview.picture[0]}" height="{preview.picture[1]}" '
        f'style="--aspect:{width / height:.5f}">'
    )


def _content(preview: Preview) -> str:
    if preview.kind == "classes":
        shares = ", ".join(
            f"{markup.number(each.value)} on {markup.share(each.share)}" for each in preview.classes
        )
        return f"classes {shares}" if shares else "no valid pixel"
    bands = ", ".join(preview.bands)
    return f"{'bands' if len(preview.bands) > 1 else 'band'} {bands}"


def _remark(preview: Preview) -> str:
    width, height = preview.size
    parts = [
        f"{markup.count(width)} × {markup.count(height)} px",
        text(preview.dtype),
        markup.plural(preview.of_bands, "band"),
    ]
    if preview.kind != "classes" and preview.of_bands > 1:
        parts.append(f"shown: {text(', '.join(preview.bands))}")
    if preview.valid < 1:
        about = "about " if preview.is_sampled else ""
        parts.append(f"no data on {about}{markup.share(1 - preview.valid)}")
    return " · ".join(parts)


def _legend(preview: Preview) -> str:
    if preview.kind == "classes":
        return _class_legend(preview)
    if preview.kind == "ramp":
        return _ramp_legend(preview)
    ends = "; ".join(
        f"{text(name)} {markup.number(low)} to {markup.number(high)}"
        for name, (low, high) in zip(preview.bands, preview.limits, strict=True)
    )
    return f'<p class="quiet">Stretched from the 2nd to the 98th percentile: {ends}.</p>'


def _class_legend(preview: Preview) -> str:
    if not preview.classes:
        return '<p class="quiet">No valid pixel.</p>'
    about = "≈\u00a0" if preview.is_sampled else ""
    items = "".join(
        f'<li><i style="background:{_rgb(each.colour)}"></i>'
        f"<span>{code(markup.number(each.value))}</span> {about}{markup.share(each.share)}</li>"
        for each in preview.classes
    )
    return f'<ul class="classes" aria-label="Values and their share of valid pixels">{items}</ul>'


def _ramp_legend(preview: Preview) -> str:
    steps = ",".join(_rgb(colour) for colour in RAMPS[preview.ramp])
    (low, high) = preview.limits[0]
    return (
        f'<div class="scale"><div class="steps" style="background:linear-gradient(90deg,{steps})">'
        f'</div><div class="marks"><span>{markup.number(low)}</span><span>2nd to 98th percentile'
        f"</span><span>{markup.number(high)}</span></div></div>"
    )


def _rgb(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def vector_figures(vectors: Mapping[str, Path], scene_href: str) -> str:
    """Return a figure for each readable vector over the scene; empty without a readable scene.

    Args:
        vectors: Output -> its GeoJSON file.
        scene_href: Href of the first scene, which has the same CRS.
    """
    if not vectors:
        return ""
    try:
        scene, preview = read_scene(scene_href), read_preview(scene_href, max_side=_VECTOR_SIDE)
    except PestoError:
        return ""
    data = base64.b64encode(preview.data).decode()
    picture = (
        f'<image href="data:{preview.media_type};base64,{data}" width="{scene.width}" '
        f'height="{scene.height}" preserveAspectRatio="none"/>'
    )
    figures = "".join(_vector_figure(name, path, scene, picture) for name, path in vectors.items())
    return f'<div class="gallery">{figures}</div>' if figures else ""


def _vector_figure(name: str, path: Path, scene: Scene, picture: str) -> str:
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


def _dots(path: Path, scene: Scene) -> list[tuple[float, float]] | None:
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
