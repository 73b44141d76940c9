"""httpx set up for one service, and its exceptions turned into ours, once."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from pesto_runtime.client.steps import Reply
from pesto_runtime.errors import InvalidInput, PestoError, ServiceMisbehaved, Unreachable, shortened
from pesto_runtime.hrefs import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONNECT_S = 10.0
_PREFIX = "/api/v1"
_GONE = ("disconnected", "closed connection", "closed the connection")


def service_url(url: str) -> str:
    """The address of a service up to and with `/api/v1`.

    >>> service_url("http://127.0.0.1:8000/")
    'http://127.0.0.1:8000/api/v1'

    Raises:
        InvalidInput: not an http(s) URL.
    """
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise InvalidInput(f"{shortened(url)} is not the URL of a service, as http://host:8000")
    plain = f"{split.scheme}://{split.netloc}{split.path.rstrip('/')}"
    return plain if plain.endswith(_PREFIX) else plain + _PREFIX


def timeouts(timeout_s: float) -> httpx.Timeout:
    """Seconds without a byte after which an answer is given up; a free connection is waited for."""
    return httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S), pool=None)


def trusts_environment(where: str) -> bool:
    """Whether proxies of the environment are for this service; never for this machine."""
    return not is_loopback(urlsplit(where).hostname or "")


def verifying(where: str, verify: bool | str) -> bool | ssl.SSLContext:
    """How certificates are verified; loading ours takes 20 ms, plain http need not.

    Raises:
        InvalidInput: the file of authorities to trust cannot be read.
    """
    if not where.startswith("https://"):
        return False
    if isinstance(verify, bool):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        told = error.strerror or error
        raise InvalidInput(f"{shortened(verify)} holds no certificates to trust: {told}") from error


def reply_of(response: httpx.Response) -> Reply:
    """What came back."""
    headers: Mapping[str, str] = {name.lower(): text for name, text in response.headers.items()}
    return Reply(response.status_code, headers, response.content)


def translated(error: Exception, where: str, timeout_s: float) -> PestoError:
    """Turn an exception of httpx into the error that it is."""
    told = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectTimeout):
        return Unreachable(f"{where}: no connection within {min(timeout_s, _CONNECT_S):g} s")
    if isinstance(error, httpx.TimeoutException):
        return Unreachable(f"{where}: no answer within {timeout_s:g} s")
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return InvalidInput(f"{where}: {told}")
    if isinstance(error, httpx.DecodingError):
        return ServiceMisbehaved(f"{where} answered a body that cannot be decoded: {told}")
    if isinstance(error, httpx.RemoteProtocolError) and not any(each in told for each in _GONE):
        return ServiceMisbehaved(f"{where} answered something that is not HTTP: {shortened(told)}")
    return Unreachable(f"{where}: {told}; does the service run there?")
