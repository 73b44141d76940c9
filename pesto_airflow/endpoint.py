"""A connection read into where a service is and how it is called; imports neither Airflow nor HTTP.

It reads what the connection's form writes, and what `airflow connections add --conn-uri` does.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pesto_runtime.errors import BadField, InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

TIMEOUT_S, RETRIES, PATIENCE_S = 300.0, 3, 60.0
_TRUTHS = {"": True, "true": True, "false": False}


class ConnectionFields(Protocol):
    """What is read of an Airflow connection."""

    host: str | None
    schema: str | None
    port: int | None
    login: str | None
    password: str | None

    @property
    def extra_dejson(self) -> dict[str, JsonValue]:
        """The extra fields."""


@dataclass(frozen=True)
class Endpoint:
    """Where a service is, and how it is called.

    Attributes:
        url: With or without `/api/v1`.
        headers: Credentials; they stay out of `repr`, and so out of logs.
        timeout_s: Seconds without a byte after which an answer is given up.
        retries: Times a call is sent again after no answer.
        patience_s: Seconds to wait in all while the service is busy.
        verify: Whether its certificate is verified; a path names the authorities to trust.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = TIMEOUT_S
    retries: int = RETRIES
    patience_s: float = PATIENCE_S
    verify: bool | str = True


def endpoint_of(connection: ConnectionFields, *, service: str | None = None) -> Endpoint:
    """Read a connection.

    Args:
        connection: Of type `pesto`.
        service: URL to call instead of the connection's own; all else holds for it too.

    Raises:
        InvalidInput: it names no service, or a field is not what it should be; all are told.
    """
    extra = connection.extra_dejson
    numbers = {name: _number(extra.get(name)) for name in ("timeout", "retries", "patience")}
    faults = [
        BadField(f"/extra/{name}", "must be a number", shortened(extra[name]))
        for name, number in numbers.items()
        if number is None and extra.get(name) not in (None, "")
    ]
    url = service or _url(connection)
    if url is None:
        faults.append(BadField("/host", "must be the service's URL, as http://cloud-mask:8000"))
    if faults or url is None:
        raise InvalidInput.of("connection of type pesto", faults)
    timeout_s, retries, patience_s = numbers.values()
    return Endpoint(
        url=url,
        headers=_credentials(connection),
        timeout_s=TIMEOUT_S if timeout_s is None else timeout_s,
        retries=RETRIES if retries is None else int(retries),
        patience_s=PATIENCE_S if patience_s is None else patience_s,
        verify=_verify(extra.get("verify")),
    )


def _url(connection: ConnectionFields) -> str | None:
    """A URL given as the host, or put together; a scheme given as the schema counts."""
    host = connection.host
    if not host:
        return None
    if "://" in host:
        return host
    port = f":{connection.port}" if connection.port else ""
    return f"{connection.schema or 'http'}://{host}{port}"


def _credentials(connection: ConnectionFields) -> dict[str, str]:
    if not connection.password:
        return {}
    if not connection.login:
        return {"Authorization": f"Bearer {connection.password}"}
    pair = f"{connection.login}:{connection.password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def _number(value: JsonValue) -> float | None:
    """A number, also as text: the form writes numbers, a connection URI texts."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _verify(value: JsonValue) -> bool | str:
    text = "" if value is None else str(value)
    return _TRUTHS.get(text.lower(), text)
