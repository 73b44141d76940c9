"""The hook against real services: the test button, the verbs, and credentials on every request."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from pesto_airflow.hooks import PestoHook
from pesto_airflow.trial.standalone import free_port
from tests.contract.serving import Server, lines_of
from tests.support.busy import busy_service
from tests.support.gatekeeper import gatekeeper

if TYPE_CHECKING:
    from pathlib import Path


def connect(monkeypatch: pytest.MonkeyPatch, **fields: object) -> PestoHook:
    """A hook of a connection as an environment variable has it."""
    document = json.dumps({"conn_type": "pesto", **fields})
    monkeypatch.setenv("AIRFLOW_CONN_SERVICE", document)
    return PestoHook("service")


def test_the_test_button_shows_the_service_that_responds(
    monkeypatch: pytest.MonkeyPatch, errands: Server
) -> None:
    """Its name, version and health; or why there is none."""
    assert connect(monkeypatch, host=errands.url).test_connection() == (True, "errand 1: OK")
    absent = connect(monkeypatch, host="127.0.0.1", port=free_port(), extra={"retries": 0})
    is_right, text = absent.test_connection()
    assert not is_right
    assert "unreachable" in text
    is_right, text = connect(monkeypatch).test_connection()
    assert not is_right
    assert "/host" in text


def test_each_verb_is_one_call(errands: Server, tmp_path: Path) -> None:
    """By the URL alone, without any connection."""
    hook, path = PestoHook(None, service=errands.url), str(tmp_path / "log")
    assert hook.health() == "OK"
    assert hook.describe().name == "errand"
    assert hook.process({"path": path, "name": "a"}) == {"name": "a"}
    inputs = {"path": path, "name": "b"}
    job = hook.submit(inputs, key=f"key {path}", lease_s=60)
    assert hook.submit(inputs, key=f"key {path}", lease_s=60).id == job.id
    with hook.client() as client:
        client.wait(job.id)
    assert hook.status(job.id).state == "successful"
    assert hook.result(job.id) == {"name": "b"}
    assert hook.cancel(job.id).state == "dismissed"
    assert lines_of(tmp_path / "log") == ["begin a", "end a", "begin b", "end b"]


def test_credentials_are_sent_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """By both clients; the control, without a password, sends none."""
    with busy_service(times=0, retry_after=1) as service:
        at: dict[str, object] = {"host": "127.0.0.1", "port": service.port}
        connect(monkeypatch, **at).describe()
        assert "authorization" not in service.headers
        hook = connect(monkeypatch, **at, password="token")  # noqa: S106  # not a real one
        hook.describe()
        assert service.headers["authorization"] == "Bearer token"
        hook.process({"path": "/a", "name": "a"})
        assert service.headers["authorization"] == "Bearer token"
        service.headers = {}

        async def describe() -> str:
            async with await hook.aclient() as client:
                return (await client.describe()).name

        assert asyncio.run(describe()) == "errand"
        assert service.headers["authorization"] == "Bearer token"


def test_the_test_button_names_refused_credentials(
    monkeypatch: pytest.MonkeyPatch, errands: Server, tmp_path: Path
) -> None:
    """Not as a misbehaving service; with the right token it shows the service (control)."""
    upstream = errands.url.removesuffix("/api/v1")
    with gatekeeper(tmp_path / "log", upstream, {"Authorization": "Bearer right"}) as guard:
        wrong = connect(monkeypatch, host=guard.url, password="wrong")  # noqa: S106  # not real
        is_right, text = wrong.test_connection()
        assert (is_right, text.partition(":")[0]) == (False, "Credentials refused")
        right = connect(monkeypatch, host=guard.url, password="right")  # noqa: S106  # not real
        assert right.test_connection() == (True, "errand 1: OK")


def test_a_missing_connection_is_an_error_of_airflow() -> None:
    """There is no fallback."""
    with pytest.raises(AirflowNotFoundException):
        PestoHook("absent").endpoint()
