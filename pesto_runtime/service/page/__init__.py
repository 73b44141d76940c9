"""Write the page at `/docs`: inputs and outputs of a process, and a form to try it.

It is one HTML document. Its content security policy lets the browser fetch from this service only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from pesto_runtime.service.http import PREFIX

if TYPE_CHECKING:
    from pesto_runtime.contract import Description, Port, RasterContract


_HIDDEN = ("x-raster", "x-vector", "title", "description", "default")
_NUMBERS = ("number", "integer")
_ENDPOINTS = (
    ("GET", "health", "OK when ready, even if busy"),
    ("GET", "describe", "the contract of the process"),
    ("GET", "version", "versions of the process and of the service"),
    ("GET", "openapi", "this API as OpenAPI"),
    ("POST", "process", "computes the outputs; a job with <code>Prefer: respond-async</code>"),
    ("POST", "jobs", "the same"),
    ("GET", "jobs", "links of all jobs"),
    ("GET", "jobs/ID", "a job: state, progress, error"),
    ("GET", "jobs/ID/log", "the last lines of the algorithm's output"),
    ("GET", "jobs/ID/results", "links of its outputs"),
    ("DELETE", "jobs/ID", "dismisses a job, and stops it if it runs"),
    ("GET", "metrics", "metrics for Prometheus"),
)


@dataclass(frozen=True)
class Page:
    """The page of one service.

    Attributes:
        content: The HTML document.
        policy: The value of the header Content-Security-Policy.
    """

    content: bytes
    policy: str

    @classmethod
    def of(cls, description: Description) -> Page:
        """Write the page of a process."""
        script, style = _resource("tiff.js") + _resource("page.js"), _resource("page.css")
        policy = (
            f"default-src 'none'; script-src {_hash_of(script)}; style-src {_hash_of(style)}; "
            "connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        title = f"{description.name} {description.version}"
        document = (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
            f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
            f"{_header(description)}{_form(description)}{_ports('Inputs', description.inputs)}"
            f"{_ports('Outputs', description.outputs)}{_command(description)}{_endpoints()}"
            f"</main><script>{script}</script></body></html>\n"
        )
        return cls(document.encode(), policy)


def _resource(name: str) -> str:
    return files("pesto_runtime.service.page").joinpath(name).read_text(encoding="utf-8")


def _hash_of(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _header(description: Description) -> str:
    known = description.known
    paragraphs = (each for each in re.split(r"\n\s*\n", known.description or "") if each.strip())
    text = "".join(f"<p>{escape(' '.join(each.split()))}</p>" for each in paragraphs)
    title = known.title or description.name
    return (
        f"<header><h1>{escape(title)} <small>{escape(description.version)}</small></h1>"
        f'<p id="state" role="status">…</p>{text}</header>'
    )


def _form(description: Description) -> str:
    fields = "".join(field_of(port) for port in description.inputs)
    return (
        f'<section><h2>Try it</h2><form id="call">{fields}<p class="row">'
        '<button id="run">Run</button> <button type="button" id="stop" hidden>Stop</button> '
        '<label>Answer <select id="answer"><option value="preview">as '
        'pictures and values</option><option value="json">JSON, as PESTO’s clients get it</option>'
        '</select></label> <output id="spent"></output></p></form>'
        '<div id="answers" aria-live="polite"></div></section>'
    )


def _ports(heading: str, ports: tuple[Port, ...]) -> str:
    is_output = heading == "Outputs"
    rows = "".join(
        f"<tr{_facts(port)}><th scope=row><code>{escape(port.name)}</code></th>"
        f"<td>{escape(port.kind)}{'' if port.required or is_output else ', optional'}</td>"
        f"<td>{shown_schema(port)}</td></tr>"
        for port in ports
    )
    body = rows or "<tr><td>none</td></tr>"
    return f"<section><h2>{heading}</h2><table><tbody>{body}</tbody></table></section>"


def _facts(port: Port) -> str:
    """Return the attributes by which the script draws this output: nodata and classes."""
    facts = ""
    if port.raster is not None and port.raster.nodata is not None:
        facts += f' data-nodata="{port.raster.nodata:g}"'
    if port.raster is not None and port.raster.classes:
        classes = [each.model_dump(exclude_none=True) for each in port.raster.classes]
        facts += f' data-classes="{escape(json.dumps(classes))}"'
    return f' data-port="{escape(port.name)}"{facts}' if facts else ""


def _command(description: Description) -> str:
    kinds = [port.kind for port in description.outputs]
    has_image = bool({"image", "images"} & {*kinds})
    accepts = "image/tiff" if kinds == ["image"] else "multipart/form-data"
    parts = [f"curl -s BASE{PREFIX}/process"]
    parts += [f"-H 'Accept: {accepts}'"] if has_image else []
    for port in description.inputs:
        if port.kind in ("image", "images"):
            parts.append(f"-F '{port.name}=@{port.name}.tif;type=image/tiff'")
        elif port.required or port.has_default:
            value = port.schema.get("default", "…")
            text = value if isinstance(value, str) else json.dumps(value)
            parts.append(f"-F {_quoted(f'{port.name}={text}')}")
    if has_image:
        parts.append(
            f"-o {description.outputs[0].name}.tif" if kinds == ["image"] else "-o all.form"
        )
    command = escape(" \\\n  ".join(parts))
    return (
        '<section><h2>From a shell</h2><pre id="command">'
        f"{command}</pre><p>One part per input, named as it; <code>-H 'Accept: image/tiff'</code> "
        "for one image alone, <code>-H 'Accept: multipart/form-data'</code> for a part per output."
        "</p></section>"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _endpoints() -> str:
    rows = "".join(
        f"<tr><td>{method}</td><th scope=row>{_path(method, path)}</th><td>{text}</td></tr>"
        for method, path, text in _ENDPOINTS
    )
    table = f'<table class="endpoints"><tbody>{rows}</tbody></table>'
    return f"<section><h2>Endpoints</h2>{table}</section>"


def _path(method: str, path: str) -> str:
    """Return the path of an endpoint; a link if a browser can open it."""
    shown = f"<code>{PREFIX}/{path}</code>"
    is_open = method == "GET" and "ID" not in path
    return f'<a href="{PREFIX[1:]}/{path}">{shown}</a>' if is_open else shown


def field_of(port: Port) -> str:
    """Return one labelled field; the script sends its value according to `data-kind`."""
    name = escape(port.name)
    star = ' <b title="required">*</b>' if port.required else ""
    notes = [str(port.schema.get("description") or "")]
    if port.raster is not None:
        notes.append(_shown_raster(port.raster))
    note = "".join(f"<small>{escape(each)}</small>" for each in notes if each)
    return (
        f'<div class="field" data-name="{name}" data-kind="{_kind(port)}">'
        f'<label for="in-{name}">{name}{star}</label><div>{_control(port, name)}{note}'
        '<p class="fault" hidden></p></div></div>'
    )


def shown_schema(port: Port) -> str:
    """Return the schema of a port as one line of HTML."""
    parts = []
    if text := port.schema.get("description"):
        parts.append(escape(str(text)))
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
        several += " required" if port.required else ""
        return (
            f'<div class="image"><input type="file" id="in-{name}"{several}> <input class="href" '
            f'type="text" aria-label="{name}, by reference" placeholder="or file:///… https://…">'
            "</div>"
        )
    options = port.schema.get("enum")
    if port.schema.get("type") == "boolean":
        options = [True, False]
    required = " required" if port.required else ""
    if isinstance(options, list):
        return _select(name, [_plain(each) for each in options], _default(port), required)
    if port.schema.get("type") in (*_NUMBERS, "string"):
        step = (
            ' type="number" step="any"' if port.schema.get("type") in _NUMBERS else ' type="text"'
        )
        return f'<input id="in-{name}"{step}{required} value="{escape(_default(port))}">'
    return (
        f'<textarea id="in-{name}" rows="2" placeholder="JSON"{required}>'
        f"{escape(_default(port))}</textarea>"
    )


def _select(name: str, options: list[str], default: str, required: str) -> str:
    listed = "".join(
        f"<option{' selected' if each == default else ''}>{escape(each)}</option>"
        for each in ("", *options)
    )
    return f'<select id="in-{name}"{required}>{listed}</select>'


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
