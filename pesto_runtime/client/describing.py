"""Request the description of a service, and decide which image references it can be sent.

The steps do no I/O: `client.py` and `async_client.py` run them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from pesto_runtime.client.steps import (
    BUILD_HEADER,
    CREDENTIAL_STATUSES,
    DIGEST_HEADER,
    PLACELESS_HEADER,
    Patience,
    Request,
    credentials_refused,
    exchange,
    json_of,
    misbehaved,
)
from pesto_runtime.contract import Description, ImageReference
from pesto_runtime.credentials import credential_of
from pesto_runtime.errors import InvalidContract, PestoError, ServiceMisbehaved
from pesto_runtime.hrefs import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.client.steps import Steps


Health: TypeAlias = Literal["OK", "STARTING", "FAILED"]

_SCHEMES = ("file", "http", "https", "s3", "gs", "az")


@dataclass(frozen=True)
class Described:
    """A service's description, and the values of the response's headers.

    Attributes:
        description: The description of the service, or with an overlay.
        transports: Media types of `Accept-Post`; empty without this header (PESTO 1.7.2).
        build: Identity of the code, or else name and version.
        digest: Of the description without an overlay.
        states_code: Whether every response states build and digest; not in PESTO 1.7.2.
        is_placeless: Whether the code certainly does not receive the place of its pixels.
    """

    description: Description
    transports: tuple[str, ...]
    build: str
    digest: str
    states_code: bool = False
    is_placeless: bool = False

    @property
    def is_plain_pesto(self) -> bool:
        """Whether it accepts only base64, and one call at a time."""
        return not self.transports


def request_description(where: str, patience: Patience) -> Steps[Described]:
    """Request the description.

    Raises:
        ServiceMisbehaved: the response is not a description; names every fault.
        PestoError: the error that the service returned, or `Unreachable`.
    """
    reply = yield from exchange(
        Request("GET", "/describe", {"Accept": "application/json"}), where, patience
    )
    document = json_of(reply, where)
    try:
        description = Description.parse(document)
    except InvalidContract as error:
        raise ServiceMisbehaved(
            f"{where} returned a document that is not a description: {error.detail}",
            fields=error.fields,
        ) from error
    accepted = reply.headers.get("accept-post", "")
    return Described(
        description=description,
        transports=tuple(each.strip().lower() for each in accepted.split(",") if each.strip()),
        build=reply.headers.get(BUILD_HEADER) or f"{description.name}@{description.version}",
        digest=reply.headers.get(DIGEST_HEADER) or description.digest,
        states_code=BUILD_HEADER in reply.headers and DIGEST_HEADER in reply.headers,
        is_placeless=reply.headers.get(PLACELESS_HEADER) == "true",
    )


def request_health(where: str) -> Steps[Health]:
    """Request the state of a service, without a retry; a service that starts is not an error.

    Raises:
        CredentialsRefused: the service requires credentials, or refuses those of the request.
        ServiceMisbehaved: the response is not a state.
        Unreachable: the service does not respond.
    """
    outcome = yield Request("GET", "/health", {"Accept": "text/plain"})
    if isinstance(outcome, PestoError):
        raise outcome
    if outcome is None:
        raise TypeError(f"{where}: a request requires a reply or an error")
    if outcome.status in CREDENTIAL_STATUSES:
        raise credentials_refused(outcome, where)
    state = outcome.content[:20].decode("ascii", "replace").strip()
    if state not in ("OK", "STARTING", "FAILED"):
        raise misbehaved(outcome, where, "not a state of health")
    return cast("Health", state)


class References:
    """Decides which hrefs a service is sent: not those of a scheme that it has refused."""

    def __init__(self, where: str, described: Described) -> None:
        """Permit local files only for a service on this machine, and none for plain PESTO.

        Args:
            where: The service's address.
            described: Its description.
        """
        self._reads_references = not described.is_plain_pesto
        self._is_local = is_loopback(urlsplit(where).hostname or "")
        self._refused: set[str] = set()

    def admits(self, href: str) -> bool:
        """Whether to send this href instead of the pixels."""
        scheme = urlsplit(href).scheme.lower()
        if not self._reads_references or scheme in self._refused or scheme not in _SCHEMES:
            return False
        if credential_of(href) is not None:
            return False  # the service need not have the credentials of this caller
        return scheme != "file" or self._is_local

    def refuse(self, inputs: Mapping[str, object]) -> None:
        """Send no further hrefs of the schemes in a call that the service has refused."""
        hrefs = (each.href for each in inputs.values() if isinstance(each, ImageReference))
        self._refused.update(urlsplit(href).scheme.lower() for href in hrefs)


def has_references(inputs: Mapping[str, object], references: References) -> bool:
    """Whether a call with these inputs would send an href."""
    return any(
        isinstance(value, ImageReference) and references.admits(value.href)
        for each in inputs.values()
        for value in (each if isinstance(each, (list, tuple)) else (each,))
    )
