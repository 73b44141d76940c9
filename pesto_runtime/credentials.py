"""Read the credentials of services and web servers: a JSON file that `PESTO_CREDENTIALS` names.

The file is `{origin: {token | token_file | user, password | headers, ca}}`. Secrets are values of
requests to their origin only: they are in no message, no representation of an object, no plan.
Credentials of buckets are in the variables that `remote.py` reads.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pesto_runtime.errors import InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

VARIABLE = "PESTO_CREDENTIALS"
"""Variable: path of the file of credentials."""

_PORTS = {"http": 80, "https": 443}
_FIELDS = ("token", "token_file", "user", "password", "headers", "ca")
_WAYS = ("token", "token_file", "user")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_ANY = re.compile(r"[^\ud800-\udfff]+")
_TEXTS = {
    "token": _TOKEN,
    "token_file": _ANY,
    "user": re.compile(r"[^:\ud800-\udfff]+"),
    "password": _ANY,
    "ca": _ANY,
}
"""Fields that are texts -> what they must match; JSON may have halves of a character."""

_MEANINGS = {
    "token": "visible ASCII characters without blanks",
    "user": "a text without a colon",
}

Origin = tuple[str, str, int]
"""Scheme, host and port of a URL."""


@dataclass(frozen=True)
class Credential:
    """The credentials of one origin.

    Attributes:
        origin: It, as it is written in the file.
        ca: File of the authorities by which its certificate is verified; None for those of the
            machine.
    """

    origin: str
    ca: str | None = None
    _authorization: str | None = field(default=None, repr=False)
    _headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    _token_file: Path | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers of a request to the origin; a token file is read each time.

        Raises:
            InvalidInput: the token file cannot be read, or has no token.
        """
        authorization = self.authorization()
        own = {} if authorization is None else {"Authorization": authorization}
        return {**own, **self._headers}

    def authorization(self) -> str | None:
        """Return the value of the header Authorization; None for an origin of other headers.

        Raises:
            InvalidInput: as for `headers`.
        """
        if self._token_file is None:
            return self._authorization
        where = f"token_file of {self.origin}: {self._token_file}"
        try:
            token = self._token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise InvalidInput(f"{where}: {reason}") from None
        if not _TOKEN.fullmatch(token):
            raise InvalidInput(f"{where} must have one token, of visible ASCII characters")
        return f"Bearer {token}"


def credential_of(url: str) -> Credential | None:
    """Return the credentials of a URL's origin; None without a file, or for another origin.

    Raises:
        InvalidInput: the file is missing, readable by others, or wrong; with every fault.
    """
    path = os.environ.get(VARIABLE)
    origin = _origin(url) if path else None
    return read_credentials(Path(path)).get(origin) if path and origin else None


def object_authorization(href: str) -> str | None:
    """Return the header Authorization for an object of a web server; None for one without.

    Raises:
        InvalidInput: as for `credential_of`; or the origin has `headers`, which a redirect to
            another server would carry there.
    """
    found = credential_of(href)
    if found is not None and found.authorization() is None and found.headers():
        raise InvalidInput(
            f"the credentials of {found.origin} are headers, which are for services only: its "
            "files are read by a token, or by user and password"
        )
    return found.authorization() if found else None


def use_credentials(path: str | Path | None) -> None:
    """Use a file of credentials in this process and in those that it starts; None for no change.

    Raises:
        InvalidInput: as for `credential_of`.
    """
    if path is not None:
        place = Path(path).absolute()
        read_credentials(place)
        os.environ[VARIABLE] = str(place)


def read_credentials(path: Path) -> Mapping[Origin, Credential]:
    """Read a file of credentials; again only if it has changed.

    Raises:
        InvalidInput: it is missing, readable by others, or wrong; with every fault.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise InvalidInput(f"{VARIABLE}={path}: {error.strerror}") from None
    if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput(
            f"{VARIABLE}={path} may be read or written by others (mode {facts.st_mode & 0o777:o}); "
            f"allow it to its owner alone: chmod 600 {path}"
        )
    return _read(path, (facts.st_mtime_ns, facts.st_size, facts.st_ino))


@lru_cache(maxsize=4)
def _read(path: Path, _version: tuple[int, ...]) -> Mapping[Origin, Credential]:
    faults, found = [], dict[Origin, Credential]()
    for name, entry in _document(path).items():
        origin, own = _origin(name), [*_faults(entry)]
        if origin is None or not _is_plain(name):
            faults.append(f"{_shown(name)} is not an origin, as https://host or http://host:8000")
        elif origin in found:
            faults.append(f"{name} is the origin of another entry too")
        elif own or not isinstance(entry, dict):
            faults += [f"{name}: {each}" for each in own]
        else:
            found[origin] = _credential(name, entry, path.parent)
    if faults:
        raise InvalidInput(f"{VARIABLE}={path}: {'; '.join(faults)}")
    return found


def _document(path: Path) -> dict[str, JsonValue]:
    try:
        document: JsonValue = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{VARIABLE}={path}: {error.strerror}") from None
    except ValueError as error:
        # Not the error itself, nor as the cause: it has the text of the file.
        place = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidInput(f"{VARIABLE}={path} is not JSON{place}") from None
    if not isinstance(document, dict):
        raise InvalidInput(f"{VARIABLE}={path} must be an object {{origin: credentials}}")
    return document


def _origin(url: str) -> Origin | None:
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or port is None:
        return None
    return parts.scheme, parts.hostname.lower().rstrip("."), port


def _is_plain(origin: str) -> bool:
    parts = urlsplit(origin)
    return "@" not in parts.netloc and not (parts.path or "?" in origin or "#" in origin)


def _shown(origin: str) -> str:
    """Return what was written as an origin without its user, its password and its query."""
    return shortened(re.sub(r"//[^/?#]*@", "//…@", origin.partition("?")[0]))


def _faults(entry: JsonValue) -> Iterator[str]:
    """Yield what is wrong with the credentials of an origin, without their values."""
    if not isinstance(entry, dict):
        yield f"must be an object of {', '.join(_FIELDS)}"
        return
    for name in sorted({*entry} - {*_FIELDS}):
        yield f"{shortened(name)} is not one of {', '.join(_FIELDS)}"
    ways = [name for name in _WAYS if name in entry]
    if len(ways) > 1:
        yield f"give one of {', '.join(ways)}"
    if not {*entry} & {*_FIELDS}:
        yield f"needs one of {', '.join((*_WAYS, 'headers', 'ca'))}"
    if ("user" in entry) != ("password" in entry):
        yield "user and password belong together"
    for name, pattern in _TEXTS.items():
        if name in entry and not _matches(pattern, entry[name]):
            yield f"{name} must be {_MEANINGS.get(name, 'a text that is not empty')}"
    yield from _header_faults(entry.get("headers", {}), ways)


def _header_faults(headers: JsonValue, ways: Sequence[str]) -> Iterator[str]:
    if not isinstance(headers, dict):
        yield "headers must be an object {name: value}"
        return
    for name, value in headers.items():
        if not _matches(_NAME, name) or not _matches(_VALUE, value):
            yield f"headers: {shortened(name)} must have the name and the value of an HTTP header"
        if ways and name.lower() == "authorization":
            yield f"give {ways[0]}, or the header Authorization"


def _matches(pattern: re.Pattern[str], value: JsonValue) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _credential(origin: str, entry: Mapping[str, JsonValue], folder: Path) -> Credential:
    authorization, headers = None, entry.get("headers")
    if "token" in entry:
        authorization = f"Bearer {entry['token']}"
    elif "user" in entry:
        pair = f"{entry['user']}:{entry['password']}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    return Credential(
        origin,
        ca=str(folder / str(entry["ca"])) if "ca" in entry else None,
        _authorization=authorization,
        _headers={n: str(text) for n, text in headers.items()} if isinstance(headers, dict) else {},
        _token_file=folder / str(entry["token_file"]) if "token_file" in entry else None,
    )
