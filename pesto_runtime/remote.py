"""Open every place with one set of variables: buckets and web servers, for obstore and for GDAL.

GDAL reads scenes and obstore everything else. Each has its own environment variables: those of one
are translated for the other, so that a user sets only one of the two spellings. A request is
repeated while a server is away. Pixels and objects are not read here.
"""

from __future__ import annotations

import configparser
import os
import re
from contextlib import contextmanager
from datetime import timedelta
from errno import ENOENT
from functools import lru_cache
from http import HTTPStatus
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import HTTPStore, from_url

from pesto_runtime.credentials import object_authorization
from pesto_runtime.errors import (
    InvalidInput,
    NotFound,
    PestoError,
    StoreFailed,
    StoreRefused,
    Unreachable,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_RANGE_WAIT_S = 10
_YES = ("1", "true", "yes", "on", "y", "t")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_KEYS = ("aws_access_key_id", "aws_secret_access_key")
_OTHER_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE",
                      "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                      "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip
_CLIENT: ClientConfig = {"allow_http": True, "connect_timeout": timedelta(seconds=5)}
_PATIENCE = "PESTO_STORE_PATIENCE"
"""Variable: seconds for which a request is repeated while a server or a store is away."""
_PATIENCE_S = 60.0
_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_", "PESTO_STORE_", "HOME")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_NO_BUCKET = "NoSuchBucket"
_AWAY = re.compile(r"status code: (429|5(?!01)\d\d)|HTTP error|timed out|error sending request")
_LOCAL_REASONS = ("No space left on device", "Permission denied", "Not a directory",
                  "Read-only file system", "File name too long")  # fmt: skip


def stated_identity(href: str) -> str:
    """Return the identity that a server states by HEAD; empty if it states none.

    It is the length with the ETag, or else the version, or else the time of the last modification.

    Raises:
        NotFound: the object does not exist, or its server does not answer HEAD (405).
        StoreFailed: HEAD is refused.
        Unreachable: the server is away for longer than the patience.
    """
    try:
        objects, name = open_object(href)
        facts = objects.head(name)
    except FileNotFoundError as error:
        raise NotFound(f"{href} does not exist") from error
    except (BaseError, OSError, ValueError) as error:
        raise failure_of(error, href) from error
    # obstore returns 1970-01-01 for a response without Last-Modified.
    modified = facts["last_modified"].isoformat() if facts["last_modified"].timestamp() else None
    stated = facts["e_tag"] or facts["version"] or modified
    return f"{facts['size']}-{stated}" if stated else ""


def has_server(href: str) -> bool:
    """Whether an href is that of a bucket or a web server."""
    return urlsplit(href).scheme in ("http", "https", "s3", "gs", "az")


def require_reachable(href: str) -> None:
    """Do nothing if the server of an href responds, whatever it responds.

    Raises:
        Unreachable: it is away for longer than the patience.
    """
    try:
        objects, name = open_object(href)
        objects.head(name)
    except BaseError as error:
        if _AWAY.search(str(error)):
            raise failure_of(error, href) from error
    except (OSError, ValueError):
        return


def is_there(href: str) -> bool:
    """Whether a server states that it has something at an href."""
    try:
        stated_identity(href)
    except PestoError:
        return False
    return True


def answers_ranges(href: str) -> bool:
    """Whether a web server answers a request for one byte with one byte; True for other places."""
    if urlsplit(href).scheme not in ("http", "https"):
        return True
    request = Request(href, headers={"Range": "bytes=0-0"})  # noqa: S310  # the scheme is checked
    if authorization := object_authorization(href):
        request.add_unredirected_header("Authorization", authorization)
    try:
        with urlopen(request, timeout=_RANGE_WAIT_S) as response:  # noqa: S310
            return bool(response.status != HTTPStatus.OK)
    except OSError:
        return True


def open_bucket(url: str) -> ObjectStore:
    """Open a bucket, or a folder of it, with the settings of the environment in either spelling.

    Raises:
        BaseError: the scheme or a setting is not known.
    """
    settings = _SETTINGS.get(urlsplit(url).scheme, dict)()
    return from_url(url, client_options=_CLIENT, retry_config=_retries(), **settings)


def open_object(href: str) -> tuple[ObjectStore, str]:
    """Return the store of an object, opened once per process, and the name of the object in it.

    Raises:
        BaseError: the scheme or a setting is not known.
        ValueError: the href is none of an object.
        InvalidInput: the credentials of its origin cannot be read.
    """
    return _place(href, store_variables(), object_authorization(href))


def store_variables() -> tuple[tuple[str, str], ...]:
    """Return the variables of the environment, and their values, by which stores are opened."""
    return tuple((k, v) for k, v in os.environ.items() if k.startswith(_VARIABLES))


@contextmanager
def translated(href: str, *, missing: str = "object") -> Iterator[None]:
    """Raise errors of obstore as those of this package, while an object is read or written.

    Args:
        href: The object.
        missing: What a response 404 is about: the `object`, or the `bucket`.

    Raises:
        FileNotFoundError: there is no such object.
        PestoError: as of `failure_of`.
    """
    try:
        yield
    except FileNotFoundError as error:
        if missing == "bucket" or _NO_BUCKET in str(error):
            raise failure_of(error, href) from error
        raise FileNotFoundError(ENOENT, "no such object", href) from error
    except (BaseError, ValueError) as error:
        raise failure_of(error, href) from error


def write_version(href: str, data: bytes, *, over: str | None) -> str | None:
    """Write an object if its version is the one that was read: see `RemotePath.write_version`."""
    try:
        objects, name = open_object(href)
        return objects.put(name, data, mode={"e_tag": over} if over else "create")["e_tag"]
    except (AlreadyExistsError, PreconditionError):
        return None
    except FileNotFoundError as error:
        if over is None or _NO_BUCKET in str(error):
            raise failure_of(error, href) from error
        return None  # deleted since
    except (BaseError, ValueError) as error:
        if isinstance(error, NotSupportedError) or "501 Not Implemented" in str(error):
            raise StoreRefused(
                f"{href}: this store has no conditional writes (If-None-Match), by which one run "
                "owns an output folder: choose another store, or a folder of a disk"
            ) from error
        raise failure_of(error, href) from error


def failure_of(error: BaseException, href: str) -> PestoError:
    """Return an error of obstore as one of this package.

    It is `Unreachable`, which a retry may overcome, if the store is away; otherwise `StoreFailed`:
    no space, no permission, no such bucket.
    """
    if isinstance(error, BaseError) and _AWAY.search(str(error)):
        return Unreachable(f"{href}: its server is away: {reason_of(error)}")
    return StoreFailed(f"{href}: {reason_of(error)}")


def reason_of(error: BaseException) -> str:
    """Return the server's or the operating system's message in an error of obstore.

    obstore puts the message inside several lines with the URL and the debug form of the error.
    """
    text = str(error)
    for known in _LOCAL_REASONS:
        if known in text:
            return known
    if _NO_BUCKET in text:
        return "the bucket does not exist"
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        return "permission denied: check the credentials (docs/how-to/credentials.md)"
    if isinstance(error, PreconditionError):
        return "it was changed while it was read"
    first_line = text.strip().partition("\n")[0]
    # Without the URL of the request, which may have a signature in its query.
    message = first_line.rpartition(" - ")[2] if "Error performing" in text else first_line
    return shortened(message).strip("'\"")


def s3_settings() -> dict[str, Any]:
    """Return obstore's settings of S3 for the variables that only GDAL reads.

    Empty for a variable that has obstore's spelling too.
    """
    settings: dict[str, Any] = {}
    endpoint = os.environ.get("AWS_S3_ENDPOINT")
    if endpoint and not any(os.environ.get(name) for name in _ENDPOINTS):
        scheme = "https" if _is_yes("AWS_HTTPS", default="yes") else "http"
        settings["endpoint"] = endpoint if "://" in endpoint else f"{scheme}://{endpoint}"
        settings["virtual_hosted_style_request"] = _is_yes("AWS_VIRTUAL_HOSTING", default="yes")
    if _is_yes("AWS_NO_SIGN_REQUEST"):
        settings["skip_signature"] = True
    elif not any(os.environ.get(name) for name in _OTHER_CREDENTIALS):
        settings |= _credentials_of_file()
    return settings


def azure_settings() -> dict[str, Any]:
    """Return obstore's settings of Azure for the variables that only GDAL reads."""
    account = os.environ.get("AZURE_STORAGE_ACCOUNT")
    is_named = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    return {"account_name": account} if account and not is_named else {}


def gdal_settings() -> dict[str, str]:
    """Return GDAL's settings for the variables that only obstore or boto reads, and its retries."""
    settings = {name: value for name, value in _gdal_retries().items() if name not in os.environ}
    for name, others in _RENAMED.items():
        value = next((found for each in others if (found := os.environ.get(each))), None)
        if value and not os.environ.get(name):
            settings[name] = value
    endpoint = next((url for name in _ENDPOINTS if (url := os.environ.get(name))), "")
    if endpoint and not os.environ.get("AWS_S3_ENDPOINT"):
        scheme, _, host = endpoint.rpartition("://")
        settings["AWS_S3_ENDPOINT"] = host.rstrip("/")
        settings["AWS_HTTPS"] = "NO" if scheme == "http" else "YES"
        is_virtual = _is_yes("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
        settings["AWS_VIRTUAL_HOSTING"] = "TRUE" if is_virtual else "FALSE"
    if _is_yes("AWS_SKIP_SIGNATURE") and not os.environ.get("AWS_NO_SIGN_REQUEST"):
        settings["AWS_NO_SIGN_REQUEST"] = "YES"
    return settings


def gdal_authorization(href: str) -> dict[str, str]:
    """Return GDAL's settings for opening a raster of a web server: the credentials of its origin.

    A dataset remembers them, and sends them to no other origin: curl drops this header where it
    follows a redirect to another one.

    Raises:
        InvalidInput: the credentials of its origin cannot be read.
    """
    authorization = object_authorization(href)
    return {"GDAL_HTTP_HEADERS": f"Authorization: {authorization}"} if authorization else {}


_SETTINGS = {"s3": s3_settings, "az": azure_settings}
_RENAMED = {
    "AWS_REGION": ("AWS_DEFAULT_REGION",),
    "AZURE_STORAGE_ACCOUNT": ("AZURE_STORAGE_ACCOUNT_NAME",),
    "AZURE_STORAGE_ACCESS_KEY": ("AZURE_STORAGE_ACCOUNT_KEY",),
    "AZURE_STORAGE_SAS_TOKEN": ("AZURE_STORAGE_SAS_KEY",),
    "GOOGLE_APPLICATION_CREDENTIALS": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"),
}
"""GDAL's name of a variable -> the names of boto and obstore."""


@lru_cache(maxsize=32)
def _place(
    href: str, _variables: tuple[tuple[str, str], ...], authorization: str | None
) -> tuple[ObjectStore, str]:
    """Return the store of an href, and its name there; the environment is part of the key."""
    parts = urlsplit(href)
    if parts.scheme in ("http", "https"):
        # The whole URL is the base, so that its query and its escapes stay as they are.
        options: ClientConfig = {**_CLIENT}
        if authorization:
            options["default_headers"] = {"authorization": authorization}
        return HTTPStore.from_url(href, client_options=options, retry_config=_retries()), ""
    bucket, _, name = href.partition("://")[2].partition("/")
    return open_bucket(f"{parts.scheme}://{bucket}"), name


def _patience_s() -> float:
    try:
        return max(0.0, float(os.environ.get(_PATIENCE) or _PATIENCE_S))
    except ValueError as error:
        raise InvalidInput(
            f"{_PATIENCE}={os.environ[_PATIENCE]!r} is not a number of seconds, as 60"
        ) from error


def _retries() -> RetryConfig:
    patience = _patience_s()
    return {
        "max_retries": 5 + int(patience),
        "retry_timeout": timedelta(seconds=patience),
        "backoff": {
            "init_backoff": timedelta(seconds=_FIRST_PAUSE_S),
            "max_backoff": timedelta(seconds=_LONGEST_PAUSE_S),
            "base": 2,
        },
    }


def _gdal_retries() -> dict[str, str]:
    # GDAL doubles the pause each time: so many pauses are about the patience in all.
    count = int(log2(_patience_s() / _FIRST_PAUSE_S + 1))
    return {
        "GDAL_HTTP_MAX_RETRY": str(count),
        "GDAL_HTTP_RETRY_DELAY": str(_FIRST_PAUSE_S),
        "GDAL_HTTP_CONNECTTIMEOUT": "5",
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
        "GDAL_HTTP_LOW_SPEED_TIME": "30",
    }


def _credentials_of_file() -> dict[str, str]:
    """Return the keys of the AWS credentials file, which GDAL reads and obstore does not.

    Empty for a profile without keys, for example one that assumes a role.
    """
    default = Path.home() / ".aws" / "credentials"
    file = configparser.ConfigParser(interpolation=None)
    try:
        file.read(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or default)
        profile = os.environ.get("AWS_PROFILE") or "default"
        found = dict(file.items(profile)) if file.has_section(profile) else {}
    except configparser.Error:
        return {}
    if not all(name in found for name in _KEYS):
        return {}
    names = (*_KEYS, "aws_session_token")
    return {name.removeprefix("aws_"): found[name] for name in names if name in found}


def _is_yes(name: str, *, default: str = "") -> bool:
    return os.environ.get(name, default).lower() in _YES
