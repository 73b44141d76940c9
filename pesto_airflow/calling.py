"""What every operator that calls a service shares: which service, and what was saved of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_airflow.catalog import read_saved, require_no_drift
from pesto_airflow.hooks import PestoHook
from pesto_airflow.watching import Ended, JobPoller
from pesto_runtime.errors import PestoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pesto_airflow.catalog import Saved
    from pesto_runtime.client import Client, Described


class ServiceCall:
    """Where an operator's service is; asked what it is once per process.

    Attributes:
        hook: By a connection, a URL, or the URL of the saved description, in that order.
        saved: What the service must still be; None where nothing was saved.
    """

    def __init__(
        self, *, service: str | None, pesto_conn_id: str | None, saved: str | None
    ) -> None:
        """Name a service.

        Args:
            service: Its URL; with a connection, all else is the connection's.
            pesto_conn_id: Connection; `pesto_default` where nothing at all is given.
            saved: File of a saved description.

        Raises:
            InvalidInput: there is no such file, or it is no saved description.
        """
        self.saved: Saved | None = None if saved is None else read_saved(saved)
        if pesto_conn_id is None and service is None:
            service = self.saved.url if self.saved else None
            pesto_conn_id = None if service else PestoHook.default_conn_name
        self.hook = PestoHook(pesto_conn_id, service=service)
        self._described: Described | None = None

    @property
    def url(self) -> str:
        """Address up to and with `/api/v1`; raises as `PestoHook.endpoint` does."""
        from pesto_runtime.client.transport import service_url

        return service_url(self.hook.endpoint().url)

    def client(self, require: Callable[[Described], None] | None = None) -> Client:
        """A client to use in a `with` block, of a service that is what was saved of it.

        Args:
            require: Raises where what the service is does not do.

        Raises:
            InvalidContract: it has changed in a way that breaks what was saved.
            PestoError: it is not there, or does not say what it is.
        """
        client = self.hook.client(described=self._described)
        try:
            self._hold(client)
            if require is not None:
                require(client.described)
        except BaseException:
            client.close()
            raise
        return client

    def _hold(self, client: Client) -> None:
        """Hold the service to what was saved, once."""
        if self._described is None:
            described = client.described
            if self.saved is not None:
                for change in require_no_drift(self.saved, described.description, where=client.url):
                    self.hook.log.info("%s changed since it was saved: %s", client.url, change)
            self._described = described


def looks_at(client: Client, job_id: str, *, longest_look_s: float) -> Iterator[float | Ended]:
    """Look at a job at each step: seconds to sleep before the next one, and at last its end."""
    watch = JobPoller(longest_look_s=longest_look_s)
    while True:
        try:
            verdict = watch.told(client.status(job_id))
        except PestoError as error:
            verdict = watch.told(error)
        yield verdict
        if isinstance(verdict, Ended):
            return
