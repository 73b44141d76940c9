"""Which Conductor the commands mean: the one asked for, else the environment's, else ours."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from pesto_conductor.server import find
from pesto_runtime.errors import InvalidInput, Unreachable

VARIABLE = "CONDUCTOR_SERVER_URL"


def configured_url(option: str | None = None) -> str | None:
    """URL of a server that somebody named: by an option, else in the environment.

    Raises:
        InvalidInput: it is not an HTTP URL.
    """
    url = option or os.environ.get(VARIABLE)
    return None if url is None else _api(url)


def conductor_url(option: str | None = None) -> str:
    """URL of the server to talk to.

    Raises:
        InvalidInput: what was named is not an HTTP URL.
        Unreachable: none was named, and none of ours runs.
    """
    url = configured_url(option)
    if url is not None:
        return url
    ours = find()
    if ours is None:
        raise Unreachable(
            f"no Conductor runs here and {VARIABLE} is not set; start one by "
            "`pesto conductor server up`, or set it to the /api of one that runs"
        )
    return ours.url


def _api(url: str) -> str:
    """Complete a bare `http://HOST:PORT`: the interface is below /api.

    >>> _api("http://127.0.0.1:8080")
    'http://127.0.0.1:8080/api'
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInput(f"{url!r} is not the URL of a Conductor, as http://HOST:PORT/api")
    return url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/api"
