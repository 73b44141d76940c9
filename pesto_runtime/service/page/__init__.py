"""The page at `/docs`: what a process takes and gives, and a form to try it.

One HTML document that fetches nothing but this service: its policy forbids the browser to.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from pesto_runtime.service.documents import PREFIX
from pesto_runtime.service.page.fields import field_of, shown_schema

if TYPE_CHECKING:
    from pesto_runtime.contract import Description, Port

_ENDPOINTS = (
    ("GET", "health", "OK when ready, busy or not"),
    ("GET", "describe", "the contract of the process"),
    ("GET", "version", "what is served, and by what"),
    ("GET", "openapi", "this API as OpenAPI"),
    ("GET", "jobs", "the jobs that are kept"),
    ("GET", "metrics", "figures for Prometheus"),
)


@dataclass(frozen=True)
class Page:
    """The page of one service, written once.

    Attributes:
        content: The document.
        policy: Its content security policy; the header that must go with it.
    """

    content: bytes
    policy: str

    @classmethod
    def of(cls, description: Description) -> Page:
        """Write the page of a process."""
        script, style = _resource("page.js"), _resource("page.css")
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
    told = f"<p>{escape(known.description)}</p>" if known.description else ""
    title = known.title or description.name
    return (
        f"<header><h1>{escape(title)} <small>{escape(description.version)}</small></h1>"
        f'<p id="state" role="status">…</p>{told}</header>'
    )


def _form(description: Description) -> str:
    fields = "".join(field_of(port) for port in description.inputs)
    return (
        f'<section><h2>Try it</h2><form id="call" novalidate>{fields}<p class="row">'
        '<button id="run">Run</button> <button type="button" id="stop" hidden>Stop</button> '
        '<label>Answer <select id="answer"><option value="preview">as '
        'pictures and values</option><option value="json">JSON, as PESTO’s clients get it</option>'
        '</select></label> <output id="spent"></output></p></form>'
        '<div id="answers" aria-live="polite"></div></section>'
    )


def _ports(heading: str, ports: tuple[Port, ...]) -> str:
    is_output = heading == "Outputs"
    rows = "".join(
        f"<tr{_nodata(port)}><th scope=row><code>{escape(port.name)}</code></th>"
        f"<td>{escape(port.kind)}{'' if port.required or is_output else ', optional'}</td>"
        f"<td>{shown_schema(port)}</td></tr>"
        for port in ports
    )
    body = rows or "<tr><td>none</td></tr>"
    return f"<section><h2>{heading}</h2><table><tbody>{body}</tbody></table></section>"


def _nodata(port: Port) -> str:
    """What the script leaves out of a picture of this output."""
    if port.raster is None or port.raster.nodata is None:
        return ""
    return f' data-port="{escape(port.name)}" data-nodata="{port.raster.nodata:g}"'


def _command(description: Description) -> str:
    parts = [f"curl -s BASE{PREFIX}/process"]
    for port in description.inputs:
        if port.kind in ("image", "images"):
            parts.append(f"-F '{port.name}=@{port.name}.tif;type=image/tiff'")
        elif port.required or port.has_default:
            value = port.schema.get("default", "…")
            text = value if isinstance(value, str) else json.dumps(value)
            parts.append(f"-F {_quoted(f'{port.name}={text}')}")
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
        f'<tr><td>{method}</td><th scope=row><a href="{PREFIX[1:]}/{path}"><code>{PREFIX}/{path}'
        f"</code></a></th><td>{told}</td></tr>"
        for method, path, told in _ENDPOINTS
    )
    return f"<section><h2>Endpoints</h2><table><tbody>{rows}</tbody></table></section>"
