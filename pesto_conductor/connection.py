"""Connect to a Conductor server: user, certificates and proxies, and why a connection fails.

Requests are sent by `client.py` and `taskqueue.py`, both through the transport of the SDK.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from pesto_runtime.errors import InvalidInput, PestoError, Unreachable

if TYPE_CHECKING:
    import httpx

VARIABLE = "CONDUCTOR_SERVER_URL"
_READ_S = 60.0
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def plain_url(url: str) -> str:
    """Return a URL without user and password, for requests, messages and logs.

    >>> plain_url("https://ops:p%40ss@host:8443/orch/api/")
    'https://host:8443/orch/api'
    """
    parts = urlsplit(url)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urlunsplit(plain).rstrip("/")


def authorization(url: str) -> str | None:
    """Return the header Authorization for the user of a URL; None for a URL without a user."""
    parts = urlsplit(url)
    if parts.username is None:
        return None
    # The SDK would send an escaped password without unescaping it.
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(user.encode()).decode()}"


def connection_pool(url: str) -> httpx.Client:
    """Return a connection pool with the credentials, certificates and proxies for a server.

    Raises:
        InvalidInput: the file of trusted authorities, or that of credentials, cannot be read.
    """
    import httpx

    from pesto_runtime.client.transport import http_options

    # The SDK's own pool tries four times to connect, and ignores proxies of the environment.
    return httpx.Client(**http_options(url, timeout_s=_READ_S, headers=None, verify=True))


def async_connection_pool(url: str) -> httpx.AsyncClient:
    """Return the same as `connection_pool` for an event loop; raises the same errors."""
    import httpx

    from pesto_runtime.client.transport import http_options

    return httpx.AsyncClient(**http_options(url, timeout_s=_READ_S, headers=None, verify=True))


def connection_error(url: str, reason: str) -> PestoError:
    """Return the error of a request without a response: its certificate, or its connection."""
    if _UNTRUSTED in reason:
        cause = reason.partition(f"{_UNTRUSTED}] ")[2] or reason
        return InvalidInput(
            f"the certificate of {url} is not trusted: {cause}; name the file of its authority "
            "in SSL_CERT_FILE, or as `ca` in the file of credentials"
        )
    return Unreachable(
        f"no Conductor responds at {url}: {reason}; start one with `pesto conductor server up`, "
        f"or set {VARIABLE} to the /api of one"
    )


def refusal(url: str, status: int, text: str) -> PestoError:
    """Return the error of a request that was refused for its credentials: HTTP 401 or 403."""
    return InvalidInput(
        f"{text} (HTTP {status}); set CONDUCTOR_AUTH_KEY and CONDUCTOR_AUTH_SECRET to an access "
        f"key of {url}, or write https://USER:PASSWORD@HOST/api to {VARIABLE} for a proxy"
    )


def not_conductor(url: str, found: str) -> PestoError:
    """Return the error for an address that responds, but is not the interface of a Conductor."""
    return InvalidInput(
        f"{url} is not the /api of a Conductor: {found}; check the path before /api in {VARIABLE}"
    )
