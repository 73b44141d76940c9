"""Ask servers and buckets for the identity of an object, and give one spelling of their settings.

GDAL reads scenes and obstore reads and writes the run store. For S3 each has its own environment
variables: those of one are translated for the other, so that a user sets only one of the two
spellings. Pixels and the objects of a run are not read here.
"""

from __future__ import annotations

import configparser
import os
from datetime import timedelta
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from obstore.exceptions import BaseError
from obstore.store import HTTPStore, from_url

from pesto_runtime.errors import NotFound, PestoError, Unreachable, shortened

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_RANGE_WAIT_S = 10
_YES = ("1", "true", "yes", "on", "y", "t")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_KEYS = ("aws_access_key_id", "aws_secret_access_key")
_OTHER_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE",
                      "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                      "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip
_CLIENT: ClientConfig = {"allow_http": True, "connect_timeout": timedelta(seconds=5)}
_RETRIES: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}


def stated_identity(href: str) -> str:
    """Return the identity that a server states by HEAD; empty if it states none.

    It is the length with the ETag, or else the version, or else the time of the last modification.

    Raises:
        NotFound: the object does not exist, or its server does not answer HEAD (405).
        Unreachable: HEAD is refused, or the server does not respond.
    """
    try:
        objects, name = _place(href, tuple(sorted(s3_settings().items())))
        facts = objects.head(name)
    except FileNotFoundError as error:
        raise NotFound(f"{href} does not exist") from error
    except (BaseError, OSError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        reason = shortened(first_line.rpartition(" - ")[2]).strip("'\"")
        raise Unreachable(f"{href}: its identity cannot be requested: {reason}") from error
    # obstore returns 1970-01-01 for a response without Last-Modified.
    modified = facts["last_modified"].isoformat() if facts["last_modified"].timestamp() else None
    stated = facts["e_tag"] or facts["version"] or modified
    return f"{facts['size']}-{stated}" if stated else ""


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
    if urlsplit(url).scheme == "s3" and (settings := s3_settings()):
        return from_url(url, client_options=_CLIENT, **settings)
    return from_url(url)


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


def gdal_settings() -> dict[str, str]:
    """Return GDAL's settings of S3 for the variables that only obstore reads."""
    settings = {}
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


@lru_cache(maxsize=32)
def _place(href: str, settings: tuple[tuple[str, Any], ...]) -> tuple[ObjectStore, str]:
    """Return the store of an href, and its name there."""
    parts = urlsplit(href)
    if parts.scheme in ("http", "https"):
        # The whole URL is the base, so that its query and its escapes stay as they are.
        return HTTPStore.from_url(href, client_options=_CLIENT, retry_config=_RETRIES), ""
    bucket, _, name = href.partition("://")[2].partition("/")
    known = dict(settings) if parts.scheme == "s3" else {}
    url = f"{parts.scheme}://{bucket}"
    return from_url(url, client_options=_CLIENT, retry_config=_RETRIES, **known), name


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
