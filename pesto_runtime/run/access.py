"""Open clients with the settings that an engine has for a service, as Airflow has in connections.

Without any, a client uses the file of credentials. No plan has them: each task sets its own.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pesto_runtime.errors import CredentialsRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pesto_runtime.client.client import Client
    from pesto_runtime.client.describing import Described

REPLICA_OUTAGE_S = 0.5
"""Seconds to wait for one of several replicas that is away, before the others are used."""

_given: dict[str, ServiceAccess] = {}
"""URL of a service up to `/api/v1` -> its settings."""


@dataclass(frozen=True)
class ServiceAccess:
    """How one service is called.

    Attributes:
        source: Where the settings are from, for messages.
        headers: Of every request: credentials; not part of `repr`, and so of logs.
        timeout_s: Seconds without a byte after which a request fails.
        retries: Retries of a request after no response, or after a retryable error.
        patience_s: Total seconds to wait for a busy service, per request.
        verify: Whether its certificate is verified, or the file of trusted authorities.
    """

    source: str
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float
    retries: int
    patience_s: float
    verify: bool | str


@contextmanager
def service_access(found: Mapping[str, ServiceAccess]) -> Iterator[None]:
    """Call these services with these settings in the block, in all its threads.

    Args:
        found: URL of a service, with or without `/api/v1` -> its settings.

    Raises:
        CredentialsRefused: as the block does; with the source of the credentials.
    """
    from pesto_runtime.client.transport import service_url

    outer = {**_given}
    _given.update({service_url(url): each for url, each in found.items()})
    try:
        yield
    except CredentialsRefused as error:
        url = max((each for each in _given if each in error.detail), key=len, default=None)
        if url is None:
            raise
        raise CredentialsRefused(f"{error.detail}; here in {_given[url].source}") from None
    finally:
        _given.clear()
        _given.update(outer)


def open_client(
    url: str,
    *,
    described: Described | None = None,
    outage_s: float = 0.0,
    pinned: bool = False,
) -> Client:
    """Open a client of a service, with the settings of `service_access`, if there are any.

    Args:
        url: The service's URL, with or without `/api/v1`.
        described: Its description, with an overlay if there is one; requested if None.
        outage_s: Seconds to wait for a service that restarts or does not respond, per request.
        pinned: Whether a result must state the build and digest of `described`.

    Raises:
        InvalidInput: `url` is not an http(s) URL, or a file of the settings cannot be read.
    """
    from pesto_runtime.client.client import Client
    from pesto_runtime.client.transport import service_url

    found = _given.get(service_url(url))
    if found is None:
        return Client(url, described=described, outage_s=outage_s, pinned=pinned)
    return Client(
        url, described=described, outage_s=outage_s, pinned=pinned, headers=found.headers,
        timeout_s=found.timeout_s, retries=found.retries, patience_s=found.patience_s,
        verify=found.verify,
    )  # fmt: skip
