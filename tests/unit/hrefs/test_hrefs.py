"""The gate: what it admits, and the many ways of writing something else than one means."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.errors import HrefRefused, InvalidInput
from pesto_runtime.hrefs import Gate, file_href, is_loopback, looks_like_href, path_of

HOME = Gate(local_files=True)
AWAY = Gate()
names = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    "href", ["file:///data/a.tif", "file://localhost/data/a.tif", "FILE:///data/a%20b.tif"]
)
def test_local_files_are_read_when_that_is_asked_for(href: str) -> None:
    """Without the option, a file of this machine is not read, and the error has both ways out."""
    assert HOME.admit_read(href)
    with pytest.raises(HrefRefused, match=r"--allow file:///data or with --local-files"):
        AWAY.admit_read(href)


@pytest.mark.parametrize(
    "href", ["http://127.0.0.1:8000/a.tif", "http://[::1]/a", "http://localhost/a"]
)
def test_web_servers_of_this_machine_are_no_local_files(href: str) -> None:
    """They are read below `--allow` alone, as all others."""
    with pytest.raises(HrefRefused, match="--allow"):
        HOME.admit_read(href)
    assert Gate(allow=(href,)).admit_read(href) == href


PUBLIC, WITHIN = Gate(), Gate(networks=("10.0.0.0/8", "127.0.0.5/32"))


@pytest.mark.parametrize(
    ("host", "address", "public", "within"),
    [
        ("tiles.example.org", "93.184.216.34", True, True),
        ("tiles.example.org", "2606:2800:220:1::1", True, True),
        ("tiles.example.org", "127.0.0.1", False, False),
        ("tiles.example.org", "127.0.0.5", False, True),
        ("tiles.example.org", "10.1.2.3", False, True),
        ("tiles.example.org", "192.168.1.1", False, False),
        ("tiles.example.org", "169.254.169.254", False, False),
        ("tiles.example.org", "100.64.0.1", False, False),
        ("tiles.example.org", "0.0.0.0", False, False),  # noqa: S104  # refused
        ("tiles.example.org", "224.0.0.1", False, False),
        ("tiles.example.org", "::1", False, False),
        ("tiles.example.org", "fe80::1%eth0", False, False),
        ("tiles.example.org", "fd00::1", False, False),
        ("tiles.example.org", "::ffff:127.0.0.1", False, False),
        ("tiles.example.org", "::ffff:10.0.0.1", False, True),
        ("tiles.example.org", "64:ff9b::a9fe:a9fe", False, False),  # 169.254.169.254 by NAT64
        ("tiles.example.org", "2002:7f00:1::", False, False),  # 127.0.0.1 by 6to4
        ("127.1", "127.0.0.1", False, False),
        ("2130706433", "127.0.0.1", False, False),
        ("localhost", "127.0.0.1", True, True),
        ("localhost", "10.0.0.1", False, True),
        ("10.9.9.9", "10.9.9.9", True, True),  # --allow has this very address
    ],
)
def test_a_name_has_public_addresses_or_those_of_given_networks(
    host: str, address: str, public: bool, within: bool
) -> None:
    """What DNS says of an admitted name is not believed where it points inside."""
    for gate, is_admitted in ((PUBLIC, public), (WITHIN, within)):
        if is_admitted:
            gate.admit_address(host, address)
        else:
            with pytest.raises(HrefRefused, match="--allow-network"):
                gate.admit_address(host, address)


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "internal", "10.0.0.1/8", ""])
def test_a_network_that_is_none_is_told_at_the_start(wrong: str) -> None:
    """The option is named with its value."""
    with pytest.raises(InvalidInput, match="--allow-network"):
        Gate(networks=(wrong,))


@pytest.mark.parametrize(
    "href",
    [
        "/data/a.tif",
        "data/a.tif",
        "/vsicurl/http://127.0.0.1/a.tif",
        "file:///vsicurl/http://10.0.0.1/a.tif",
        "file:////vsicurl/http://10.0.0.1/a.tif",
        "file:///data/../vsizip/data/a.zip/a.tif",
        "file:///%76sizip/data/a.zip",
        "GTIFF_DIR:1:/data/a.tif",
        'NETCDF:"/data/a.nc":band',
        "file:GTIFF_DIR:1:/data/a.tif",
        "file:relative.tif",
        "file://elsewhere/data/a.tif",
        "file:///data/a.tif?x",
        "file:///data/a.tif#x",
        "file:///data/a%00.tif",
        "ftp://127.0.0.1/a.tif",
        "zip+file:///data/a.zip!a.tif",
        "http://user@127.0.0.1/a.tif",
        "http://127.0.0.1@10.0.0.1/a.tif",
        "http://127.0.0.1\\@10.0.0.1/a.tif",
        "http://127.0.0.1.example.org/a.tif",
        "http://localhost.example.org/a.tif",
        "http://2130706433/a.tif",
        "http://127.1/a.tif",
        "http://0.0.0.0/a.tif",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/a.tif",
        "http:///a.tif",
        "http://127.0.0.1:99999/a.tif",
        "http://127.0.0.1/a\r\nb.tif",
        "http://127.0.0.1/../a.tif",
        "s3://bucket/a.tif",
        "<VRTDataset/>",
        "",
    ],
)
def test_nothing_but_a_plain_href_of_this_machine_passes(href: str) -> None:
    """Virtual file systems, subdatasets, other hosts and disguises of them are refused by name."""
    with pytest.raises(HrefRefused):
        HOME.admit_read(href)


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        ("/data", "file:///data/a.tif", "file:///database/a.tif"),
        ("/data/", "file:///data/b/a.tif", "file:///data/../etc/passwd"),
        ("file:///data", "file:///data", "file:///data%2F..%2Fetc/passwd"),
        ("file:///data", "file:///x/../data/a.tif", "file:///data/b/../../etc/passwd"),
        ("http://host/a", "http://HOST:80/a/b.tif", "http://host/ab.tif"),
        ("http://host/a", "http://host./a/b.tif", "https://host/a/b.tif"),
        ("http://host:8/a/", "http://host:8/a/b.tif", "http://host:9/a/b.tif"),
        ("http://host/a", "http://host/a/b%20c.tif", "http://host/a/%2e%2e/b.tif"),
        ("http://host/a", "http://host/a/b.tif?x=../c", "http://host/a/%252e%252e/b.tif"),
        ("http://host/a", "http://host/a", "http://host/a%2f..%2fb.tif"),
        ("http://host", "http://host/a.tif", "http://host@other/a.tif"),
        ("s3://bucket/a", "s3://bucket/a/b.tif", "s3://bucket2/a/b.tif"),
        ("s3://bucket/a", "s3://bucket/a", "s3://bucket/a/../b.tif"),
    ],
)
def test_an_allowed_prefix_ends_at_a_path_boundary(prefix: str, inside: str, outside: str) -> None:
    """Below the prefix everything is admitted, to read and to write; beside it nothing is."""
    gate = Gate(allow=("/nothing", prefix))
    assert gate.admit_read(inside)
    assert gate.admit_write(inside)
    with pytest.raises(HrefRefused):
        gate.admit_read(outside)
    with pytest.raises(HrefRefused):
        gate.admit_write(outside)


def test_writing_always_needs_a_prefix() -> None:
    """A service that reads any local file writes none that it was not given."""
    assert HOME.admit_read("file:///data/a.tif")
    with pytest.raises(HrefRefused, match=r"--allow file:///data$"):
        HOME.admit_write("file:///data/a.tif")


def test_a_link_out_of_the_prefix_is_followed_before_comparing(tmp_path: Path) -> None:
    """A symbolic link inside the allowed folder opens nothing outside of it."""
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    allowed.mkdir()
    secret.mkdir()
    (allowed / "out").symlink_to(secret)
    (allowed / "in").symlink_to(allowed)
    gate = Gate(allow=(str(allowed),))
    assert gate.admit_write(file_href(allowed / "in" / "a.tif")) == file_href(allowed / "a.tif")
    for href in (file_href(allowed / "out" / "a.tif"), file_href(allowed / "out") + "/../secret/a"):
        with pytest.raises(HrefRefused):
            gate.admit_write(href)


def test_a_prefix_that_is_a_link_means_what_it_points_to(tmp_path: Path) -> None:
    """`--allow` of a link admits the folder behind it, under both names."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    gate = Gate(allow=(file_href(link),))
    assert gate.admit_read(file_href(link / "a")) == gate.admit_read(file_href(real / "a"))


@settings(deadline=None, derandomize=True)
@given(st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4))
def test_any_path_survives_being_an_href(parts: list[str]) -> None:
    """Blanks, percent signs, hashes and question marks of a file name come back as they were."""
    path = Path("/", *parts)
    assert path_of(file_href(path)) == path


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.lists(
        st.sampled_from(["..", ".", "a", "data", "", "%2e%2e", "%2F", "..%2f", "vsizip", "data2"]),
        max_size=8,
    )
)
def test_what_is_admitted_lies_below_the_prefix(parts: list[str]) -> None:
    """However a path climbs up and down, what the gate returns is inside what was allowed."""
    gate = Gate(allow=("/nowhere/data",))
    try:
        admitted = gate.admit_write("file:///nowhere/" + "/".join(parts))
    except HrefRefused:
        return
    real = os.path.realpath(path_of(admitted))
    assert real == "/nowhere/data" or real.startswith("/nowhere/data/")


def test_some_climbing_paths_are_admitted_and_some_refused() -> None:
    """Control of the property above: both branches of it are taken."""
    gate = Gate(allow=("/nowhere/data",))
    assert gate.admit_write("file:///nowhere/a/../data/b") == "file:///nowhere/data/b"
    with pytest.raises(HrefRefused):
        gate.admit_write("file:///nowhere/data/../a")


@pytest.mark.parametrize(
    ("host", "claim"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),  # noqa: S104  # the control
        ("10.0.0.1", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_only_localhost_and_its_addresses_are_loopback(host: str, claim: bool) -> None:
    """A name that DNS resolves is never this machine."""
    assert is_loopback(host) is claim


def test_base64_never_looks_like_an_href() -> None:
    """Its alphabet has no colon; an absolute path without a scheme is no href either."""
    assert not looks_like_href("AAAA/+bc==")
    assert not looks_like_href("/data/a.tif")
    assert looks_like_href("gs://bucket/" + quote("a b.tif"))


@pytest.mark.parametrize("href", ["http://host/a", "file://host/a", "file:a", "/a", "file:///a?b"])
def test_only_a_local_file_has_a_path(href: str) -> None:
    """Anything else is refused by name rather than opened as something near."""
    with pytest.raises(InvalidInput, match="local file"):
        path_of(href)


def test_a_service_reads_no_list_of_files() -> None:
    """A scene of several files is for the user of this process alone, whatever is allowed."""
    href = 'stack:[{"href":"file:///data/a.tif"}]'
    assert HOME.admit_read("file:///data/a.tif")
    for gate in (HOME, AWAY, Gate(allow=("/",), local_files=True)):
        with pytest.raises(HrefRefused):
            gate.admit_read(href)
