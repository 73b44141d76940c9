"""Pictures of a run's scenes and image outputs, each with what its colours mean."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import PestoError
from pesto_runtime.raster import RAMPS, Preview, read_preview
from pesto_runtime.report import wording
from pesto_runtime.report.markup import code, text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pesto_runtime.raster import Colour, Ramp

_SIDES = (768, 512, 320, 192)
_MOST_PICTURES = 24
_MOST_BYTES = 1_200_000
"""Of all pictures together, before base64 adds a third."""


@dataclass(frozen=True)
class Subject:
    """Something to show.

    Attributes:
        name: Of the input or output.
        role: `Scene` or `Output`.
        href: Where it is.
        ramp: What colours a single band.
    """

    name: str
    role: str
    href: str | Path
    ramp: Ramp


def gallery(subjects: Sequence[Subject]) -> str:
    """Figures side by side; what cannot be shown says why instead."""
    shown = subjects[:_MOST_PICTURES]
    looked: list[Preview | PestoError] = []
    for side in _SIDES:
        looked = [_looked(subject, side) for subject in shown]
        if sum(len(each.data) for each in looked if isinstance(each, Preview)) <= _MOST_BYTES:
            break
    figures = "".join(
        _figure(subject, each, number)
        for number, (subject, each) in enumerate(zip(shown, looked, strict=True), start=1)
    )
    left = len(subjects) - len(shown)
    more = f"<p>{wording.plural(left, 'more image')} not shown.</p>" if left else ""
    return f'<div class="gallery">{figures}</div>{more}' if figures else ""


def _looked(subject: Subject, side: int) -> Preview | PestoError:
    try:
        return read_preview(subject.href, max_side=side, ramp=subject.ramp)
    except PestoError as error:
        return error


def _figure(subject: Subject, looked: Preview | PestoError, number: int) -> str:
    heading = f"<strong>{text(subject.name)}</strong> <span>{text(subject.role)}</span>"
    if isinstance(looked, PestoError):
        return (
            f'<figure><div class="frame none"><p>No preview. {text(looked.detail)}</p></div>'
            f"<figcaption><h3>{heading}</h3></figcaption></figure>"
        )
    anchor = f"picture-{number}"
    return (
        f'<figure id="{anchor}"><div class="frame"><a class="open" href="#{anchor}">'
        f'{_image(subject, looked)}</a><a class="close" href="#images">Close</a></div>'
        f"<figcaption><h3>{heading}</h3><p>{_remark(looked)}</p>{_legend(looked)}</figcaption>"
        "</figure>"
    )


def _image(subject: Subject, preview: Preview) -> str:
    data = base64.b64encode(preview.data).decode()
    width, height = preview.size
    grain = ' class="coarse"' if max(preview.picture) < 400 else ""
    alt = f"{subject.role} {subject.name}: {_shows(preview)}"
    return (
        f'<img{grain} src="data:{preview.media_type};base64,{data}" alt="{text(alt)}" '
        f'width="{preview.picture[0]}" height="{preview.picture[1]}" '
        f'style="--aspect:{width / height:.5f}">'
    )


def _shows(preview: Preview) -> str:
    if preview.kind == "classes":
        shares = ", ".join(
            f"{wording.number(each.value)} on {wording.share(each.share)}"
            for each in preview.classes
        )
        return f"classes {shares}" if shares else "no valid pixel"
    bands = ", ".join(preview.bands)
    return f"{'bands' if len(preview.bands) > 1 else 'band'} {bands}"


def _remark(preview: Preview) -> str:
    width, height = preview.size
    parts = [
        f"{wording.count(width)} × {wording.count(height)} px",
        text(preview.dtype),
        wording.plural(preview.of_bands, "band"),
    ]
    if preview.kind != "classes" and preview.of_bands > 1:
        parts.append(f"shown: {text(', '.join(preview.bands))}")
    if preview.valid < 1:
        about = "about " if preview.is_sampled else ""
        parts.append(f"no data on {about}{wording.share(1 - preview.valid)}")
    return " · ".join(parts)


def _legend(preview: Preview) -> str:
    if preview.kind == "classes":
        return _class_legend(preview)
    if preview.kind == "ramp":
        return _ramp_legend(preview)
    ends = "; ".join(
        f"{text(name)} {wording.number(low)} to {wording.number(high)}"
        for name, (low, high) in zip(preview.bands, preview.limits, strict=True)
    )
    return f'<p class="quiet">Stretched from the 2nd to the 98th percentile: {ends}.</p>'


def _class_legend(preview: Preview) -> str:
    if not preview.classes:
        return '<p class="quiet">No valid pixel.</p>'
    about = "≈\u00a0" if preview.is_sampled else ""
    items = "".join(
        f'<li><i style="background:{_rgb(each.colour)}"></i>'
        f"<span>{code(wording.number(each.value))}</span> {about}{wording.share(each.share)}</li>"
        for each in preview.classes
    )
    return f'<ul class="classes" aria-label="Values and their share of valid pixels">{items}</ul>'


def _ramp_legend(preview: Preview) -> str:
    steps = ",".join(_rgb(colour) for colour in RAMPS[preview.ramp])
    (low, high) = preview.limits[0]
    return (
        f'<div class="scale"><div class="steps" style="background:linear-gradient(90deg,{steps})">'
        f'</div><div class="marks"><span>{wording.number(low)}</span><span>2nd to 98th percentile'
        f"</span><span>{wording.number(high)}</span></div></div>"
    )


def _rgb(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
