"""A service as Airflow knows it, by a connection or its URL: clients, and the verbs of a call."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

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


@runtime_checkable
class CallsService(Protocol):
    """An operator that knows where its service is."""

    def service_url(self) -> str:
        """Address up to and with `/api/v1`."""


class PestoServiceLink(BaseOperatorLink):
    """Leads to the service's own page, where a call can be tried by hand."""

    @property
    def name(self) -> str:
        """What the button says."""
        return "Service"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002  # one page for all tries
        """Address of the page; Airflow asks on the worker, when the task ends."""
        if not isinstance(operator, CallsService):
            return ""
        return operator.service_url().removesuffix("/api/v1") + "/docs"


class PestoHook(BaseHook):
    """One service; each verb opens a client, asks, and closes it. See `client` for several calls.

    Errors are those of `pesto_runtime.errors`; operators turn them into Airflow's.
    """

    conn_name_attr = "pesto_conn_id"
    default_conn_name = "pesto_default"
    conn_type = "pesto"
    hook_name = "PESTO service"

    def __init__(
        self, pesto_conn_id: str | None = default_conn_name, *, service: str | None = None
    ) -> None:
        """Name a service; nothing is looked up or sent yet.

        Args:
            pesto_conn_id: Connection of type `pesto`. None for a service that needs none.
            service: Its URL, where the connection does not say, or another one.
        """
        super().__init__()
        self.pesto_conn_id = pesto_conn_id
        self.service = service

    def endpoint(self) -> Endpoint:
        """Where the service is and how it is called.

        Raises:
            InvalidInput: the connection is not one to a service.
            AirflowNotFoundException: there is no such connection.
        """
        if self.pesto_conn_id is None:
            return Endpoint(self.service or "")
        return endpoint_of(self.get_connection(self.pesto_conn_id), service=self.service)

    async def aendpoint(self) -> Endpoint:
        """As `endpoint`, on an event loop."""
        if self.pesto_conn_id is None:
            return Endpoint(self.service or "")
        connection = await self.aget_connection(self.pesto_conn_id)
        return endpoint_of(connection, service=self.service)

    def client(self, *, described: Described | None = None) -> Client:
        """A client to use in a `with` block; raises as `endpoint` does."""
        from pesto_runtime.client.client import Client

        at = self.endpoint()
        return Client(
            at.url, described=described, timeout_s=at.timeout_s, retries=at.retries,
            patience_s=at.patience_s, headers=at.headers, verify=at.verify,
        )  # fmt: skip

    async def aclient(self, *, described: Described | None = None) -> AsyncClient:
        """A client to use in an `async with` block; raises as `endpoint` does."""
        from pesto_runtime.client.async_client import AsyncClient

        at = await self.aendpoint()
        return AsyncClient(
            at.url, described=described, timeout_s=at.timeout_s, retries=at.retries,
            patience_s=at.patience_s, headers=at.headers, verify=at.verify,
        )  # fmt: skip

    def get_conn(self) -> Client:
        """The client, by the name that all hooks have for it."""
        return self.client()

    def test_connection(self) -> tuple[bool, str]:
        """Whether a service answers there, and which one: what the form's test button shows."""
        try:
            with self.client() as client:
                health, description = client.health(), client.describe()
        except PestoError as error:
            return False, f"{error.title}: {error}"
        told = f"{description.name} {description.version}: {health}"
        return health == "OK", told

    def describe(self) -> Description:
        """The description; raises `PestoError` where the service does not say."""
        with self.client() as client:
            return client.describe()

    def health(self) -> Health:
        """Whether the service is ready; raises `PestoError` where it is not there."""
        with self.client() as client:
            return client.health()

    def process(
        self, inputs: Mapping[str, object], *, out: Mapping[str, str] | None = None
    ) -> dict[str, object]:
        """Call the process; as `Client.process`."""
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
        """Submit a call as a job; as `Client.submit`."""
        with self.client() as client:
            return client.submit(inputs, out=out, key=key, lease_s=lease_s)

    def status(self, job_id: str) -> Job:
        """A job as it is now; raises `NotFound` where there is none."""
        with self.client() as client:
            return client.status(job_id)

    def result(self, job_id: str) -> dict[str, object]:
        """What a job left; as `Client.result`."""
        with self.client() as client:
            return client.result(job_id)

    def cancel(self, job_id: str) -> Job:
        """Stop a job where it runs; raises `NotFound` where there is none."""
        with self.client() as client:
            return client.cancel(job_id)
