"""Who calls: the headers of a request, and whether it comes from this machine."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pesto_runtime.hrefs import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Scope

_KEPT = "pesto.headers"
_CARRIED = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip"})


def headers_of(scope: Scope) -> Mapping[str, str]:
    """The headers of a request by their names in lower case, the first of each; read once."""
    found: Mapping[str, str] | None = scope.get(_KEPT)
    if found is None:
        rows = reversed(scope["headers"])
        found = {name.decode("latin-1"): value.decode("latin-1") for name, value in rows}
        scope[_KEPT] = found
    return found


def is_from_here(headers: Mapping[str, str]) -> bool:
    """Whether the caller is on this machine, as its gate takes for granted.

    A proxy on this machine, or a browser that runs somebody's page (which may even have pointed
    its own name here), carries requests of others: local files are not for them.
    """
    is_carried = not _CARRIED.isdisjoint(headers)
    return not is_carried and _are_loopback(headers.get("host"), headers.get("origin"))


@lru_cache(maxsize=256)
def _are_loopback(host: str | None, origin: str | None) -> bool:
    """Whether a service that is called so, by a page from there, is called on this machine."""
    urls = [f"//{host or ''}", *([] if origin is None else [origin])]
    return all(is_loopback(_host_name(url)) for url in urls)


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
