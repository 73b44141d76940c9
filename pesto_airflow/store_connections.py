"""Convert Airflow's connections of buckets to the variables by which all stores are opened.

obstore and GDAL read the same variables (`pesto_runtime/remote.py`), in the task's own process: no
file is written. The providers of Amazon, Google and Microsoft are not needed, except for a role of
AWS.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from airflow.sdk.log import mask_secret

from pesto_airflow.assumed_roles import can_assume_roles, role_variables
from pesto_runtime.errors import BadField, InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_airflow.hooks import ConnectionFields

Variables: TypeAlias = "dict[str, str | None]"
"""Name -> value; None removes a variable that would have priority over the connection."""

_REFUSED = {
    "aws": ("role_arn", "assume_role_method"),
    "google_cloud_platform": ("key_secret_name", "credential_config_file", "impersonation_chain"),
    "wasb": ("tenant_id", "connection_string", "managed_identity_client_id"),
}
"""Extra fields that state another identity than those that are read here."""
_AMAZON = "apache-airflow-providers-amazon"
_AWS_IDENTITY = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
                 "AWS_SKIP_SIGNATURE", "AWS_NO_SIGN_REQUEST",
                 "AWS_WEB_IDENTITY_TOKEN_FILE")  # fmt: skip
_AWS_PLACE = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_S3_ENDPOINT",
              "AWS_HTTPS")  # fmt: skip
_GOOGLE = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT",
           "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY", "GS_OAUTH2_PRIVATE_KEY",
           "GS_OAUTH2_CLIENT_EMAIL")  # fmt: skip
_AZURE = tuple(f"AZURE_STORAGE_{name}" for name in (
    "ACCOUNT_NAME", "ACCOUNT", "ACCOUNT_KEY", "ACCESS_KEY", "SAS_TOKEN", "SAS_KEY",
    "CONNECTION_STRING",
))  # fmt: skip
_SECRETS = ("SECRET_ACCESS_KEY", "SESSION_TOKEN", "ACCOUNT_KEY", "SAS_TOKEN", "PRIVATE_KEY",
            "SERVICE_ACCOUNT_KEY")  # fmt: skip


def variables_of(connection: ConnectionFields, kind: str | None, *, conn_id: str) -> Variables:
    """Return the environment variables of a connection.

    A connection without credentials has those of the environment: a role of the machine.

    Args:
        connection: Its fields.
        kind: Its type: `aws`, `google_cloud_platform` or `wasb`.
        conn_id: Its id.

    Raises:
        InvalidInput: another type, or an extra field that cannot be used; without its value.
        StoreFailed: the role of the connection cannot be assumed.
        Unreachable: it cannot be assumed now.
    """
    if kind is None or kind not in _READERS:
        raise InvalidInput(
            f"a connection of type {shortened(kind)} is none of a store; give one of type "
            f"{', '.join(_READERS)}"
        )
    extra = connection.extra_dejson
    has_role = kind == "aws" and bool(extra.get("role_arn"))
    if has_role and can_assume_roles():
        own = dict.fromkeys(_AWS_IDENTITY)
        return {**_aws(connection, extra), **own, **role_variables(conn_id)}
    if refused := [name for name in _REFUSED[kind] if extra.get(name)]:
        reason = f"needs {_AMAZON} in the worker" if has_role else "cannot be used here"
        faults = [BadField(f"/extra/{name}", reason) for name in refused]
        raise InvalidInput.of(
            f"connection of type {kind} (give keys, or no credentials: then those of the worker's "
            "environment are used)",
            faults,
        )
    return _READERS[kind](connection, extra)


@contextmanager
def environment(variables: Variables) -> Iterator[None]:
    """Set the variables in the block; their secrets are masked in the logs of the task."""
    for name, value in variables.items():
        if value and name.endswith(_SECRETS):
            mask_secret(value)
    outer = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(outer)


def _set(variables: Variables) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _aws(connection: ConnectionFields, extra: Mapping[str, JsonValue]) -> Variables:
    key = connection.login or _text(extra, "aws_access_key_id")
    secret = connection.password or _text(extra, "aws_secret_access_key")
    profile, region = _text(extra, "profile_name"), _text(extra, "region_name")
    if bool(key) != bool(secret):
        fault = BadField("/login", "and the password belong together: key and secret")
        raise InvalidInput.of("connection of type aws", [fault])
    found: Variables = {}
    if key or profile:
        found = dict.fromkeys(_AWS_IDENTITY)
        token = _text(extra, "aws_session_token")
        found |= {"AWS_PROFILE": profile} if not key else {
            "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token
        }  # fmt: skip
    if endpoint := _text(extra, "endpoint_url") or _service_endpoint(extra):
        found |= {**dict.fromkeys(_AWS_PLACE), "AWS_ENDPOINT_URL": endpoint}
    if region:
        found |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    return found


def _service_endpoint(extra: Mapping[str, JsonValue]) -> str | None:
    config = extra.get("service_config")
    s3 = config.get("s3") if isinstance(config, dict) else None
    return _text(s3, "endpoint_url") if isinstance(s3, dict) else None


def _google(_connection: ConnectionFields, extra: Mapping[str, JsonValue]) -> Variables:
    if path := _text(extra, "key_path"):
        return {**dict.fromkeys(_GOOGLE), "GOOGLE_APPLICATION_CREDENTIALS": path}
    key = extra.get("keyfile_dict")
    if not key:
        return {}
    try:
        document: JsonValue = json.loads(key) if isinstance(key, str) else key
    except ValueError:
        document = None  # not the error: it has the text
    email = _text(document, "client_email") if isinstance(document, dict) else None
    private = _text(document, "private_key") if isinstance(document, dict) else None
    if not email or not private:
        fault = BadField("/extra/keyfile_dict", "must be the JSON key of a service account")
        raise InvalidInput.of("connection of type google_cloud_platform", [fault])
    return {
        **dict.fromkeys(_GOOGLE),
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(document),
        "GS_OAUTH2_PRIVATE_KEY": private,
        "GS_OAUTH2_CLIENT_EMAIL": email,
    }


def _azure(connection: ConnectionFields, extra: Mapping[str, JsonValue]) -> Variables:
    key = connection.password or _text(extra, "shared_access_key")
    token = _text(extra, "sas_token")
    account: Variables = {}
    if connection.login:
        account = {"AZURE_STORAGE_ACCOUNT": None, "AZURE_STORAGE_ACCOUNT_NAME": connection.login}
    if not key and not token:
        return account
    keys: Variables = {"AZURE_STORAGE_ACCOUNT_KEY": key, "AZURE_STORAGE_SAS_TOKEN": token}
    return {**dict.fromkeys(_AZURE), **account, **keys}


def _text(extra: Mapping[str, JsonValue], name: str) -> str | None:
    value = extra.get(name)
    return str(value) if value else None


_READERS: Mapping[str, Callable[[ConnectionFields, Mapping[str, JsonValue]], Variables]] = {
    "aws": _aws,
    "google_cloud_platform": _google,
    "wasb": _azure,
}
