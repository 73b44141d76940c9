"""What a service says of itself, and which ways of sending images that opens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from pesto_runtime.client.steps import Patience, Request, exchange, json_of, misbehaved
from pesto_runtime.contract import Description, ImageReference
from pesto_runtime.errors import InvalidContract, PestoError, ServiceMisbehaved
from pesto_runtime.hrefs import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.client.steps import Steps


Health: TypeAlias = Literal["OK", "STARTING", "FAILED"]


@dataclass(frozen=True)
class Described:
    """A service's description, and what its headers add.

    Attributes:
        description: The contract, as the service has it, or overlaid.
        transports: Media types of `Accept-Post`; empty for a service that has none (PESTO 1.7.2).
        build: Identity of the code; else name and version.
        digest: Of the description as the service has it.
    """

    description: Description
    transports: tuple[str, ...]
    build: str
    digest: str

    @property
    def is_plain_pesto(self) -> bool:
        """Whether it takes base64 alone, one call at a time."""
        return not self.transports


def describing(where: str, patience: Patience) -> Steps[Described]:
    """Ask for the description.

    Raises:
        ServiceMisbehaved: the answer is not a description; names what is wrong with it.
        PestoError: what the service answered, or `Unreachable`.
    """
    reply = yield from exchange(
        Request("GET", "/describe", {"Accept": "application/json"}), where, patience
    )
    document = json_of(reply, where)
    try:
        description = Description.parse(document)
    except InvalidContract as error:
        raise ServiceMisbehaved(
            f"{where} answered something that is not a description: {error.detail}",
            fields=error.fields,
        ) from error
    accepted = reply.headers.get("accept-post", "")
    return Described(
        description=description,
        transports=tuple(each.strip().lower() for each in accepted.split(",") if each.strip()),
        build=reply.headers.get("x-pesto-build") or f"{description.name}@{description.version}",
        digest=description.digest,
    )


def asking_health(where: str) -> Steps[Health]:
    """Ask whether it is ready, once; a service that starts is no error.

    Raises:
        ServiceMisbehaved: the answer is no state.
        Unreachable: there is none.
    """
    outcome = yield Request("GET", "/health", {"Accept": "text/plain"})
    if isinstance(outcome, PestoError):
        raise outcome
    if outcome is None:
        raise TypeError(f"{where}: no reply was given")
    state = outcome.content[:20].decode("ascii", "replace").strip()
    if state not in ("OK", "STARTING", "FAILED"):
        raise misbehaved(outcome, where, "not a state of health")
    return cast("Health", state)


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
