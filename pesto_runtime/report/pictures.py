"""Draw the scenes and the image outputs of a run, each with its legend and its histograms.

An image that cannot be read becomes a figure with the error; it never ends the report.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import PestoError
from pesto_runtime.raster.preview import RAMPS, Preview, draw
from pesto_runtime.raster.sampled import Subject, read_subject
from pesto_runtime.report import markup
from pesto_runtime.report.markup import code, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.raster.histogram import Histogram
    from pesto_runtime.raster.preview import Colour, PreviewClass, Ramp
    from pesto_runtime.report.facts import ReportImage

MOST_BYTES = 4_000_000
"""Of all pictures together, before base64 adds a third."""
_MOST_SIDE = 2048
_MOST_PICTURES = 24
_MOST_HISTOGRAMS = 4
_HISTOGRAM = (256, 40)  # width and height of the drawing


@dataclass(frozen=True)
class Picture:
    """A scene or an output, with its picture.

    Attributes:
        image: The image.
        subject: Its samples and facts; None if it cannot be read.
        preview: Its picture; None if it cannot be read.
        error: The reason if it cannot be read.
        anchor: Id of its figure in the page.
    """

    image: ReportImage
    subject: Subject | None
    preview: Preview | None
    error: str
    anchor: str


def pictures_of(images: Sequence[ReportImage]) -> tuple[Picture, ...]:
    """Draw images; the largest files at half the size, until all of them fit into the limit."""
    found = [
        _picture(image, _subject(image), side=_MOST_SIDE, number=number)
        for number, image in enumerate(images[:_MOST_PICTURES], start=1)
    ]
    while sum(map(_size, found)) > MOST_BYTES:
        largest = max(range(len(found)), key=lambda place: _size(found[place]))
        picture = found[largest]
        if picture.subject is None or picture.preview is None:
            break
        side = max(picture.preview.picture) // 2
        found[largest] = _picture(picture.image, picture.subject, side=side, number=largest + 1)
    return tuple(found)


def _size(picture: Picture) -> int:
    return len(picture.preview.data) if picture.preview else 0


def _subject(image: ReportImage) -> Subject | PestoError:
    try:
        return read_subject(
            image.href,
            selection=image.selection,
            samples=image.samples,
            numbers=image.numbers,
            classes=image.classes,
        )
    except PestoError as error:
        return error


def _picture(
    image: ReportImage, subject: Subject | PestoError, *, side: int, number: int
) -> Picture:
    anchor = f"picture-{number}"
    if isinstance(subject, PestoError):
        return Picture(image, None, None, subject.detail, anchor)
    ramp: Ramp = "grey" if image.role == "Scene" else "viridis"
    try:
        return Picture(image, subject, draw(subject, max_side=side, ramp=ramp), "", anchor)
    except PestoError as error:
        return Picture(image, subject, None, error.detail, anchor)


def gallery(pictures: Sequence[Picture], *, of: int) -> str:
    """Return the pictures as figures side by side.

    Args:
        pictures: The pictures.
        of: Number of all images; those without a picture are mentioned.
    """
    figures = "".join(_figure(each) for each in pictures)
    hidden = of - len(pictures)
    more = f"<p>{markup.plural(hidden, 'more image')} not shown.</p>" if hidden else ""
    return f'<div class="gallery">{figures}</div>{more}' if figures else ""


def _figure(picture: Picture) -> str:
    heading = f"<strong>{text(picture.image.name)}</strong> <span>{picture.image.role}</span>"
    preview = picture.preview
    if preview is None:
        return (
            f'<figure><div class="frame none"><p>No preview. {text(picture.error)}</p></div>'
            f"<figcaption><h3>{heading}</h3></figcaption></figure>"
        )
    return (
        f'<figure id="{picture.anchor}"><div class="frame"><a class="open" '
        f'href="#{picture.anchor}">{_img(picture.image, preview)}</a>'
        '<a class="close" href="#images">Close</a></div>'
        f"<figcaption><h3>{heading}</h3><p>{_remark(preview)}</p>{_legend(preview)}"
        f"{_histograms(preview)}</figcaption></figure>"
    )


def _img(image: ReportImage, preview: Preview) -> str:
    data = base64.b64encode(preview.data).decode()
    width, height = preview.size
    grain = ' class="coarse"' if max(preview.picture) < 400 else ""
    alt = f"{image.role} {image.name}: {_content(preview)}"
    return (
        f'<img{grain} src="data:{preview.media_type};base64,{data}" alt="{text(alt)}" '
        f'width="{preview.picture[0]}" height="{preview.picture[1]}" '
        f'style="--aspect:{width / height:.5f}">'
    )


def _content(preview: Preview) -> str:
    if preview.kind == "classes":
        shares = ", ".join(
            f"{class_label(each)} on {markup.share(each.share)}" for each in preview.classes
        )
        return f"classes {shares}" if shares else "no valid pixel"
    bands = ", ".join(preview.bands)
    return f"{'bands' if len(preview.bands) > 1 else 'band'} {bands}"


def class_label(each: PreviewClass) -> str:
    """Return the value of a class, with its name if the contract declares one."""
    value = markup.number(each.value)
    return f"{value} {each.meaning.name}" if each.meaning else value


def _remark(preview: Preview) -> str:
    width, height = preview.size
    parts = [
        f'<span class="whole">{markup.count(width)} × {markup.count(height)} px</span>',
        text(preview.dtype),
        markup.plural(preview.of_bands, "band"),
    ]
    if preview.kind != "classes" and preview.of_bands > 1:
        parts.append(f"shown: {text(', '.join(preview.bands))}")
    if preview.step > 1:
        parts.append(f"one pixel of {preview.step} × {preview.step}")
    if preview.valid < 1:
        about = "about " if preview.is_sampled else ""
        parts.append(f"no data on {about}{markup.share(1 - preview.valid)}")
    if preview.known < 1:
        parts.append(f"{markup.share(1 - preview.known)} not read for this page")
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
        f'<li{_title(each)}><i style="background:{rgb(each.colour)}"></i><span>{_named(each)} '
        f"{about}{markup.share(each.share)}</span></li>"
        for each in preview.classes
    )
    return f'<ul class="classes" aria-label="Values and their share of valid pixels">{items}</ul>'


def _named(each: PreviewClass) -> str:
    name = f" <b>{text(each.meaning.name)}</b>" if each.meaning else ""
    return f"{code(markup.number(each.value))}{name}"


def _title(each: PreviewClass) -> str:
    words = each.meaning.description if each.meaning else None
    return f' title="{text(words)}"' if words else ""


def _ramp_legend(preview: Preview) -> str:
    steps = ",".join(rgb(colour) for colour in RAMPS[preview.ramp])
    (low, high) = preview.limits[0]
    return (
        f'<div class="scale"><div class="steps" style="background:linear-gradient(90deg,{steps})">'
        f'</div><div class="marks"><span>{markup.number(low)}</span><span>2nd to 98th percentile'
        f"</span><span>{markup.number(high)}</span></div></div>"
    )


def _histograms(preview: Preview) -> str:
    """Return the histograms of a raster of many values, below a summary that opens them."""
    if preview.kind == "classes":
        return ""
    shown = [(name, each) for name, each in preview.histograms if each.counts]
    drawn = "".join(_histogram(name, each) for name, each in shown[:_MOST_HISTOGRAMS])
    rest = len(shown) - _MOST_HISTOGRAMS
    more = f"<p>{markup.plural(rest, 'more band')} not shown.</p>" if rest > 0 else ""
    of = " of its samples" if preview.is_sampled else ""
    return (
        f"<details open><summary>Histograms{of}</summary>{drawn}{more}</details>" if drawn else ""
    )


def _histogram(name: str, histogram: Histogram) -> str:
    width, height = _HISTOGRAM
    most, bar = max(histogram.counts), width / len(histogram.counts)
    bars = "".join(
        f"M{number * bar:.1f} {height}v-{count / most * height:.1f}h{bar:.1f}V{height}z"
        for number, count in enumerate(histogram.counts)
        if count
    )
    ends = f"{markup.number(histogram.least)} to {markup.number(histogram.most)}"
    mean = markup.number(histogram.mean)
    return (
        f'<div class="histogram"><span>{text(name)}</span><svg role="img" viewBox="0 0 {width} '
        f'{height}" preserveAspectRatio="none" aria-label="Histogram of {text(name)}: {ends}, mean '
        f'{mean}"><path d="{bars}"/></svg><span class="whole">{markup.number(histogram.least)}'
        f'</span><span class="whole">mean {mean}</span><span class="whole">'
        f"{markup.number(histogram.most)}</span></div>"
    )


def rgb(colour: Colour) -> str:
    """Return a colour in CSS.

    >>> rgb((255, 0, 16))
    '#ff0010'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)
