"""The file of credentials: what it may have, whose requests it is for, and what is never shown."""

from __future__ import annotations

import base64
import json
import os
import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pesto_runtime.credentials import (
    VARIABLE,
    credential_of,
    object_authorization,
    read_credentials,
    use_credentials,
)
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import JsonValue

SECRET = "s3cret-Zq9"  # noqa: S105  # of the test
HOST = "https://h.example.org"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[JsonValue], Path]:
    """Write a file of credentials that only its owner may read, and name it by the variable."""

    def written(document: JsonValue) -> Path:
        path = tmp_path / "credentials.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        path.chmod(0o600)
        monkeypatch.setenv(VARIABLE, str(path))
        return path

    return written


@pytest.mark.parametrize(
    ("entry", "headers"),
    [
        ({"token": SECRET}, {"Authorization": f"Bearer {SECRET}"}),
        (
            {"user": "ann", "password": f"{SECRET}: ü"},
            {"Authorization": "Basic " + base64.b64encode(f"ann:{SECRET}: ü".encode()).decode()},
        ),
        ({"headers": {"X-Key": SECRET}}, {"X-Key": SECRET}),
        (
            {"token": SECRET, "headers": {"X-Team": "a b"}},
            {"Authorization": f"Bearer {SECRET}", "X-Team": "a b"},
        ),
        ({"ca": "ca.pem"}, {}),
    ],
)
def test_an_entry_gives_the_headers_of_its_origin(
    write: Callable[[JsonValue], Path], entry: JsonValue, headers: dict[str, str]
) -> None:
    """On every path of it, with the default port; another origin (control) has none."""
    path = write({HOST: entry})
    for url in (f"{HOST}/api/v1", f"{HOST}:443/a.tif?x=1", "https://H.EXAMPLE.org"):
        found = credential_of(url)
        assert found is not None
        assert found.headers() == headers
        assert found.ca in (None, str(path.parent / "ca.pem"))
    for other in ("http://h.example.org", f"{HOST}:8443", "https://example.org",
                  "https://h.example.org.evil.org", "s3://h.example.org/x", "no url"):  # fmt: skip
        assert credential_of(other) is None


def test_a_token_file_is_read_for_each_request(
    write: Callable[[JsonValue], Path], tmp_path: Path
) -> None:
    """It is beside the file of credentials, and may be replaced while a run goes on."""
    write({HOST: {"token_file": "token"}})
    for token in ("first", "second"):
        (tmp_path / "token").write_text(f"{token}\n")
        found = credential_of(HOST)
        assert found is not None
        assert found.headers() == {"Authorization": f"Bearer {token}"}
    for text in ("", "two words"):
        (tmp_path / "token").write_text(text)
        with pytest.raises(InvalidInput, match=r"token_file of https://h.example.org"):
            object_authorization(HOST)
    (tmp_path / "token").unlink()
    with pytest.raises(InvalidInput, match="No such file"):
        object_authorization(HOST)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({f"{HOST}/api": {"token": SECRET}}, "not an origin"),
        ({f"{HOST}/": {"token": SECRET}}, "not an origin"),
        ({f"https://ann:{SECRET}@h.example.org": {"token": SECRET}}, "not an origin"),
        ({f"{HOST}?key={SECRET}": {"token": SECRET}}, "not an origin"),
        ({"s3://bucket": {"token": SECRET}}, "not an origin"),
        ({"h.example.org": {"token": SECRET}}, "not an origin"),
        ({HOST: {"token": SECRET}, f"{HOST}:443": {"token": SECRET}}, "another entry"),
        ({HOST: {"token": SECRET, "user": "a", "password": SECRET}}, "give one of token, user"),
        ({HOST: {"token": SECRET, "token_file": "t"}}, "give one of token, token_file"),
        ({HOST: {"user": "ann"}}, "belong together"),
        ({HOST: {"password": SECRET}}, "belong together"),
        ({HOST: {"user": "a:b", "password": SECRET}}, "without a colon"),
        ({HOST: {"tokn": SECRET}}, "'tokn' is not one of"),
        ({HOST: {}}, "needs one of"),
        ({HOST: SECRET}, "must be an object"),
        ({HOST: {"token": f"{SECRET} x"}}, "visible ASCII"),
        ({HOST: {"token": [SECRET]}}, "visible ASCII"),
        ({HOST: {"user": "a", "password": {"x": SECRET}}}, "password must be"),
        ({HOST: {"user": "a", "password": f"{SECRET}\ud800"}}, "password must be"),
        ({HOST: {"headers": [SECRET]}}, "headers must be an object"),
        ({HOST: {"headers": {"X-Key": f"{SECRET}\r\nX-Other: 1"}}}, "'X-Key' must have"),
        ({HOST: {"headers": {"a b": SECRET}}}, "'a b' must have"),
        ({HOST: {"token": SECRET, "headers": {"authorization": SECRET}}}, "or the header"),
        ([SECRET], "must be an object"),
        (f'{{"{HOST}":\n{{"token": "{SECRET}"', "is not JSON at line 2"),
    ],
)
def test_a_wrong_file_is_refused_without_its_secrets(
    write: Callable[[JsonValue], Path], document: JsonValue, fault: str
) -> None:
    """The message has file and fault; neither it nor the traceback has a value."""
    path = write(document)
    with pytest.raises(InvalidInput, match=fault) as caught:
        credential_of("https://other.example.org")
    assert str(path) in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_every_fault_is_named(write: Callable[[JsonValue], Path]) -> None:
    """At once, with its origin."""
    write({"a": {"token": "t"}, HOST: {"tokn": "t", "user": "u"}})
    with pytest.raises(InvalidInput) as caught:
        credential_of(HOST)
    for fault in ("'a' is not an origin", "'tokn' is not", "belong together"):
        assert fault in str(caught.value)


@given(data=st.data())
@settings(
    deadline=None, derandomize=True, max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_no_error_shows_a_value(write: Callable[[JsonValue], Path], data: st.DataObject) -> None:
    """Of documents of any shape; origins and names of fields are no secrets."""
    secret = st.just(SECRET)
    leaf = secret | st.lists(secret, max_size=2) | st.dictionaries(st.just("x"), secret, max_size=1)
    names = st.sampled_from(["token", "user", "password", "headers", "other"])
    entry = leaf | st.dictionaries(names, leaf, max_size=4)
    origins = st.sampled_from([HOST, "http://h:1", "ftp://h", f"https://u:{SECRET}@h", "x"])
    document = data.draw(st.dictionaries(origins, entry, max_size=3))
    write(document)  # type: ignore[arg-type]  # dicts of mypy are invariant
    try:
        shown = repr(credential_of(HOST))
    except InvalidInput as error:
        shown = "".join(traceback.format_exception(error))
    assert SECRET not in shown


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_read_is_refused(
    write: Callable[[JsonValue], Path], mode: int
) -> None:
    """With the command that corrects it; a file of its owner (control) is read."""
    path = write({HOST: {"token": SECRET}})
    path.chmod(mode)
    with pytest.raises(InvalidInput, match=f"chmod 600 {path}"):
        credential_of(HOST)
    path.chmod(0o400)
    assert credential_of(HOST) is not None


def test_a_changed_file_is_read_again(write: Callable[[JsonValue], Path]) -> None:
    """Also with the same size."""
    for token in ("one", "two"):
        write({HOST: {"token": token}})
        assert object_authorization(HOST) == f"Bearer {token}"


def test_headers_are_for_services_only(write: Callable[[JsonValue], Path]) -> None:
    """A redirect of a file server would carry them to another origin; a token (control) is not."""
    write({HOST: {"headers": {"X-Key": SECRET}}, "http://h": {"ca": "c"}})
    with pytest.raises(InvalidInput, match="services only") as caught:
        object_authorization(f"{HOST}/a.tif?signature={SECRET}")
    assert SECRET not in str(caught.value)
    assert object_authorization("http://h/a.tif") is None


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent; without the variable (control) no file is needed."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert credential_of(HOST) is None
    with pytest.raises(InvalidInput, match=r"none\.json: No such file"):
        use_credentials(tmp_path / "none.json")
    assert VARIABLE not in os.environ
    with pytest.raises(InvalidInput, match="No such file"):
        read_credentials(tmp_path / "none.json")
