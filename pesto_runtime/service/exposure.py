"""Decide who can reach a service: callers, web pages of other origins, host names, TLS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from pesto_runtime.errors import BadRequest, InvalidInput, shortened
from pesto_runtime.hrefs import is_loopback
from pesto_runtime.service.header_fields import PREFIX_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

    from pesto_runtime.service.tokens import Callers

_PAIR = re.compile(r'([\w-]+)=(?:"([^"\\]*)"|([^;,\s]*))')
_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True)
class Exposure:
    """How a service is put on a network.

    Attributes:
        callers: Who may call it; None for anybody.
        origins: Origins of web pages that may call it from a browser (CORS); `*` for all.
        hosts: Host names that requests may have; none for any, `*.example.org` for all below one.
        certificate: File of the TLS certificate, PEM; None for plain HTTP.
        private_key: File of its key.
        is_open: Whether anybody may call it beyond loopback.
        public_url: Its address as others see it, for links; that of the request if it is empty.
        proxies: Addresses of proxies whose `Forwarded` and `X-Forwarded-…` hold.
    """

    callers: Callers | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    certificate: Path | None = None
    private_key: Path | None = None
    is_open: bool = False
    public_url: str = ""
    proxies: tuple[str, ...] = ()

    def require_safe(self, host: str) -> None:
        """Do nothing if a service with this exposure may listen on an address.

        Raises:
            InvalidInput: anybody on the network could call it; or the files of TLS are not both
                there.
        """
        if not (self.callers or self.is_open or is_loopback(host)):
            raise InvalidInput(
                f"--host {host}: anybody who reaches this address could call the service and read "
                "the results of others; give --token-file FILE, or --insecure to allow it"
            )
        if self.public_url and not self.public_url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"--public-url {self.public_url} is no URL, as https://eo.example.org"
            )
        for name, path in (("--tls-cert", self.certificate), ("--tls-key", self.private_key)):
            if path is not None and not path.is_file():
                raise InvalidInput(f"{name} {path} is no file")
        if (self.certificate is None) != (self.private_key is None):
            raise InvalidInput("--tls-cert and --tls-key belong together")

    def is_proxy(self, address: str) -> bool:
        """Return whether an address is that of a trusted proxy."""
        names = [*self.proxies]
        return address in ProxyHeadersMiddleware(_no_app, trusted_hosts=names).trusted_hosts

    def apply(self, app: FastAPI) -> None:
        """Add the middleware for web pages and host names."""
        if self.origins:
            from starlette.middleware.cors import CORSMiddleware

            app.add_middleware(
                CORSMiddleware, allow_origins=[*self.origins], allow_methods=["*"],
                allow_headers=["*"], expose_headers=["*"],
            )  # fmt: skip
        if self.hosts:
            app.add_middleware(KnownHosts, names=self.hosts)
        if self.proxies:
            app.add_middleware(TrustedProxies, proxies=self.proxies)


async def _no_app(*_: object) -> None:
    """Serve nothing."""


class TrustedProxies:
    """ASGI middleware: the address that callers used, as a trusted proxy states it.

    It reads `Forwarded` (RFC 7239), or else `X-Forwarded-Host` and `-Prefix`; uvicorn reads `-For`
    and `-Proto`. Others may send these fields too, so they do not hold without a trusted peer.
    """

    def __init__(self, app: ASGIApp, *, proxies: Sequence[str]) -> None:
        """Wrap an application.

        Args:
            app: Serves the requests.
            proxies: Addresses or networks of proxies; `*` for all.
        """
        self._app = ProxyHeadersMiddleware(app, trusted_hosts=[*proxies])  # type: ignore[arg-type]  # ASGI by uvicorn's names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        peer = (scope.get("client") or ("",))[0]
        if scope["type"] == "http" and peer in self._app.trusted_hosts:
            scope = {**scope, **_forwarded(scope["headers"])}
        await self._app(scope, receive, send)  # type: ignore[arg-type]  # as above


def _forwarded(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, object]:
    """Return headers, and the prefix of paths, with what the last proxy states."""
    found = {name: value.decode("latin-1") for name, value in headers}
    last = _PAIR.findall(found.get(b"forwarded", "").rpartition(",")[2])
    stated = {name.lower(): quoted or bare for name, quoted, bare in last}
    host = stated.get("host") or found.get(b"x-forwarded-host", "").rpartition(",")[2].strip()
    protocol = stated.get("proto")
    replaced = {
        b"host": host,
        b"x-forwarded-proto": protocol,
        b"x-forwarded-for": stated.get("for"),
    }
    own = {name: text.encode("latin-1") for name, text in replaced.items() if text}
    kept = [(name, value) for name, value in headers if name not in own]
    prefix = found.get(b"x-forwarded-prefix", "").rstrip("/")
    return {
        "headers": [*kept, *own.items()],
        PREFIX_KEY: prefix if _PATH.fullmatch(prefix) else "",
    }


class KnownHosts:
    """ASGI middleware that refuses requests to the service by another name.

    Starlette has one, whose refusal does not say what was refused and how to allow it.
    """

    def __init__(self, app: ASGIApp, *, names: Sequence[str]) -> None:
        """Wrap an application; `*.example.org` is every name below one, `*` every name."""
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or self._knows(name := _host_name(scope)):
            await self._app(scope, receive, send)
            return
        from pesto_runtime.service.problems import problem_response  # loads FastAPI, as does an app

        refusal = BadRequest(
            f"this service is not called {shortened(name)}; if it is, start it with --allowed-host "
            "and that name"
        )
        await problem_response(refusal)(scope, receive, send)

    def _knows(self, name: str) -> bool:
        return any(fnmatchcase(name, each.lower()) for each in self._names)


def _host_name(scope: Scope) -> str:
    host = next((value for key, value in scope["headers"] if key == b"host"), b"")
    try:
        return urlsplit(f"//{host.decode('latin-1')}").hostname or ""
    except ValueError:
        return ""
