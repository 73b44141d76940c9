"""Connections of a pipeline's tasks, executed as Airflow would: of real services and stores."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
import pytest
from airflow.sdk import DAG, Connection
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from obstore.store import AzureStore, GCSStore

from pesto_airflow import (
    PestoMapOperator,
    PestoPlanOperator,
    PestoPublishOperator,
    pesto_pipeline,
)
from pesto_airflow.connections import RunConnections
from pesto_airflow.errors import PestoTaskFailed
from pesto_airflow.operators.run import RunOperator
from pesto_airflow.store_connections import environment, variables_of
from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import path_of
from pesto_runtime.remote import gdal_settings, open_bucket
from tests.support.airflow_tasks import Run
from tests.support.commands import saved, served
from tests.support.gatekeeper import Gatekeeper, gatekeeper
from tests.support.rasters import noise, write_scene
from tests.support.runs import PROCESSES, chain, run_local
from tests.unit.airflow_pipeline.test_task_groups import catalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


SECRET = "s3cret-Zq9-canary"  # noqa: S105  # of the test
DOCUMENT = chain("grow")


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gatekeeper]:
    """A service behind a proxy that requires a token."""
    with (
        served(f"{PROCESSES}:grow", "--workers", 1) as url,
        gatekeeper(
            tmp_path_factory.mktemp("guard") / "log",
            url.removesuffix("/api/v1"),
            {"Authorization": f"Bearer {SECRET}"},
        ) as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def without_urls(tmp_path: Path) -> Path:
    """A catalog of descriptions without URLs."""
    folder = catalog(DOCUMENT, tmp_path / "catalog")
    for path in folder.iterdir():
        document = json.loads(path.read_text())
        # As a service of this package is saved, but without its URL.
        del document["url"]
        saved(path, {**document, "transports": ["application/json", "multipart/form-data"]})
    return folder


def connect(monkeypatch: pytest.MonkeyPatch, conn_id: str, **fields: object) -> None:
    """Set a connection by a variable, as workers have them."""
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))


def planner(folder: Path, **arguments: object) -> PestoPlanOperator:
    """The task that plans, over a small scene."""
    scene = write_scene(folder / "s.tif", noise(300, 120))
    document = {name: each for name, each in DOCUMENT.items() if name != "services"}
    return PestoPlanOperator(
        task_id="plan", pipeline=document, services=folder / "catalog", folder=folder / "out",
        inputs={"scene": str(scene)}, tile=100, max_tasks=1, **arguments,  # type: ignore[arg-type]  # as given
    )  # fmt: skip


def test_one_connection_gives_the_url_and_the_token(
    tmp_path: Path, guard: Gatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog has descriptions only. The plan has the URL; nothing written has the token."""
    connect(monkeypatch, "eo", conn_type="pesto", host=guard.url, password=SECRET)
    run, ids = Run(), {"grow": "eo"}

    planner(tmp_path, conn_ids=ids).execute(run.context)
    href = str(run.pushed["plan"])
    PestoMapOperator(task_id="m", plan=href, chunk=0, conn_ids=ids).execute(run.context)
    plan = path_of(href).read_text()
    last = PestoPublishOperator(task_id="p", plan=href, folder=tmp_path / "out", conn_ids=ids)
    made = last.execute(run.context)

    local = run_local(DOCUMENT, tmp_path / "local", {"scene": tmp_path / "s.tif"})
    assert (tmp_path / "out" / "image.tif").read_bytes() == (
        tmp_path / "local" / "image.tif"
    ).read_bytes(), local
    assert guard.url in plan
    written = plan + json.dumps([made, run.pushed]) + (tmp_path / "out/result.json").read_text()
    assert SECRET not in written
    assert SECRET in os.environ["AIRFLOW_CONN_EO"], "the control"


def test_refused_credentials_name_the_connection(
    tmp_path: Path, guard: Gatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without the secret: by the task that plans, and by one whose token has expired."""
    connect(monkeypatch, "eo", conn_type="pesto", host=guard.url, password=f"old-{SECRET}")
    run, ids = Run(), {"grow": "eo"}
    refused = r"Credentials refused: .*HTTP 401.*here in connection 'eo'"
    with pytest.raises(PestoTaskFailed, match=refused) as caught:
        planner(tmp_path, conn_ids=ids).execute(run.context)
    assert SECRET not in f"{caught.value} {caught.value.problem}"

    connect(monkeypatch, "eo", conn_type="pesto", host=guard.url, password=SECRET)
    planner(tmp_path, conn_ids=ids).execute(run.context)
    href = str(run.pushed["plan"])
    connect(monkeypatch, "eo", conn_type="pesto", host=guard.url, password=f"old-{SECRET}")
    with pytest.raises(PestoTaskFailed, match=refused):
        PestoMapOperator(task_id="m", plan=href, chunk=0, conn_ids=ids).execute(run.context)


def test_a_connection_that_has_another_url_than_the_plan_is_refused(
    tmp_path: Path, guard: Gatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its token is not sent to the server of the plan, nor tiles of the run to another server."""
    connect(monkeypatch, "eo", conn_type="pesto", host=guard.url, password=SECRET)
    run, ids = Run(), {"grow": "eo"}
    planner(tmp_path, conn_ids=ids).execute(run.context)
    connect(monkeypatch, "eo", conn_type="pesto", host="http://new:8000", password=SECRET)
    requests = len(guard.requests())
    task = PestoMapOperator(task_id="m", plan=str(run.pushed["plan"]), chunk=0, conn_ids=ids)
    with pytest.raises(PestoTaskFailed, match=r"'eo' has the URL http://new:8000, and the run was"):
        task.execute(run.context)
    assert len(guard.requests()) == requests


def test_a_service_behind_a_connection_must_have_the_saved_description(
    tmp_path: Path, guard: Gatekeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A catalog without URLs stays a list of contracts: a breaking change fails the first task."""
    connect(monkeypatch, "eo", conn_type="pesto", host=guard.url, password=SECRET)
    (path,) = (tmp_path / "catalog").iterdir()
    document = json.loads(path.read_text())
    document["description"]["output"]["properties"]["image"]["x-raster"]["dtype"] = "uint16"
    del document["digest"]  # that of another description is refused before
    saved(path, document)
    with pytest.raises(PestoTaskFailed, match=r"no longer the 'grow' that the catalog describes"):
        planner(tmp_path, conn_ids={"grow": "eo"}).execute(Run().context)


def test_a_description_needs_a_url_from_somewhere(tmp_path: Path, without_urls: Path) -> None:
    """When the file is parsed, and by the task; with a connection the file is right (control)."""
    settings = {"folder": "/out", "services": without_urls, "scene": "/s.tif"}
    with pytest.raises(InvalidInput, match=r"no URL of 'grow', .* conn_ids=\{'grow': …\}"):
        pesto_pipeline(DOCUMENT, **settings)  # type: ignore[arg-type]  # as given
    with pytest.raises(PestoTaskFailed, match=r"no URL of 'grow'"):
        planner(tmp_path).execute(Run().context)
    with pytest.raises(InvalidInput, match="conn_ids: the pipeline has no process 'grown'"):
        pesto_pipeline(DOCUMENT, conn_ids={"grown": "eo"}, pesto_conn_id="eo", **settings)  # type: ignore[arg-type]
    for known in ({"conn_ids": {"grow": "eo"}}, {"pesto_conn_id": "eo"}):
        with DAG("d", schedule=None):
            group = pesto_pipeline(DOCUMENT, **settings, **known)  # type: ignore[arg-type]
        (mapped,) = (each for each in group.children.values() if "map" in (each.task_id or ""))  # type: ignore[attr-defined]
        assert known.items() <= mapped.partial_kwargs.items()  # type: ignore[attr-defined]  # of a mapped task


def test_every_task_has_the_connections_of_the_settings_or_of_the_default_args(
    without_urls: Path,
) -> None:
    """So that a platform names the store of its DAGs once; the setting has priority."""
    for own, expected in (({}, "shared"), ({"store_conn_id": "own"}, "own")):
        with DAG("d", schedule=None, default_args={"store_conn_id": "shared"}) as dag:
            pesto_pipeline(
                DOCUMENT, conn_ids={"grow": "eo"}, folder="/out", services=without_urls,
                scene="/s.tif", **own,  # type: ignore[arg-type]  # as given
            )  # fmt: skip
        tasks = [each.unmap({"chunk": 0}) if each.is_mapped else each for each in dag.tasks]
        assert len(tasks) > 3
        for each in tasks:
            assert isinstance(each, RunOperator)
            assert each.connections == RunConnections(None, {"grow": "eo"}, expected)


def test_one_url_is_not_that_of_several_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """A general connection with a URL is refused for two services; without one it serves both."""
    connect(monkeypatch, "eo", conn_type="pesto", host="http://eo", password=SECRET)
    targets = {"a": ("http://a",), "b": ("http://b",), "code": ("file.py:f",)}
    connections = RunConnections(pesto_conn_id="eo")
    with pytest.raises(InvalidInput, match="'eo' has one URL, and a, b have no connection"):
        connections.urls(targets)
    assert RunConnections("eo", {"a": "eo"}).urls(targets) == {"a": "http://eo", "b": "http://eo"}
    connect(monkeypatch, "eo", conn_type="pesto", password=SECRET)
    assert connections.urls(targets) == {}


@pytest.mark.parametrize("host", [f"https://ann:{SECRET}@eo", f"ann:{SECRET}@eo"])
def test_a_url_with_a_password_is_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan has the URL; the error does not repeat the password."""
    connect(monkeypatch, "eo", conn_type="pesto", host=host)
    with pytest.raises(InvalidInput, match="/host: must not have a user") as caught:
        RunConnections(conn_ids={"a": "eo"}).urls({"a": ()})
    assert SECRET not in str(caught.value)


def test_a_refused_store_names_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests have the connection's key, not that of the worker's environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWORKER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "worker")
    document = {name: each for name, each in DOCUMENT.items() if name != "services"}
    with gatekeeper(tmp_path / "log", needed={"x-never": "sent"}) as store:
        extra = {"endpoint_url": store.url, "region_name": "eu-west-1"}
        connect(
            monkeypatch, "lake", conn_type="aws", login="AKIACANARY", password=SECRET, extra=extra
        )
        task = PestoPlanOperator(
            task_id="plan", pipeline=document, folder="s3://lake/out", store_conn_id="lake",
            service=[f"grow={PROCESSES}:grow"], tile=100,
            inputs={"scene": str(write_scene(tmp_path / "s.tif", noise(300, 120)))},
        )  # fmt: skip
        refused = "store_conn_id 'lake': s3://lake/out/.*permission denied"
        with pytest.raises(PestoTaskFailed, match=refused) as caught:
            task.execute(Run().context)
        sent = [request.get("authorization", "") for request in store.requests()]
    assert SECRET not in str(caught.value)
    assert sent
    assert all("AKIACANARY/" in each and "/eu-west-1/" in each for each in sent)
    assert os.environ["AWS_ACCESS_KEY_ID"] == "AKIAWORKER"


def private_key() -> str:
    """A new key of a service account."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def signed(bucket: str) -> str:
    """A URL that obstore signs with the credentials of the environment."""
    store = open_bucket(bucket)
    assert isinstance(store, AzureStore | GCSStore)
    return obstore.sign(store, "GET", "x", timedelta(seconds=9))


def test_google_and_azure_reach_both_libraries() -> None:
    """Obstore signs a URL with them, and GDAL has the same identity; without any file."""
    private = private_key()
    key = {"client_email": "me@eo.example", "private_key": private, "private_key_id": "1"}
    google = Connection(
        conn_id="g", conn_type="google_cloud_platform",
        extra=json.dumps({"keyfile_dict": json.dumps(key)}),
    )  # fmt: skip
    azure = Connection(conn_id="lake", conn_type="wasb", login="lake", password="c2VjcmV0")  # noqa: S106  # not a real one
    with environment(variables_of(google, google.conn_type, conn_id="c")):
        url = signed("gs://b")
        assert "me%40eo.example" in url
        assert os.environ["GS_OAUTH2_CLIENT_EMAIL"] == "me@eo.example"
        assert os.environ["GS_OAUTH2_PRIVATE_KEY"] == private
    with environment(variables_of(azure, azure.conn_type, conn_id="c")):
        url = signed("az://c")
        assert "lake.blob.core" in url
        settings = gdal_settings()
        assert settings["AZURE_STORAGE_ACCOUNT"] == "lake"
        assert settings["AZURE_STORAGE_ACCESS_KEY"] == "c2VjcmV0"
    assert "GS_OAUTH2_PRIVATE_KEY" not in os.environ


@pytest.mark.parametrize(
    ("kind", "extra", "message"),
    [
        ("http", {}, "type 'http' is none of a store; give one of type aws, google"),
        ("aws", {"role_arn": SECRET}, "/extra/role_arn: needs apache-airflow-providers-amazon"),
        ("aws", {"aws_secret_access_key": SECRET}, "/login: and the password belong together"),
        ("wasb", {"tenant_id": SECRET}, "/extra/tenant_id"),
        ("google_cloud_platform", {"keyfile_dict": f"{{{SECRET}"}, "/extra/keyfile_dict: must be"),
    ],
)
def test_a_connection_that_cannot_be_used_is_refused(
    kind: str, extra: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its id, with the field and without its value."""
    connect(monkeypatch, "lake", conn_type=kind, extra=extra)
    with pytest.raises(InvalidInput, match=rf"(?s)store_conn_id 'lake': .*{message}") as caught:
        RunConnections(store_conn_id="lake").stores(read_again=True).__enter__()
    assert SECRET not in str(caught.value)


def test_a_connection_without_credentials_has_those_of_the_worker() -> None:
    """A role of the machine, for example; with keys, no variable of the worker is mixed in."""
    place = {"endpoint_url": "https://s3.example"}
    bare = Connection(conn_id="lake", conn_type="aws", extra=json.dumps(place))
    keys = Connection(
        conn_id="lake", conn_type="aws", login="AKIA", password=SECRET, extra=json.dumps(place)
    )
    assert "AWS_ACCESS_KEY_ID" not in variables_of(bare, "aws", conn_id="c")
    account = Connection(conn_id="lake", conn_type="wasb", login="lake")
    assert "AZURE_STORAGE_ACCOUNT_KEY" not in variables_of(account, "wasb", conn_id="c")
    assert variables_of(bare, "aws", conn_id="c")["AWS_ENDPOINT_URL"] == "https://s3.example"
    found = variables_of(keys, "aws", conn_id="c")
    assert found["AWS_ACCESS_KEY_ID"] == "AKIA"
    assert [found[f"AWS_{name}"] for name in ("SESSION_TOKEN", "PROFILE", "S3_ENDPOINT")] == [
        None
    ] * 3
