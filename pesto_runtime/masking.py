"""Take credentials out of texts that people and logs see."""

from __future__ import annotations

import re

_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")
_USER_INFO = re.compile(r"(?<=://)[^/?#@]*@")
_QUERY_VALUE = re.compile(r"(?<=[?&])([^=&#]+=)[^&#),;\]}]+")


def masked(text: str) -> str:
    """Return a text whose URLs show no user information and no values of their queries.

    Both may be credentials: a password, a token, a signature.

    >>> masked("https://me:secret@example.org/a.tif?token=secret&v=1 is no raster")
    'https://…@example.org/a.tif?token=…&v=… is no raster'
    >>> masked("a.tif?b=c")
    'a.tif?b=c'
    """
    return _URL.sub(_masked_url, text) if "://" in text else text


def _masked_url(found: re.Match[str]) -> str:
    return _QUERY_VALUE.sub(r"\1…", _USER_INFO.sub("…@", found[0]))
