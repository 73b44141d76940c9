"""Services and scenes behind a real proxy that asks for credentials; no output has a secret."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.client.async_client import AsyncClient
from pesto_runtime.client.client import Client
from pesto_runtime.credentials import VARIABLE
from pesto_runtime.errors import CredentialsRefused, PestoError, RasterUnreadable, StoreFailed
from pesto_runtime.places import place_of
from pesto_runtime.raster.identity import identity_of
from pesto_runtime.raster.read import read_scene
from tests.support.commands import pesto, saved, served
from tests.support.file_server import serving
from tests.support.gatekeeper import Gatekeeper, gatekeeper
from tests.support.processes import widest
from tests.support.rasters import noise, write_scene
from tests.support.runs import PROCESSES, chain, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

pytestmark = pytest.mark.contract

SECRET = "s3cret-Zq9"  # noqa: S105  # of the test
BASIC = base64.b64encode(f"ann:{SECRET}".encode()).decode()
WAYS: dict[str, tuple[JsonValue, dict[str, str]]] = {
    "token": ({"token": SECRET}, {"Authorization": f"Bearer {SECRET}"}),
    "basic": ({"user": "ann", "password": SECRET}, {"Authorization": f"Basic {BASIC}"}),
    "headers": ({"headers": {"X-Key": SECRET}}, {"X-Key": SECRET}),
}


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with served(f"{PROCESSES}:grow") as url:
        yield url.removesuffix("/api/v1")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Gatekeeper]:
    """A server of a scene and a pipeline, behind a proxy that wants a token."""
    folder = tmp_path / "served"
    folder.mkdir()
    write_scene(folder / "s.tif", noise(600, 40))
    with (
        serving(folder, tmp_path / "requests.log") as server,
        gatekeeper(tmp_path / "files.log", server.url, WAYS["token"][1]) as guard,
    ):
        yield guard


def allow(path: Path, document: dict[str, JsonValue]) -> Path:
    """Write a file of credentials."""
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return path


def everything_below(folder: Path) -> bytes:
    """The bytes of all files of a run."""
    return b"".join(each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file())


@pytest.mark.parametrize("way", WAYS)
def test_a_client_sends_the_credentials_of_its_service(
    tmp_path: Path, service: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Without them, or with others (controls), the error says how to give them."""
    entry, needed = WAYS[way]
    with gatekeeper(tmp_path / "log", service, needed) as guard, Client(guard.url) as client:
        monkeypatch.setenv(VARIABLE, str(tmp_path / "c.json"))
        documents: list[dict[str, JsonValue]] = [{}, {guard.url: {"token": f"not-{SECRET}"}}]
        for document in documents:
            allow(tmp_path / "c.json", document)
            with pytest.raises(CredentialsRefused, match="--credentials") as caught:
                client.describe()
            assert SECRET not in str(caught.value)
        allow(tmp_path / "c.json", {guard.url: entry})
        pixels = noise(30, 20)
        made = client.process({"image": pixels})["image"]
        assert isinstance(made, np.ndarray)
        assert np.array_equal(made[0], widest(pixels, 1)[0])
        assert asyncio.run(name_of(guard.url)) == "grow"


async def name_of(url: str) -> str:
    """The name of a process, requested by the other client."""
    async with AsyncClient(url) as client:
        return (await client.describe()).name


def test_a_protected_service_runs_over_a_protected_scene(
    tmp_path: Path, service: str, files: Gatekeeper
) -> None:
    """Discovery, plan and calls; no file, line or argument has a secret."""
    entry, needed = WAYS["basic"]
    with gatekeeper(tmp_path / "service.log", service, needed) as guard:
        path = allow(tmp_path / "c.json", {guard.url: entry, files.url: {"token": SECRET}})
        given = ["-i", f"image={files.url}/s.tif", "--credentials", path]
        found = pesto("discover", guard.url, "--save", tmp_path / "catalog", "--credentials", path)
        planned = pesto("plan", guard.url, *given, "--json")
        done = pesto(
            "run", guard.url, *given, "-o", tmp_path / "out", "--keep", "--tile", 200,
            "--executor", "processes", "--json",
        )  # fmt: skip
        log = guard.requests()
    for each in (found, planned, done):
        assert each.returncode == 0, each.stderr
    assert {line[":status"] for line in log if "/process" in line[":path"]} == {"200"}
    local = run_local(chain("grow"), tmp_path / "local", {"scene": tmp_path / "served" / "s.tif"})
    assert (tmp_path / "out" / "image.tif").read_bytes() == (
        local.folder / "image.tif"
    ).read_bytes()
    shown = "".join(f"{each.stdout}{each.stderr}{each.args}" for each in (found, planned, done))
    for folder in ("out", "catalog"):
        shown += everything_below(tmp_path / folder).decode(errors="replace")
    for secret in (SECRET, BASIC):
        assert secret not in shown
    assert SECRET in path.read_text(), "the control"


def test_files_of_a_web_server_are_read_with_its_credentials(
    tmp_path: Path, files: Gatekeeper, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Facts, identity and pixels of a scene, and a JSON file; without them (control) nothing."""
    saved(tmp_path / "served" / "p.json", {"name": "p"})
    scene, href = f"{files.url}/s.tif", f"{files.url}/p.json"
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(RasterUnreadable):
        read_scene(scene)
    with pytest.raises(StoreFailed, match="credentials"):
        place_of(href).read_text()
    path = allow(tmp_path / "c.json", {files.url: {"token": SECRET}})
    monkeypatch.setenv(VARIABLE, str(path))
    caplog.set_level(logging.DEBUG)
    assert json.loads(place_of(href).read_text()) == {"name": "p"}
    assert read_scene(scene).identity == identity_of(scene) != ""
    done = run_local(chain("grow"), tmp_path / "out", {"scene": scene})
    plain = run_local(chain("grow"), tmp_path / "p", {"scene": tmp_path / "served" / "s.tif"})
    assert np.array_equal(done.pixels(), plain.pixels())
    assert SECRET not in caplog.text
    assert SECRET not in os.environ.values()
    assert SECRET.encode() not in everything_below(tmp_path / "out")


@pytest.mark.parametrize("way", ["token", "basic"])
def test_a_redirect_carries_no_credential_to_another_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Of files, by GDAL and by obstore; the first server (control) has received it."""
    folder = tmp_path / "served"
    folder.mkdir()
    write_scene(folder / "s.tif", noise(600, 40))
    entry, needed = WAYS[way]
    with (
        serving(folder, tmp_path / "requests.log") as server,
        gatekeeper(tmp_path / "other.log", server.url) as other,
        gatekeeper(tmp_path / "first.log", other.url, needed) as first,
    ):
        monkeypatch.setenv(VARIABLE, str(allow(tmp_path / "c.json", {first.url: entry})))
        href = f"{first.url}/away/s.tif"
        assert place_of(href).read_bytes() == (folder / "s.tif").read_bytes()
        done = run_local(chain("grow"), tmp_path / "out", {"scene": href})
        plain = run_local(chain("grow"), tmp_path / "p", {"scene": folder / "s.tif"})
        assert np.array_equal(done.pixels(), plain.pixels())
        sent, carried = first.requests(), other.requests()
    assert {line.get("authorization") for line in sent} == {*needed.values()}
    assert carried
    assert {line.get("authorization") for line in carried} == {None}


@pytest.mark.parametrize("way", WAYS)
def test_a_client_follows_no_redirect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """An error names the service; the other server receives nothing at all."""
    entry, needed = WAYS[way]
    with (
        gatekeeper(tmp_path / "other.log") as other,
        gatekeeper(tmp_path / "first.log", other.url, needed) as first,
    ):
        monkeypatch.setenv(VARIABLE, str(allow(tmp_path / "c.json", {first.url: entry})))
        with Client(f"{first.url}/away") as client, pytest.raises(PestoError) as caught:
            client.describe()
        assert SECRET not in str(caught.value)
        assert first.requests()
        assert other.requests() == []


def test_headers_of_the_caller_win(
    tmp_path: Path, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of an Airflow connection; other headers of the file are added to them."""
    with gatekeeper(tmp_path / "log", service) as guard:
        entry: JsonValue = {"token": SECRET, "headers": {"X-Team": "eo"}}
        monkeypatch.setenv(VARIABLE, str(allow(tmp_path / "c.json", {guard.url: entry})))
        for headers in ({}, {"Authorization": "Bearer mine"}):
            with Client(guard.url, headers=headers) as client:
                assert client.health() == "OK"
        first, *_, last = guard.requests()
    assert first["authorization"] == f"Bearer {SECRET}"
    assert (last["authorization"], last["x-team"]) == ("Bearer mine", "eo")
