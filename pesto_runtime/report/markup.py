"""Write HTML elements, and numbers and values as readable text.

It escapes every text that it receives; arguments that are HTML already are named as such.
"""

from __future__ import annotations

import json
import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import JsonValue


def text(value: object) -> str:
    """Escape a value, for use between tags or in a double-quoted attribute.

    >>> text("<script>"), text('a "b"')
    ('&lt;script&gt;', 'a &quot;b&quot;')
    """
    return escape(str(value), quote=True)


def code(value: object) -> str:
    """Return a value in the typeface of code."""
    return f"<code>{text(value)}</code>"


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: int = 0
) -> str:
    """Return a table; its first column is the heading of each row.

    Args:
        caption: Text above the table.
        head: Names of the columns, as text.
        rows: Cells, as HTML.
        numeric: Number of columns with numbers, counted from the last.
    """
    first = len(head) - numeric
    kinds = ["" if place < first else ' class="n"' for place in range(len(head))]
    names = "".join(
        f'<th scope="col"{kind}>{text(name)}</th>' for kind, name in zip(kinds, head, strict=True)
    )
    body = "".join(_row(row, kinds) for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption>"
        f"<thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str], kinds: Sequence[str]) -> str:
    first = f'<th scope="row">{cells[0]}</th>'
    rest = (f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds[1:], cells[1:], strict=True))
    return f"<tr>{first}{''.join(rest)}</tr>"


def fact_list(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Return a list of facts: name (text), value (HTML), and a remark (HTML, may be empty)."""
    items = (
        f"<div><dt>{text(name)}</dt><dd>{fact}{f'<small>{more}</small>' if more else ''}</dd></div>"
        for name, fact, more in pairs
    )
    return f'<dl class="facts">{"".join(items)}</dl>'


def section(title: str, body: str, *, anchor: str) -> str:
    """Return a section with its heading (text); empty if the body (HTML) is empty."""
    if not body:
        return ""
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{text(title)}</h2>{body}</section>'
    )


_MOST_MS, _MOST_SECONDS, _TWO_DIGITS = 0.0995, 59.95, 9.995
_LEAST_MS = 0.0005
_LEAST_SHARE = 0.0001
_MOST_EXACT = 1e15
_MOST_ELEMENTS = 4096
"""Of a list; a page cuts its text long before."""
_UNITS = ("B", "kB", "MB", "GB", "TB")


def seconds(value: float | None) -> str:
    """Format a duration, with at most three significant digits.

    >>> seconds(0.0042), seconds(0.286), seconds(12.34), seconds(75), seconds(7265), seconds(None)
    ('4 ms', '0.29 s', '12.3 s', '1 min 15 s', '2 h 1 min', '–')
    """
    if value is None:
        return "–"
    if value < _MOST_MS:
        return f"{value * 1000:.0f} ms" if value >= _LEAST_MS or value == 0 else "< 1 ms"
    if value < _MOST_SECONDS:
        return f"{value:.2f} s" if value < _TWO_DIGITS else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Format a number of bytes, in units of 1000.

    >>> size(512), size(9917), size(5_055_048)
    ('512 B', '9.9 kB', '5.1 MB')
    """
    power = min(len(_UNITS) - 1, int(math.log10(max(count, 1))) // 3)
    scaled = count / 1000**power
    digits = 1 if power and scaled < 100 else 0
    return f"{scaled:.{digits}f} {_UNITS[power]}"


def number(value: float) -> str:
    r"""Format a number, with at most five significant digits; integers in groups of three.

    >>> number(0.052988645290294935), number(20034), number(7.0), number(float("nan"))
    ('0.052989', '20\u202f034', '7', 'nan')
    """
    if math.isfinite(value) and float(value).is_integer() and abs(value) < _MOST_EXACT:
        return count(int(value))
    return f"{value:.5g}"


def count(value: int) -> str:
    r"""Format an integer in groups of three digits, joined by narrow no-break spaces.

    >>> count(1234567)
    '1\u202f234\u202f567'
    """
    return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)


def share(value: float) -> str:
    r"""Format a fraction in percent, joined by a no-break space.

    >>> share(0.0529886), share(1.0), share(0.99999), share(0.00001)
    ('5.30\xa0%', '100\xa0%', '>\xa099.99\xa0%', '<\xa00.01\xa0%')
    """
    if value in (0.0, 1.0):
        return f"{value * 100:.0f}\u00a0%"
    if value < _LEAST_SHARE:
        return "<\u00a00.01\u00a0%"
    if value > 1 - _LEAST_SHARE:
        return ">\u00a099.99\u00a0%"
    return f"{value * 100:.2f}\u00a0%"


def plural(amount: int, noun: str) -> str:
    """Format a number with its noun.

    >>> plural(1, "tile"), plural(2, "tile")
    ('1 tile', '2 tiles')
    """
    return f"{count(amount)} {noun}" + ("" if amount == 1 else "s")


def value(document: JsonValue) -> str:
    """Format a JSON value in one line: a number shortened, a text without quotes.

    >>> value(True), value("usable"), value([1, 2])
    ('true', 'usable', '[1, 2]')
    """
    if isinstance(document, (int, float)) and not isinstance(document, bool):
        return number(document)
    return document if isinstance(document, str) else _json(document)


def lines(document: JsonValue) -> str:
    """Format a long JSON value: a line for each member of an object, else as JSON or plain text.

    >>> print(lines({"bins": [1, 2], "step": 0.5}))
    bins: [1, 2]
    step: 0.5
    """
    if not isinstance(document, dict):
        return document if isinstance(document, str) else _json(document)
    return "\n".join(f"{name}: {_json(each)}" for name, each in document.items())


def _json(document: JsonValue) -> str:
    shown = document[:_MOST_ELEMENTS] if isinstance(document, list) else document
    return json.dumps(shown, ensure_ascii=False)
