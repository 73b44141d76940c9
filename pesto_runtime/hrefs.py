"""Decide which hrefs a service may read and write, and convert local paths to hrefs and back.

The decision compares names after resolving symbolic links. It does not open the href, and does not
query DNS: whoever connects asks for the address, too.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pydantic import ValidationError

from pesto_runtime.contract import ImageReference, bad_fields
from pesto_runtime.contract.band_files import BandFile, stack_href
from pesto_runtime.contract.selection import wrong_fragment
from pesto_runtime.errors import HrefRefused, InvalidInput, shortened

IMAGE_FORMS = (
    "an image is a path or href, with bands and window as in HREF#bands=green:2,nir:4, or an "
    "object {href, bands, window}, or {stack: {NAME: HREF, …}} for bands in files of their own"
)

_REMOTE = ("http", "https", "s3", "gs", "az", "memory")
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SUSPECT = re.compile(r"[\x00-\x20\x7f\\]")
_HIDDEN = re.compile(r"[\x00-\x1f\x7f\\]|%(2e|2f|5c|25|00)", re.IGNORECASE)
_HREF = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class _Place:
    """The target of an href, in a form that can be compared part by part."""

    origin: tuple[str, str, int | None]
    parts: tuple[str, ...]

    def contains(self, other: _Place) -> bool:
        return self.origin == other.origin and other.parts[: len(self.parts)] == self.parts


@dataclass(frozen=True, slots=True)
class Gate:
    """The access rules of a service.

    Attributes:
        allow: Prefixes (hrefs, or local paths) below which reading and writing is admitted. A
            prefix ends at a path boundary: `/data` contains `/data/a.tif`, not `/database`.
        local_files: Whether every local file may be read.
        networks: Networks, as `10.0.0.0/8`, in which the names of `allow` may have addresses.
        redirects: Whether a redirect is followed; each of its targets must be admitted, too.
        callbacks: Prefixes of addresses to which the end of a job may be sent.
    """

    allow: tuple[str, ...] = ()
    local_files: bool = False
    networks: tuple[str, ...] = ()
    redirects: bool = False
    callbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the prefixes and networks, so that a mistake is told at the start.

        Raises:
            HrefRefused: a prefix is no href.
            InvalidInput: a network is none.
        """
        for each in (*self.allow, *self.callbacks):
            _prefix(each)
        for each in self.networks:
            try:
                ipaddress.ip_network(each)
            except ValueError as error:
                raise InvalidInput(f"--allow-network {each}: {error}; as 10.0.0.0/8") from error

    def admit_read(self, href: str) -> str:
        """Return the href to open, symbolic links resolved.

        Raises:
            HrefRefused: it is not an href, its spelling hides its target, or no rule admits it.
        """
        place = _place(href)
        if not (self.local_files and place.origin[0] == "file") and not self._allows(place):
            raise HrefRefused(
                f"{shortened(href)} may not be read here; {_way_out(place, to_read=True)}"
            )
        return _opened(href, place)

    def admit_write(self, href: str) -> str:
        """Return the href to write to, symbolic links resolved.

        Raises:
            HrefRefused: it is not an href, or it is not below an `--allow` prefix.
        """
        place = _place(href)
        if not self._allows(place):
            raise HrefRefused(f"{shortened(href)} may not be written here; {_way_out(place)}")
        return _opened(href, place)

    def admit_callback(self, href: str) -> str:
        """Return an address to which a document may be sent.

        Raises:
            HrefRefused: it is not below a prefix of `callbacks`.
        """
        place = _place(href)
        if not any(_prefix(each).contains(place) for each in self.callbacks):
            raise HrefRefused(
                f"{shortened(href)} may not be called from here; start the service with --callback "
                f"{urlsplit(href).scheme}://{urlsplit(href).netloc}"
            )
        return href

    def admit_address(self, host: str, address: str) -> None:
        """Do nothing if a connection to an address of an admitted host may be opened.

        DNS may map a name to another address at any time (rebinding). A name may therefore have a
        public address, or one of `networks`; `localhost` one of this machine; an address is itself.

        Raises:
            HrefRefused: it may not.
        """
        found = _embedded(ipaddress.ip_address(address.partition("%")[0]))
        if is_loopback(host):
            is_admitted = found.is_loopback
        else:
            is_admitted = (found.is_global and not found.is_multicast) or _is_address(host)
        if not is_admitted and not any(found in ipaddress.ip_network(n) for n in self.networks):
            raise HrefRefused(
                f"{host} has the address {address}, which is not a public one; if it is meant, "
                f"start the service with --allow-network {address}"
            )

    def _allows(self, place: _Place) -> bool:
        return any(_prefix(each).contains(place) for each in self.allow)


def _embedded(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address inside an IPv6 one: mapped, 6to4, or NAT64 (RFC 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine.

    Only `localhost` and literal addresses do: DNS can map any other name to any address.

    >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("127.0.0.1.example.org")
    (True, True, False)
    """
    name = host.lower().rstrip(".").removeprefix("[").removesuffix("]")
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    # Python before 3.13 does not count ::ffff:127.0.0.1 as a loopback address.
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def looks_like_href(text: str) -> bool:
    """Whether a text starts with a scheme; base64 never does, because it has no colon.

    >>> looks_like_href("file:///a.tif"), looks_like_href("/9j/4AAQ"), looks_like_href("a.tif")
    (True, False, False)
    """
    return _HREF.match(text) is not None


def file_href(path: str | os.PathLike[str]) -> str:
    """Convert a local path to an href; a relative path starts at the working directory.

    >>> file_href("/data/50 %/a#1.tif")
    'file:///data/50%20%25/a%231.tif'
    """
    return "file://" + quote(os.path.abspath(path))  # noqa: PTH100  # keeps symlinks


def as_href(text: str) -> str:
    """Return an href unchanged, and a local path as an href.

    >>> as_href("s3://bucket/a.tif"), as_href("/data/a.tif")
    ('s3://bucket/a.tif', 'file:///data/a.tif')
    """
    return text if looks_like_href(text) else file_href(text)


def image_reference(value: object, *, base: Path | None = None) -> ImageReference:
    """Return the reference of an image that is given as a path, an href, or an object.

    A text whose `#` belongs to the name of an existing file is that file.

    Args:
        value: A path or href, with or without a fragment; an object `{href, bands, window}`, also
            as JSON text; or a reference.
        base: Folder that relative paths are relative to; the working directory by default.

    Raises:
        InvalidInput: it is none of these, or its fragment is wrong.
    """
    parsed = _parsed_image(value, base or Path())
    if looks_like_href(parsed.href):
        archive, mark, name = parsed.href.removeprefix("zip://").partition("!")
        if not parsed.href.startswith("zip://") or archive.startswith("/"):
            return parsed
        if not mark:
            raise InvalidInput(
                f"{parsed.href} does not say where the archive ends: zip://archive.zip!/scene.tif"
            )
        place = (base or Path()).absolute() / archive
        return parsed.model_copy(update={"href": f"zip://{place}!{name}"})
    return parsed.model_copy(update={"href": file_href((base or Path()) / parsed.href)})


def _parsed_image(value: object, base: Path) -> ImageReference:
    if isinstance(value, ImageReference):
        return value
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidInput(f"{shortened(value)} is not JSON: {error}") from error
    if isinstance(value, Mapping):
        try:
            if "stack" in value:
                rest = {name: each for name, each in value.items() if name != "stack"}
                value = {**rest, "href": _stacked(value["stack"], base)}
            return ImageReference.parse(value)
        except ValidationError as error:
            raise InvalidInput(IMAGE_FORMS, fields=bad_fields(error, value=value)) from error
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{IMAGE_FORMS}, not {shortened(value)}")
    return ImageReference.parse(value) if looks_like_href(value) else _of_path(value, base)


def _stacked(bands: object, base: Path) -> str:
    """Return the href of a scene of several files: name of a band -> its file, or an object."""
    if not isinstance(bands, Mapping) or not bands:
        raise InvalidInput(f"{IMAGE_FORMS}, not {shortened(bands)}")
    found = []
    for name, given in bands.items():
        facts = {"href": given} if isinstance(given, str) else given
        band = BandFile.model_validate({**facts, "name": name})
        href = band.href if looks_like_href(band.href) else file_href(base / band.href)
        found.append(band.model_copy(update={"href": href}))
    return stack_href(found)


def _of_path(text: str, base: Path) -> ImageReference:
    if text.startswith("/vsi"):
        raise InvalidInput(
            f"{text} is GDAL's own name of a file: write the file or URL itself, and a raster in "
            "an archive as zip:///folder/archive.zip!/scene.tif"
        )
    if os.path.exists(base / text):  # noqa: PTH110  # Path raises for a long name
        return ImageReference(href=text)
    parsed = ImageReference.parse(text)
    path, mark, fragment = text.rpartition("#")
    if mark and parsed.href == text and os.path.isfile(base / path):  # noqa: PTH113
        raise wrong_fragment(text, fragment, "there is no file of this whole name")
    return parsed


def path_of(href: str) -> Path:
    """Return the local path of a `file:///` href; symbolic links are not resolved.

    >>> path_of("file:///data/50%20%25/a%231.tif")
    PosixPath('/data/50 %/a#1.tif')

    Raises:
        InvalidInput: the href is not one of a local file.
    """
    split = urlsplit(href)
    is_local = split.scheme == "file" and split.netloc in ("", "localhost")
    if not is_local or not split.path.startswith("/") or split.query or split.fragment:
        raise InvalidInput(
            f"{shortened(href)} is not an href of a local file, as file:///data/a.tif"
        )
    return Path(unquote(split.path))


def _place(href: str) -> _Place:
    if _SUSPECT.search(href):
        raise HrefRefused(
            f"{shortened(href)} contains a blank, control character or backslash; percent-encode it"
        )
    try:
        split = urlsplit(href)
        port = split.port
    except ValueError as error:
        raise HrefRefused(f"{shortened(href)} is not an href: {error}") from error
    if split.scheme == "file":
        return _file_place(href)
    if split.scheme not in _REMOTE:
        raise HrefRefused(
            f"{shortened(href)} is not an href that is read or written here; write "
            f"file:///absolute/path or one of {', '.join(f'{each}://' for each in _REMOTE)}"
        )
    if "@" in split.netloc or not (split.hostname or split.scheme == "memory"):
        raise HrefRefused(f"{shortened(href)} must have a host, and no user name in it")
    host = (split.hostname or "").rstrip(".")
    origin = (split.scheme, host, port if port is not None else _PORTS.get(split.scheme))
    return _Place(origin, _remote_parts(href, split.path))


def _remote_parts(href: str, path: str) -> tuple[str, ...]:
    # Servers differ in when they decode a path and remove dot segments (RFC 3986, 5.2.4): a path
    # that depends on it may point outside the prefix that was compared.
    decoded = unquote(path)
    parts = decoded.split("/")
    if {".", ".."} & set(parts) or _HIDDEN.search(decoded) or "%2f" in path.lower():
        raise HrefRefused(
            f"{shortened(href)} hides where it points; write its path without '.', '..', encoded "
            "slashes or characters encoded twice"
        )
    return tuple(parts[1:] if parts[-1] else parts[1:-1])


def _file_place(href: str) -> _Place:
    try:
        real = os.path.realpath(path_of(href))
    except (InvalidInput, ValueError) as error:
        raise HrefRefused(f"{shortened(href)} is not file:///absolute/path") from error
    # GDAL opens a path below /vsicurl/ as a URL, and others as archives:
    # https://gdal.org/en/stable/user/virtual_file_systems.html
    if real.lower().startswith("/vsi"):
        raise HrefRefused(
            f"{shortened(href)} names a virtual file system of GDAL; name the file or URL itself"
        )
    return _Place(("file", "", None), tuple(part for part in real.split("/") if part))


def _prefix(prefix: str) -> _Place:
    return _place(as_href(prefix))


def _opened(href: str, place: _Place) -> str:
    """Return the href to open: of a file, the path that was compared; a remote href unchanged."""
    # Opening the original spelling would resolve its symbolic links again: a link that is replaced
    # after the comparison could then lead outside the admitted folder.
    return file_href("/" + "/".join(place.parts)) if place.origin[0] == "file" else href


def _way_out(place: _Place, *, to_read: bool = False) -> str:
    scheme, host, port = place.origin
    folder = "/".join(place.parts[:-1])
    if scheme == "file":
        further = " or with --local-files, or send the pixels" if to_read else ""
        return f"start the service with --allow {file_href('/' + folder)}{further}"
    where = host if port == _PORTS.get(scheme) else f"{host}:{port}"
    return f"start the service with --allow {scheme}://{where}/{folder}"
