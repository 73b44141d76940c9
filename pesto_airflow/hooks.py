"""Open clients of a service, selected by an Airflow connection or by its URL.

Errors stay those of `pesto_runtime.errors`; the operators convert them to Airflow's.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypedDict, runtime_checkable
from urllib.parse import urlsplit

from airflow.sdk import BaseHook, BaseOperatorLink

from pesto_runtime.errors import BadField, InvalidInput, PestoError, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey
    from pydantic import JsonValue

    from pesto_runtime.client.async_client import AsyncClient
    from pesto_runtime.client.client import Client
    from pesto_runtime.client.describing import Described, Health
    from pesto_runtime.contract import Description, Job


TIMEOUT_S, RETRIES, PATIENCE_S = 300.0, 3, 60.0
_TRUTHS = {"": True, "true": True, "false": False}


class ConnectionFields(Protocol):
    """The fields of an Airflow connection that are read."""

    host: str | None
    schema: str | None
    port: int | None
    login: str | None
    password: str | None

    @property
    def extra_dejson(self) -> dict[str, JsonValue]:
        """The extra fields, as JSON values."""


@dataclass(frozen=True)
class Endpoint:
    """The address of a service, and the settings of calls to it.

    Attributes:
        url: With or without `/api/v1`.
        headers: Credentials; not part of `repr`, and so of logs.
        timeout_s: Seconds without a byte after which a request is cancelled.
        retries: Repetitions of a request that received no response.
        patience_s: Total seconds to wait while the service is busy.
        verify: Whether to verify its certificate; a path names a file of trusted authorities.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = TIMEOUT_S
    retries: int = RETRIES
    patience_s: float = PATIENCE_S
    verify: bool | str = True

    def client(self, *, described: Described | None = None) -> Client:
        """Open a client, to use in a `with` block."""
        from pesto_runtime.client.client import Client

        return Client(self.url, described=described, **self._options)

    def aclient(self, *, described: Described | None = None) -> AsyncClient:
        """Open a client, to use in an `async with` block."""
        from pesto_runtime.client.async_client import AsyncClient

        return AsyncClient(self.url, described=described, **self._options)

    @property
    def _options(self) -> _ClientOptions:
        return {
            "timeout_s": self.timeout_s, "retries": self.retries, "patience_s": self.patience_s,
            "headers": self.headers, "verify": self.verify,
        }  # fmt: skip


class _ClientOptions(TypedDict):
    timeout_s: float
    retries: int
    patience_s: float
    headers: Mapping[str, str]
    verify: bool | str


def endpoint_of(
    connection: ConnectionFields, *, service: str | None = None, patience_s: float = PATIENCE_S
) -> Endpoint:
    """Read a connection.

    Args:
        connection: A connection of type `pesto`.
        service: URL to call instead of the connection's own, with its other settings.
        patience_s: Patience of a connection that has none.

    Raises:
        InvalidInput: with every wrong field; a missing URL is one.
    """
    extra = connection.extra_dejson
    numbers = {name: _number(extra.get(name)) for name in ("timeout", "retries", "patience")}
    faults = [
        BadField(f"/extra/{name}", "must be a number", shortened(extra[name]))
        for name, number in numbers.items()
        if number is None and extra.get(name) not in (None, "")
    ]
    url = service or connection_url(connection)
    if url is None:
        faults.append(BadField("/host", "must be the service's URL, as http://cloud-mask:8000"))
    if faults or url is None:
        raise InvalidInput.of("connection of type pesto", faults)
    timeout_s, retries, patience = numbers.values()
    return Endpoint(
        url=url,
        headers=_credentials(connection),
        timeout_s=TIMEOUT_S if timeout_s is None else timeout_s,
        retries=RETRIES if retries is None else int(retries),
        patience_s=patience_s if patience is None else patience,
        verify=_verify(extra.get("verify")),
    )


def connection_url(connection: ConnectionFields) -> str | None:
    """Return the host if it is a URL, else a URL of schema, host and port; None without a host.

    Raises:
        InvalidInput: the URL has a user or a password, which plans and reports would show.
    """
    host = connection.host
    if not host:
        return None
    if "@" in urlsplit(host).netloc or ("://" not in host and "@" in host):
        fault = BadField("/host", "must not have a user or a password: they have their own fields")
        raise InvalidInput.of("connection of type pesto", [fault])
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
    """Read a number or its text: Airflow's form stores numbers, a connection URI texts."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _verify(value: JsonValue) -> bool | str:
    text = "" if value is None else str(value)
    return _TRUTHS.get(text.lower(), text)


@runtime_checkable
class CallsService(Protocol):
    """An operator that calls a service."""

    def service_url(self) -> str:
        """Return the URL up to and including `/api/v1`."""


class PestoServiceLink(BaseOperatorLink):
    """Link a task to the page of its service, from which calls can be sent by hand."""

    @property
    def name(self) -> str:
        """The text of the button."""
        return "Service"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # one page for all tries
        """Return the URL of the page; Airflow calls this on the worker, when the task ends."""
        if not isinstance(operator, CallsService):
            return ""
        return operator.service_url().removesuffix("/api/v1") + "/docs"


class PestoHook(BaseHook):
    """A service; each method opens a client for one request. Use `client` for several requests.

    Errors are those of `pesto_runtime.errors`; the operators convert them to Airflow's.
    """

    conn_name_attr = "pesto_conn_id"
    default_conn_name = "pesto_default"
    conn_type = "pesto"
    hook_name = "PESTO service"

    def __init__(
        self, pesto_conn_id: str | None = default_conn_name, *, service: str | None = None
    ) -> None:
        """Select a service; the connection is not read yet, and nothing is sent.

        Args:
            pesto_conn_id: Connection of type `pesto`; None for a service that needs none.
            service: URL of the service; replaces that of the connection.
        """
        super().__init__()
        self.pesto_conn_id = pesto_conn_id
        self.service = service

    def endpoint(self) -> Endpoint:
        """Return the address of the service and the settings of calls to it.

        Raises:
            InvalidInput: a field of the connection is wrong.
            AirflowNotFoundException: there is no such connection.
        """
        if self.pesto_conn_id is None:
            return Endpoint(self.service or "")
        return endpoint_of(self.get_connection(self.pesto_conn_id), service=self.service)

    async def aendpoint(self) -> Endpoint:
        """Return the same as `endpoint`, on an event loop."""
        if self.pesto_conn_id is None:
            return Endpoint(self.service or "")
        connection = await self.aget_connection(self.pesto_conn_id)
        return endpoint_of(connection, service=self.service)

    def client(self, *, described: Described | None = None) -> Client:
        """Open a client, to use in a `with` block; raises as `endpoint` does."""
        return self.endpoint().client(described=described)

    async def aclient(self, *, described: Described | None = None) -> AsyncClient:
        """Open a client, to use in an `async with` block; raises as `endpoint` does."""
        return (await self.aendpoint()).aclient(described=described)

    def get_conn(self) -> Client:
        """Open a client: Airflow's common name for `client`."""
        return self.client()

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the service is ready, and its name or the error, for the test button."""
        try:
            with self.client() as client:
                health, description = client.health(), client.describe()
        except PestoError as error:
            return False, f"{error.title}: {error}"
        return health == "OK", f"{description.name} {description.version}: {health}"

    def describe(self) -> Description:
        """Request the description; raises as `Client.describe` does."""
        with self.client() as client:
            return client.describe()

    def health(self) -> Health:
        """Request whether the service is ready; raises as `Client.health` does."""
        with self.client() as client:
            return client.health()

    def process(
        self, inputs: Mapping[str, object], *, out: Mapping[str, str] | None = None
    ) -> dict[str, object]:
        """Call the process, as `Client.process` does."""
        with self.client() as client:
            return client.process(inputs, out=out)

    def submit(
        self,
        inputs: Mapping[str, object],
        *,
        out: Mapping[str, str] | None = None,
        key: str | None = None,
        lease_s: float | None = None,
    ) -> Job:
        """Submit a call as a job, as `Client.submit` does."""
        with self.client() as client:
            return client.submit(inputs, out=out, key=key, lease_s=lease_s)

    def status(self, job_id: str) -> Job:
        """Request a job's state; raises `NotFound` if there is no such job."""
        with self.client() as client:
            return client.status(job_id)

    def result(self, job_id: str) -> dict[str, object]:
        """Fetch the outputs of a job, as `Client.result` does."""
        with self.client() as client:
            return client.result(job_id)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; raises `NotFound` if there is no such job."""
        with self.client() as client:
            return client.cancel(job_id)
