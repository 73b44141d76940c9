"""HTML in the small: text is escaped here, and nowhere twice.

Whatever comes from a run passes `text` or `attribute` before it is put between tags.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def text(value: object) -> str:
    """A value as text between tags, or between the double quotes of an attribute.

    >>> text("<script>"), text('a "b"')
    ('&lt;script&gt;', 'a &quot;b&quot;')
    """
    return escape(str(value), quote=True)


def code(value: object) -> str:
    """A value as it stands in a file or on a command line."""
    return f"<code>{text(value)}</code>"


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: int = 0
) -> str:
    """A table of cells that are HTML already; its first column names the row.

    Args:
        caption: Says what is in it; text.
        head: Names of columns; text.
        rows: Of HTML.
        numeric: How many columns, counted from the last, are numbers.
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


def facts(pairs: Iterable[tuple[str, str, str]]) -> str:
    """A list of facts: name (text), what it is (HTML), and a remark (HTML, may be empty)."""
    items = (
        f"<div><dt>{text(name)}</dt><dd>{what}{f'<small>{more}</small>' if more else ''}</dd></div>"
        for name, what, more in pairs
    )
    return f'<dl class="facts">{"".join(items)}</dl>'


def section(title: str, body: str, *, anchor: str) -> str:
    """A part of the page under its heading (text); nothing where the body is empty."""
    if not body:
        return ""
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{text(title)}</h2>{body}</section>'
    )
