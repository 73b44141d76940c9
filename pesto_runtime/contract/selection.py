"""Define references to images: an href, the bands and the window of it; their text and JSON forms.

Nothing is opened here: `hrefs.image_reference` decides whether a text is the name of a file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Self, TypeAlias
from urllib.parse import quote, unquote

from pydantic import BeforeValidator, Field, ValidationError

from pesto_runtime.contract.base import ClosedValue
from pesto_runtime.contract.geometry import Window, WindowField, parse_window
from pesto_runtime.errors import InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FRAGMENT = "#bands=green:2,nir:4&window=COL_OFF,ROW_OFF,WIDTH,HEIGHT"
"""Example of the fragment of an image's text."""
_GRAMMAR = (
    f"write HREF{FRAGMENT}, each part once or not at all; bands are NAME:NUMBER, or numbers, or "
    "names; %23 is a # in the name of a file"
)
_KEY = re.compile(r"(bands|window)=")


Bands: TypeAlias = tuple[int | str, ...] | dict[str, int]


def _valid(bands: object) -> object:
    """Reject the values that pydantic would convert: a text to its characters, True to 1."""
    if bands is None:
        return bands
    is_list = isinstance(bands, (list, tuple))
    several = list(bands.values()) if isinstance(bands, dict) else list(bands) if is_list else []  # type: ignore[call-overload]  # a list then
    if not several:
        raise ValueError(
            f"bands {shortened(bands)} is neither a list of numbers and names, nor an object NAME: "
            "NUMBER"
        )
    for each in several:
        is_name = is_list and isinstance(each, str) and each
        is_number = isinstance(each, int) and not isinstance(each, bool) and each >= 1
        if not is_name and not is_number:
            raise ValueError(f"band {shortened(each)} is not a number >= 1")
    return bands


BandsField: TypeAlias = Annotated[Bands | None, BeforeValidator(_valid)]


class ImageReference(ClosedValue):
    """An image by reference: a window and bands of the raster at an href.

    Attributes:
        href: The raster.
        window: The pixels to read; None for all.
        bands: Band numbers (from 1) or names in the order wanted, or an object of new names and
            numbers. None for all bands.
        identity: Identity of the raster in the plan; None to accept any.
    """

    href: str = Field(min_length=1)
    window: WindowField | None = None
    bands: BandsField = Field(
        default=None,
        description="1-based numbers or band names, in the order wanted; or name -> number.",
    )
    identity: str | None = Field(
        default=None, description="Identity of the raster in the plan; absent to accept any."
    )

    @classmethod
    def parse(cls, value: str | Mapping[str, object]) -> Self:
        """Parse the text form or the JSON form.

        >>> ImageReference.parse("s3://b/a.tif#bands=green:2,nir:4").bands
        {'green': 2, 'nir': 4}

        Args:
            value: `HREF`, `HREF#bands=green:2,nir:4&window=0,0,64,64`, or an object with the fields
                of this class.

        Raises:
            InvalidInput: a fragment does not fit the grammar, which the error shows.
            ValidationError: a field of an object is wrong.
        """
        if not isinstance(value, str):
            given = cls.model_validate(value)
            href, fragment = split_fragment(given.href)
            if not fragment:
                return given
            if given.bands is not None or given.window is not None:
                raise InvalidInput(
                    f"{shortened(given.href)} has a fragment beside `bands` or `window`: use one"
                )
            parsed = cls.parse(given.href)
            return parsed.model_copy(update={"identity": given.identity})
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{value!r} is not UTF-8, which names of images must be") from error
        href, fragment = split_fragment(value)
        if not fragment:
            return cls(href=href)
        try:
            return cls(href=href, **_parts(fragment))
        except (ValueError, InvalidInput) as error:
            raise wrong_fragment(value, fragment, _reason(error)) from error

    def __str__(self) -> str:
        """Return the text form, without the identity."""
        return self.href + "".join(self._fragment())

    def _fragment(self) -> Iterator[str]:
        if isinstance(self.bands, dict):
            listed = [f"{_escaped(name)}:{number}" for name, number in self.bands.items()]
        else:
            listed = [_escaped(b) if isinstance(b, str) else str(b) for b in self.bands or ()]
        if listed:
            yield f"#bands={','.join(listed)}"
        if self.window is not None:
            yield f"{'&' if listed else '#'}window={','.join(map(str, self.window))}"


class Selection(ClosedValue):
    """The part of a raster that is used as if it were the whole one.

    Attributes:
        bands: 1-based numbers of the raster's bands, in the order wanted; None for all.
        names: New names of these bands; None for those of the raster.
        window: Its pixels in the raster; None for all.
    """

    bands: tuple[int, ...] | None = Field(default=None, min_length=1)
    names: tuple[str, ...] | None = None
    window: WindowField | None = None

    @property
    def states_order(self) -> bool:
        """Whether the bands were listed without new names: then their order is meant."""
        return self.bands is not None and self.names is None

    def numbers(self, bands: Sequence[int] | None) -> tuple[int, ...] | None:
        """Return the raster's numbers for numbers of the selection's bands; None for all."""
        if self.bands is None:
            return None if bands is None else tuple(bands)
        return self.bands if bands is None else tuple(self.bands[each - 1] for each in bands)

    def moved(self, window: Window) -> Window:
        """Return a window of the selection in the pixels of the raster."""
        if self.window is None:
            return window
        col_off, row_off = self.window[:2]
        return window._replace(col_off=window.col_off + col_off, row_off=window.row_off + row_off)


def split_fragment(text: str) -> tuple[str, str]:
    """Split a text at its last `#`; the fragment is empty if it does not select bands or a window.

    Without a `#` that begins with a known key, the whole text is the href: keys of buckets may have
    a `#`. In an href of a file or a web server a `#` never belongs to the name (RFC 3986, 3.5).

    >>> split_fragment("a#1.tif#bands=2")
    ('a#1.tif', 'bands=2')
    """
    href, mark, fragment = text.rpartition("#")
    scheme = text.partition(":")[0].lower()
    if mark and (_KEY.match(fragment) or scheme in ("file", "http", "https")):
        return href, fragment or " "
    return text, ""


def wrong_fragment(text: str, fragment: str, reason: str) -> InvalidInput:
    """Return the error about a fragment, with the grammar."""
    return InvalidInput(
        f"{shortened(text)}: the fragment {shortened('#' + fragment)} is wrong: {reason}; "
        f"{_GRAMMAR}"
    )


def _parts(fragment: str) -> dict[str, object]:
    parts: dict[str, object] = {}
    for part in fragment.split("&"):
        key, _, value = part.partition("=")
        if not _KEY.match(part):
            raise ValueError(f"{shortened(part)} is neither bands=… nor window=…")
        if key in parts:
            raise ValueError(f"{key} is given twice")
        parts[key] = _bands_of(value) if key == "bands" else _window_of(value)
    return parts


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    return str(error)


def _bands_of(text: str) -> object:
    items = [_named(each) for each in text.split(",")]
    named = dict(each for each in items if isinstance(each, tuple))
    if named and len(named) != len(items):
        raise ValueError("a name is repeated, or not every band is NAME:NUMBER")
    return named or items


def _named(text: str) -> int | str | tuple[str, int]:
    """Parse a number, a name, or a name with its number."""
    name, colon, number = text.rpartition(":")
    if colon and name and _is_number(number):
        return unquote(name), int(number)
    if not text or colon:
        raise ValueError(f"{text!r} is neither NAME:NUMBER, nor a number, nor a name")
    return int(text) if _is_number(text) else unquote(text)


def _window_of(text: str) -> Window:
    numbers = text.split(",")
    return parse_window([int(each) if _is_number(each) else each for each in numbers])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _escaped(name: str) -> str:
    # A name of digits would be read as a number.
    return f"%{ord(name[0]):02X}{name[1:]}" if _is_number(name) else quote(name, safe=" /()[]'!*+")
