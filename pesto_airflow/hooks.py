"""A service as Airflow knows it, by a connection or its URL: clients, and the verbs of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from pesto_airflow.endpoint import Endpoint, endpoint_of
from pesto_runtime.errors import PestoError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pesto_runtime.client import AsyncClient, Client, Described
    from pesto_runtime.client.describing import Health
    from pesto_runtime.contract import Description, Job


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
        from pesto_runtime.client import Client

        at = self.endpoint()
        return Client(
            at.url, described=described, timeout_s=at.timeout_s, retries=at.retries,
            patience_s=at.patience_s, headers=at.headers, verify=at.verify,
        )  # fmt: skip

    async def aclient(self, *, described: Described | None = None) -> AsyncClient:
        """A client to use in an `async with` block; raises as `endpoint` does."""
        from pesto_runtime.client import AsyncClient

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
