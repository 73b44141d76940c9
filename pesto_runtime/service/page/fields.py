"""Input ports as fields of a form, and schemas as a line of text."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pesto_runtime.contract import Port, RasterContract

_HIDDEN = ("x-raster", "x-vector", "title", "description", "default")
_NUMBERS = ("number", "integer")


def field_of(port: Port) -> str:
    """One labelled field; its `data-kind` tells the script how to send it."""
    name = escape(port.name)
    star = ' <b title="required">*</b>' if port.required else ""
    told = [str(port.schema.get("description") or "")]
    if port.raster is not None:
        told.append(_shown_raster(port.raster))
    note = "".join(f"<small>{escape(each)}</small>" for each in told if each)
    return (
        f'<div class="field" data-name="{name}" data-kind="{_kind(port)}">'
        f'<label for="in-{name}">{name}{star}</label><div>{_control(port, name)}{note}'
        '<p class="fault" hidden></p></div></div>'
    )


def shown_schema(port: Port) -> str:
    """What the port takes or gives, as HTML of one line."""
    parts = []
    if told := port.schema.get("description"):
        parts.append(escape(str(told)))
    if port.raster is not None:
        parts.append(escape(_shown_raster(port.raster)))
    rest = {key: value for key, value in port.schema.items() if key not in _HIDDEN}
    if rest and port.raster is None:
        parts.append(f"<code>{escape(json.dumps(rest, ensure_ascii=False))}</code>")
    if port.has_default:
        parts.append(f"default <code>{escape(json.dumps(port.schema['default']))}</code>")
    return " · ".join(parts)


def _kind(port: Port) -> str:
    if port.kind in ("image", "images"):
        return port.kind
    return "text" if port.schema.get("type") == "string" else "json"


def _control(port: Port, name: str) -> str:
    if port.kind in ("image", "images"):
        several = " multiple" if port.kind == "images" else ""
        return (
            f'<div class="image"><input type="file" id="in-{name}"{several}> <input class="href" '
            f'type="text" aria-label="{name}, by reference" placeholder="or file:///… https://…">'
            "</div>"
        )
    options = port.schema.get("enum")
    if port.schema.get("type") == "boolean":
        options = [True, False]
    if isinstance(options, list):
        return _select(name, [_plain(each) for each in options], _default(port))
    if port.schema.get("type") in (*_NUMBERS, "string"):
        step = (
            ' type="number" step="any"' if port.schema.get("type") in _NUMBERS else ' type="text"'
        )
        return f'<input id="in-{name}"{step} value="{escape(_default(port))}">'
    return (
        f'<textarea id="in-{name}" rows="2" placeholder="JSON">{escape(_default(port))}</textarea>'
    )


def _select(name: str, options: list[str], default: str) -> str:
    listed = "".join(
        f"<option{' selected' if each == default else ''}>{escape(each)}</option>"
        for each in ("", *options)
    )
    return f'<select id="in-{name}">{listed}</select>'


def _default(port: Port) -> str:
    default = port.schema.get("default")
    return "" if default is None else _plain(default)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown_raster(contract: RasterContract) -> str:
    names, count = contract.band_names, contract.band_count
    bands = ", ".join(names) if names else f"{count} bands" if count else "any bands"
    parts = [f"bands {bands}" if names else bands]
    if contract.dtype:
        parts.append(" or ".join(contract.dtype))
    if contract.nodata is not None:
        parts.append(f"nodata {contract.nodata:g}")
    return "; ".join(parts)
