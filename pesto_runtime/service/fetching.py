"""Read rasters of web servers for callers of a service: each hop and each address is admitted.

GDAL would follow redirects, and connect to whatever DNS answers. So the requests are made here, and
GDAL reads through an opener. Rasters of buckets are read by GDAL itself: their servers are settings
of the service, not words of a caller.
"""

from __future__ import annotations

import io
import socket
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from errno import ENOENT
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from pesto_runtime.credentials import object_authorization
from pesto_runtime.errors import (
    HrefRefused,
    PestoError,
    RasterUnreadable,
    SceneChanged,
    TooLarge,
    Unreachable,
    shortened,
)
from pesto_runtime.raster.opening import OPENED_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pesto_runtime.hrefs import Gate

_PROBED_NAME = "test"  # that rasterio calls an opener with, to see whether it works
_PART_BYTES = 64 << 10
_KEPT_PARTS = 64
_SAVED_BYTES = 4 << 20
_MOST_HOPS = 5
_ATTEMPTS, _FIRST_PAUSE_S = 3, 0.2
_TIMEOUTS = {"connect": 5.0, "read": 30.0, "write": 30.0, "pool": 30.0}
_RESPONSE_S, _LEAST_RATE = 30.0, 16 << 10  # a response takes no longer than 30 s + 1 s per 16 KiB
_REDIRECTS = (301, 302, 303, 307, 308)
_DENIED = (401, 403)
_FAILURES = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)
_AWAY = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class _Response:
    """A response whose body is complete."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        total = self.headers.get("content-range", "").rpartition("/")[2]
        return int(total) if total.isdecimal() else len(self.body)

    @property
    def version(self) -> str:
        """What the server states of the version of the file, as in identities of scenes."""
        if etag := self.headers.get("etag"):
            return etag
        try:
            return parsedate_to_datetime(self.headers["last-modified"]).isoformat()
        except (KeyError, ValueError):
            return ""


class WebFile:
    """A file of a web server, read in parts, or whole if its server knows no parts.

    It is used by one thread at a time.

    Attributes:
        failure: What went wrong while GDAL read, which takes no exceptions; None if nothing did.
        identity: Size and version that the server states, as `identity_of` returns; empty if it
            states no version.
    """

    def __init__(self, href: str, gate: Gate, *, most_bytes: int) -> None:
        """Request the first part.

        Args:
            href: An http(s) URL that the gate has admitted.
            gate: Admits redirects and addresses.
            most_bytes: Of a file that can only be read whole.

        Raises:
            HrefRefused: a redirect or an address is not admitted.
            RasterUnreadable: there is no such file, or its server refuses it.
            TooLarge: it has more bytes, and its server knows no parts.
            Unreachable: its server is away, or too slow.
        """
        self._href, self._shown, self._gate = href, shortened(href), gate
        self._most_bytes = most_bytes
        self.failure: PestoError | None = None
        first = self._requested(0, _PART_BYTES)
        self.size, self._version = first.size, first.version
        self.identity = f"{self.size}-{self._version}" if self._version else ""
        self._parts = {0: first.body[:_PART_BYTES]}
        self._whole = first.body if first.status == HTTPStatus.OK else None

    def open(self, path: str, mode: str = "rb") -> io.RawIOBase:  # noqa: ARG002  # rasterio's names
        """Return the file as one of Python's, from its start; rasterio's `opener`.

        Raises:
            FileNotFoundError: it is one of the files that GDAL looks for beside a raster.
        """
        if path not in (OPENED_NAME, _PROBED_NAME):
            raise FileNotFoundError(ENOENT, "not read", path)
        return _Opened(self)

    def part(self, begin: int, count: int) -> bytes:
        """Return bytes from a position; fewer at the end, and none after a failure."""
        if self._whole is not None:
            return self._whole[begin : begin + count]
        end = min(begin + count, self.size)
        if end <= begin or self.failure is not None:
            return b""
        first, last = begin // _PART_BYTES, (end - 1) // _PART_BYTES
        try:
            self._require(range(first, last + 1))
        except PestoError as error:
            self.failure = error
            return b""
        together = b"".join(self._parts[number] for number in range(first, last + 1))
        for number in [*self._parts][:-_KEPT_PARTS]:
            del self._parts[number]
        return together[begin - first * _PART_BYTES : end - first * _PART_BYTES]

    def _require(self, numbers: range) -> None:
        """Have these parts, requesting those that are missing in one range."""
        missing = [number for number in numbers if number not in self._parts]
        if not missing:
            return
        begin, end = missing[0] * _PART_BYTES, (missing[-1] + 1) * _PART_BYTES
        response = self._requested(begin, end)
        if (response.size, response.version) != (self.size, self._version):
            raise SceneChanged(f"{self._shown} was replaced while it was read; send the call again")
        body = response.body
        if response.status != HTTPStatus.PARTIAL_CONTENT or len(body) != (
            min(end, self.size) - begin
        ):
            raise Unreachable(f"{self._shown}: its server sent another part than the requested one")
        for number in range(missing[0], missing[-1] + 1):
            at = number * _PART_BYTES - begin
            self._parts[number] = body[at : at + _PART_BYTES]

    def _requested(self, begin: int, end: int) -> _Response:
        """Return a part, or the whole file if the server sends that."""
        last: PestoError | None = None
        for _ in _attempts():
            try:
                response = self._followed(begin, end)
            except _FAILURES as error:
                reason = str(error) or type(error).__name__
                last = Unreachable(f"{self._shown}: its server is away: {reason}")
                continue
            if response.status not in _AWAY:
                return self._accepted(response)
            last = Unreachable(f"{self._shown}: its server responds {response.status}")
        raise last or Unreachable(self._shown)

    def _accepted(self, response: _Response) -> _Response:
        status = response.status
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return response
        if status in _DENIED:
            raise RasterUnreadable(
                f"{self._shown}: permission denied ({status}): check the credentials "
                "(docs/how-to/credentials.md)"
            )
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise RasterUnreadable(f"{self._shown} is empty (0 bytes)")
        missing = status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
        reason = "does not exist" if missing else f"is not sent: its server responds {status}"
        raise RasterUnreadable(f"{self._shown} {reason}")

    def _followed(self, begin: int, end: int) -> _Response:
        """Request a part, at the target of redirects if they are followed and admitted."""
        href = self._href
        for _ in range(_MOST_HOPS):
            response = self._once(href, begin, end)
            target = response.headers.get("location")
            if response.status not in _REDIRECTS or target is None:
                return response
            if not self._gate.redirects:
                raise HrefRefused(
                    f"{self._shown} is redirected, and redirects are not followed; give the href "
                    "where it is, or start the service with --follow-redirects"
                )
            href = self._gate.admit_read(urljoin(href, target))
        raise HrefRefused(f"{self._shown} is redirected more than {_MOST_HOPS} times")

    def _once(self, href: str, begin: int, end: int) -> _Response:
        url = _plain_url(href)
        headers = {"Host": url.netloc.decode(), "Range": f"bytes={begin}-{end - 1}",
                   "Accept-Encoding": "identity", "User-Agent": "pesto-workflows"}  # fmt: skip
        if authorization := object_authorization(href):
            headers["Authorization"] = authorization
        pool = _pool(self._gate, _proxy_of(url))
        with pool.stream(
            "GET", _target(url), headers=[*headers.items()], extensions={"timeout": _TIMEOUTS}
        ) as response:
            found = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
            is_part = response.status == HTTPStatus.PARTIAL_CONTENT
            most = end - begin if is_part else self._most_bytes
            if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                return _Response(response.status, found, b"")
            return _Response(response.status, found, self._body(response.iter_stream(), most))

    def _body(self, pieces: Iterable[bytes], most: int) -> bytes:
        deadline = time.monotonic() + _RESPONSE_S
        body = bytearray()
        for piece in pieces:
            body += piece
            if len(body) > most:
                raise TooLarge(
                    f"{self._shown} has more than {most} bytes, and its server does not send parts "
                    "of it (range requests, RFC 9110 section 14); put it on one that does"
                )
            if time.monotonic() > deadline + len(body) / _LEAST_RATE:
                raise Unreachable(f"{self._shown}: its server sends too slowly")
        return bytes(body)


def save(href: str, gate: Gate, file: Path, *, most_bytes: int) -> None:
    """Write a file of a web server into a local one.

    Raises:
        TooLarge: it has more bytes.
        PestoError: as of `WebFile`.
    """
    source = WebFile(href, gate, most_bytes=most_bytes)
    if source.size > most_bytes:
        raise TooLarge(
            f"{shortened(href)} has {source.size} bytes, and at most {most_bytes} are fetched from "
            "a web server; put it into a bucket, which is read in parts"
        )
    with file.open("wb") as opened:
        for begin in range(0, source.size, _SAVED_BYTES):
            opened.write(source.part(begin, _SAVED_BYTES))
            if source.failure is not None:
                raise source.failure


def _attempts() -> Iterator[None]:
    """Yield for each attempt, with a longer pause before each further one."""
    for number in range(_ATTEMPTS):
        if number:
            time.sleep(_FIRST_PAUSE_S * 4 ** (number - 1))
        yield


def post(href: str, gate: Gate, body: bytes, media_type: str) -> None:
    """Send a document to an address that the gate admits; redirects are not followed.

    Raises:
        HrefRefused: the gate does not admit the address.
        Unreachable: it does not answer, or not with 2xx.
    """
    url = _plain_url(gate.admit_callback(href))
    # Without credentials of its origin: a caller must not act there with those of the service.
    headers = {"Host": url.netloc.decode(), "Content-Type": media_type,
               "Content-Length": str(len(body)), "User-Agent": "pesto-workflows"}  # fmt: skip
    reason = ""
    for _ in _attempts():
        try:
            status = _pool(gate, _proxy_of(url)).request(
                "POST", _target(url), headers=[*headers.items()], content=body,
                extensions={"timeout": _TIMEOUTS},
            ).status  # fmt: skip
        except _FAILURES as error:
            reason = str(error) or type(error).__name__
            continue
        if 200 <= status < 300:
            return
        reason = f"it responds {status}"
    raise Unreachable(f"{shortened(href)}: {reason}")


class _Opened(io.RawIOBase):
    """One open file of a `WebFile`, with a position of its own."""

    def __init__(self, file: WebFile) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        count = max(0, self._file.size - self._position) if size < 0 else size
        found = self._file.part(self._position, count)
        self._position += len(found)
        return found


class _AdmittedNetwork(httpcore.NetworkBackend):
    """Opens connections to addresses that the gate admits, and to no other."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self._network = gate, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host}: {error.strerror or error}") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for address in addresses:
            self._gate.admit_address(host, address)
        reasons = []
        for address in addresses:
            try:
                # The address that was admitted: the name could have another one by now.
                return self._network.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                reasons.append(str(error))
        raise httpcore.ConnectError(f"{host}: {', '.join(reasons)}")


@lru_cache(maxsize=8)
def _pool(gate: Gate, proxy: str | None) -> httpcore.ConnectionPool:
    """Return the connections of this process through a gate, or to the proxy of its user."""
    context = httpx.create_ssl_context()
    if proxy is not None:  # it resolves the names, and is trusted to
        return httpcore.HTTPProxy(proxy, ssl_context=context)
    return httpcore.ConnectionPool(ssl_context=context, network_backend=_AdmittedNetwork(gate))


def _target(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def _proxy_of(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for a URL (`HTTPS_PROXY`, `NO_PROXY`)."""
    return None if proxy_bypass(url.host) else getproxies().get(url.scheme)


def _plain_url(href: str) -> httpx.URL:
    """Parse an admitted href.

    Raises:
        HrefRefused: it is not http(s), or the client finds another host in it than the gate did.
    """
    split = urlsplit(href)
    try:
        url = httpx.URL(href)
    except httpx.InvalidURL as error:
        raise HrefRefused(f"{shortened(href)} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or url.host != split.hostname or url.userinfo:
        raise HrefRefused(f"{shortened(href)} is not written plainly: http(s)://host/path")
    return url
