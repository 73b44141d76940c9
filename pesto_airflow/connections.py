"""Use Airflow's connections in the tasks of a pipeline: of its services, and of its stores.

Operators have the ids of connections. Each task reads them itself, in its own process; a plan has
the URLs of services, and nothing else of a connection.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from pesto_airflow.hooks import connection_url, endpoint_of
from pesto_airflow.store_connections import environment, variables_of
from pesto_runtime.errors import InvalidInput, PestoError, RasterUnreadable, StoreFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pesto_airflow.store_connections import Variables
    from pesto_runtime.run.access import ServiceAccess

_BUCKETS = ("s3", "gs", "az")
_BUSY_S = 600.0
"""Patience for a busy service without one in its connection: that of runs without connections."""


@dataclass(frozen=True)
class RunConnections:
    """The ids of the connections of a run.

    Attributes:
        pesto_conn_id: Connection of the services that have none in `conn_ids`.
        conn_ids: Process name -> connection of type `pesto`.
        store_conn_id: Connection of the buckets: type `aws`, `google_cloud_platform` or `wasb`.
    """

    pesto_conn_id: str | None = None
    conn_ids: Mapping[str, str] = field(default_factory=dict)
    store_conn_id: str | None = None

    @property
    def are_for_services(self) -> bool:
        """Whether any service has a connection."""
        return bool(self.pesto_conn_id or self.conn_ids)

    @contextmanager
    def stores(self, *, read_again: bool = False) -> Iterator[None]:
        """Open buckets with the connection of the stores in the block.

        Args:
            read_again: Whether to read the connection if this process has read it before.

        Raises:
            InvalidInput: the connection cannot be used.
            PestoError: as the block does; an error of a bucket with the connection's id.
            AirflowNotFoundException: there is no such connection.
        """
        if read_again:
            _store_variables.cache_clear()
        with environment(_store_variables(self.store_conn_id) if self.store_conn_id else {}):
            try:
                yield
            except (StoreFailed, RasterUnreadable) as error:
                if self.store_conn_id and any(f"{each}://" in error.detail for each in _BUCKETS):
                    raise error.prefixed(f"store_conn_id {self.store_conn_id!r}") from None
                raise

    @contextmanager
    def services(self, targets: Mapping[str, Sequence[str]]) -> Iterator[None]:
        """Call services with their connections in the block.

        Args:
            targets: Process name -> its target, or URLs.

        Raises:
            InvalidInput: a connection cannot be used, or has another URL than `targets`.
            PestoError: as the block does; refused credentials with the connection's id.
            AirflowNotFoundException: there is no such connection.
        """
        from pesto_runtime.run.access import service_access

        found = {
            url: self._access(conn_id, url)
            for process, urls in targets.items()
            if (conn_id := self._conn_id(process, urls)) is not None
            for url in urls
        }
        with service_access(found):
            yield

    def urls(self, targets: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Return the URL of each process whose connection has one; it replaces that of a catalog.

        Args:
            targets: Process name -> its target, or URLs; none for a description without a URL.

        Raises:
            InvalidInput: one connection would be the URL of several processes.
            AirflowNotFoundException: there is no such connection.
        """
        found: dict[str, str] = {}
        for process, each in targets.items():
            conn_id = self._conn_id(process, each)
            url = connection_url(BaseHook.get_connection(conn_id)) if conn_id else None
            if url is not None:
                found[process] = url
        general = [name for name in found if name not in self.conn_ids]
        if len(general) > 1:
            raise InvalidInput(
                f"pesto_conn_id {self.pesto_conn_id!r} has one URL, and {', '.join(general)} have "
                "no connection of their own: name one for each in conn_ids, or leave the host of "
                "the connection empty, for the URLs of the catalog"
            )
        return found

    def _conn_id(self, process: str, targets: Sequence[str]) -> str | None:
        """Return the connection of a process; code in the worker has one only in `conn_ids`."""
        is_service = all(each.startswith(("http://", "https://")) for each in targets)
        return self.conn_ids.get(process, self.pesto_conn_id if is_service else None)

    def _access(self, conn_id: str, url: str) -> ServiceAccess:
        from pesto_runtime.client.transport import service_url
        from pesto_runtime.run.access import ServiceAccess

        connection = BaseHook.get_connection(conn_id)
        try:
            found = endpoint_of(connection, service=url, patience_s=_BUSY_S)
            own = connection_url(connection)
        except PestoError as error:
            raise error.prefixed(f"connection {conn_id!r}") from None
        if own is not None and service_url(own) != service_url(url):
            # Neither the new token to the old server, nor the plan's tiles to another one.
            raise InvalidInput(
                f"connection {conn_id!r} has the URL {own}, and the run was planned with {url}: "
                "trigger a new DAG run"
            )
        for text in found.headers.values():
            mask_secret(text)
        return ServiceAccess(
            source=f"connection {conn_id!r}", headers=found.headers, timeout_s=found.timeout_s,
            retries=found.retries, patience_s=found.patience_s, verify=found.verify,
        )  # fmt: skip


# Not in the operator, whose attributes plugins may write. Label and links of a task open its store
# before and after its work: without this each would request the connection from Airflow's API.
@lru_cache(maxsize=4)
def _store_variables(conn_id: str) -> Variables:
    connection = BaseHook.get_connection(conn_id)
    try:
        return variables_of(connection, connection.conn_type, conn_id=conn_id)
    except PestoError as error:
        raise error.prefixed(f"store_conn_id {conn_id!r}") from None
