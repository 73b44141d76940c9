"""Serve the temporary credentials of a role to obstore and GDAL, for as long as a task works.

Both renew credentials themselves if a server of this machine gives them, as it does in containers
of AWS. Here it is a child of the task, at a path that only this process knows; the hook of the
Amazon provider assumes the role, and renews it. No file has the credentials, and an open raster
outlives their expiry, which variables of the environment could not do.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from threading import Thread
from typing import IO, Protocol, cast

from airflow.sdk.log import mask_secret

from pesto_runtime.errors import StoreFailed, Unreachable

VALID = timedelta(minutes=10)
"""Validity that is stated: botocore renews credentials that expire within 10 minutes."""
EVERY_S = 60.0
"""Time between two documents that the server receives, seconds."""


class _Keys(Protocol):
    """Credentials of botocore at one moment."""

    access_key: str
    secret_key: str
    token: str | None


class _Credentials(Protocol):
    """Credentials of botocore that renew themselves."""

    def get_frozen_credentials(self) -> _Keys:
        """Return them, renewed if they expire soon."""


def can_assume_roles() -> bool:
    """Whether the Amazon provider is installed."""
    try:
        return find_spec("airflow.providers.amazon.aws") is not None
    except ModuleNotFoundError:  # of a package above it
        return False


@cache
def role_variables(conn_id: str) -> dict[str, str | None]:
    """Return the variables by which stores are opened with the role of a connection.

    The role is assumed now, with the connection's own keys or with those of the worker; later
    changes of the connection are for other tasks.

    Args:
        conn_id: A connection of type `aws` with a role.

    Raises:
        StoreFailed: the role cannot be assumed.
        Unreachable: the service of temporary credentials is away.
    """
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    from botocore.exceptions import ConnectionError as NotConnected
    from botocore.exceptions import HTTPClientError

    try:
        found: _Credentials = AwsBaseHook(conn_id, client_type="s3").get_session().get_credentials()
        document = _document(found)
    except (HTTPClientError, NotConnected) as error:
        raise Unreachable(f"its role cannot be assumed now: {error}") from error
    except Exception as error:  # of botocore or of the provider: they have no class in common
        raise StoreFailed(f"its role cannot be assumed: {error}") from error
    path = f"/{secrets.token_urlsafe(32)}"
    mask_secret(path)
    server = subprocess.Popen(
        [sys.executable, "-m", "pesto_airflow.credential_server"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    documents, ports = cast("IO[str]", server.stdin), cast("IO[str]", server.stdout)
    documents.write(f"{path}\n{document}\n")
    port = int(ports.readline())
    Thread(target=_renew, args=(found, documents), daemon=True).start()
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{port}{path}",
        # obstore uses the address only beside a token, of which the path has no need.
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/dev/null",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": None,
    }


def _renew(found: _Credentials, documents: IO[str]) -> None:
    """Give the server valid credentials until this process ends, and the server with it."""
    while True:
        time.sleep(EVERY_S)
        with suppress(Exception):  # of botocore: the next try is soon, and the old ones are valid
            documents.write(f"{_document(found)}\n")


def _document(found: _Credentials) -> str:
    keys = found.get_frozen_credentials()
    for secret in (keys.secret_key, keys.token or ""):
        mask_secret(secret)
    return json.dumps({
        "AccessKeyId": keys.access_key, "SecretAccessKey": keys.secret_key, "Token": keys.token,
        "Expiration": (datetime.now(UTC) + VALID).strftime("%Y-%m-%dT%H:%M:%SZ"),
    })  # fmt: skip
