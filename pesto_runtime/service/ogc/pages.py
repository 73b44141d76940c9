"""Show documents of OGC API - Processes as HTML: lists, with links that lead on."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content-Security-Policy of a page: nothing is loaded, nothing runs."""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff }
dl { margin: 0 0 0 1rem } dt { font-weight: 600 } dd { margin: 0 0 .3rem 1rem }
a { color: #0b5394 }
"""


def page(document: JsonValue, title: str) -> bytes:
    """Return a document as an HTML page."""
    text = escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{text}</h1>{_shown(document)}</main></body></html>"
    ).encode()


def _shown(value: JsonValue) -> str:
    if isinstance(value, dict):
        if isinstance(value.get("href"), str):
            return _anchor(value)
        rows = (f"<dt>{escape(key)}</dt><dd>{_shown(each)}</dd>" for key, each in value.items())
        return f"<dl>{''.join(rows)}</dl>"
    if isinstance(value, list):
        items = (_shown(each) for each in value if not _is_this_page(each))
        return f"<ul>{''.join(f'<li>{each}</li>' for each in items)}</ul>"
    return escape("" if value is None else str(value))


def _is_this_page(value: JsonValue) -> bool:
    """Whether a value is the link to a document as HTML, beside the one that a browser follows."""
    return isinstance(value, dict) and value.get("rel") == "alternate"


def _anchor(link: dict[str, JsonValue]) -> str:
    href = str(link["href"])
    text = escape(str(link.get("title") or link.get("rel") or href))
    if not href.startswith(("http://", "https://")):  # no `javascript:`
        return f"{text}: {escape(href)}"
    return f'<a href="{escape(href)}">{text}</a>'
