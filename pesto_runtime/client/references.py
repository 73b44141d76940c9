"""Which images a service is sent by reference, and which it has to be sent as pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pesto_runtime.contract import ImageReference
from pesto_runtime.hrefs import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.client.describing import Described

_REFERABLE = ("file", "http", "https", "s3", "gs", "az")


class References:
    """Which hrefs a service may be sent: not those of a scheme that it has refused."""

    def __init__(self, where: str, described: Described) -> None:
        """Start from where the service is: local files are for a service on this machine."""
        self._is_ours = not described.is_plain_pesto
        self._is_here = is_loopback(urlsplit(where).hostname or "")
        self._refused: set[str] = set()

    def admits(self, href: str) -> bool:
        """Whether to send this href rather than what it names."""
        scheme = urlsplit(href).scheme.lower()
        if not self._is_ours or scheme in self._refused or scheme not in _REFERABLE:
            return False
        return scheme != "file" or self._is_here

    def refuse(self, inputs: Mapping[str, object]) -> None:
        """Remember that the service refused the references of a call."""
        hrefs = (each.href for each in inputs.values() if isinstance(each, ImageReference))
        self._refused.update(urlsplit(href).scheme.lower() for href in hrefs)


def has_references(inputs: Mapping[str, object], references: References) -> bool:
    """Whether a call with these inputs would send an href."""
    return any(
        isinstance(value, ImageReference) and references.admits(value.href)
        for each in inputs.values()
        for value in (each if isinstance(each, (list, tuple)) else (each,))
    )
