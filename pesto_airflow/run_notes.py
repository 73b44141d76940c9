"""Write a note on a DAG run that is not complete, by the REST API of its Airflow.

Tasks have no call for it, so that it needs a connection with an account of Airflow.
"""

from __future__ import annotations

from logging import getLogger
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException

from pesto_airflow.hooks import connection_url
from pesto_runtime.errors import PestoError

if TYPE_CHECKING:
    import httpx
    from airflow.sdk import Context

_log = getLogger(__name__)
_TIMEOUT_S = 30.0
_MOST_CHARS = 1000
"""Characters that Airflow stores of a note."""


def write_note(conn_id: str, context: Context, text: str) -> None:
    """Add a line to the note of a DAG run; a failure is logged, for the outputs are there anyway.

    Args:
        conn_id: Connection of Airflow's own API server: type `http`, with its URL as host, and user
            and password, or a token as password.
        context: Airflow's context of the task.
        text: The line.
    """
    import httpx

    run = context["dag_run"]
    note = run.note or ""
    if text in note:  # of an earlier try
        return
    path = f"/api/v2/dags/{quote(run.dag_id, safe='')}/dagRuns/{quote(run.run_id, safe='')}"
    body = {"note": f"{note}\n{text}".strip()[-_MOST_CHARS:]}
    try:
        with _client(conn_id) as client:
            client.patch(path, params={"update_mask": "note"}, json=body).raise_for_status()
    except (httpx.HTTPError, AirflowException, PestoError, KeyError, ValueError) as error:
        _log.warning("no note on the run, by connection %r: %s", conn_id, error)


def _client(conn_id: str) -> httpx.Client:
    """Open a client with the token of a connection, or one for its user and password."""
    import httpx

    connection = BaseHook.get_connection(conn_id)
    url, token = connection_url(connection) or "", connection.password
    if connection.login:
        account = {"username": connection.login, "password": connection.password}
        reply = httpx.post(f"{url}/auth/token", json=account, timeout=_TIMEOUT_S)
        token = reply.raise_for_status().json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S)
