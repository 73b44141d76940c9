"""A connection whose role is assumed: real STS and S3 of moto, the Amazon provider, obstore, GDAL.

The provider and boto3 are among the tools, since importing rasterio takes longer with boto3.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.buckets import TOOLS
from tests.support.gatekeeper import Gatekeeper, gatekeeper
from tests.support.rasters import noise, write_scene
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SECRET = "s3cret-Zq9-canary"  # noqa: S105  # of the test
TASK = """
import json, os, sys
from datetime import timedelta
from pathlib import Path

sys.path += sys.argv[3:]  # below the packages of this environment

from pesto_airflow import assumed_roles
from pesto_airflow.connections import RunConnections
from pesto_runtime.errors import PestoError
from pesto_runtime.places import RemotePath
from pesto_runtime.remote import gdal_settings

assumed_roles.VALID, assumed_roles.EVERY_S = timedelta(seconds=5), 0.1  # clients ask each time


def names():
    return sorted(name for name in os.environ if name.startswith("AWS_"))


before = names()
told = {}
try:
    with RunConnections(store_conn_id="lake").stores(read_again=True):
        told["environment"] = " ".join(os.environ.values())
        RemotePath("s3://bucket/roles/scene.tif").write_bytes(Path(sys.argv[1]).read_bytes())
        import rasterio

        path = "/vsis3/bucket/roles/scene.tif"
        with rasterio.Env(**gdal_settings()), rasterio.open(path) as scene:
            told["pixels"] = [int(scene.read(1, window=((at, at + 9), (at, at + 9))).sum())
                              for at in (0, 1500, 2900)]
except PestoError as error:
    told |= {"error": f"{error.title}: {error.detail}", "retryable": error.retryable}
told["restored"] = names() == before
Path(sys.argv[2]).write_text(json.dumps(told))
"""


@pytest.fixture
def store(bucket_port: int, tmp_path: Path) -> Iterator[Gatekeeper]:
    """The bucket, for temporary keys alone: those of STS begin with ASIA."""
    temporary = {"Authorization": "AWS4-HMAC-SHA256 Credential=ASIA*"}
    with gatekeeper(tmp_path / "log", f"http://127.0.0.1:{bucket_port}", temporary) as guard:
        yield guard


def run(folder: Path, store: Gatekeeper, sts_port: int, **extra: JsonValue) -> dict[str, JsonValue]:
    """Write a scene and read three of its windows with a connection, in a process of its own."""
    pytest.importorskip("airflow")
    scene = write_scene(folder / "scene.tif", noise(3000, 3000), options={"tiled": True})
    sts = {"endpoint_url": f"http://127.0.0.1:{sts_port}"}
    document = {
        "conn_type": "aws", "login": "AKIACANARY", "password": SECRET,
        "extra": {"endpoint_url": store.url, "region_name": "us-east-1",
                  "service_config": {"sts": sts}, **extra},
    }  # fmt: skip
    packages = next((TOOLS.parents[1] / "lib").glob("python*/site-packages"))
    env = {"AIRFLOW_CONN_LAKE": json.dumps(document), "AIRFLOW_HOME": str(folder / "home"),
           "PATH": "/usr/bin:/bin", "HOME": str(folder), "PESTO_STORE_PATIENCE": "2",
           "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip
    command = [sys.executable, "-c", TASK, scene, folder / "told", packages]
    subprocess.run([*map(str, command)], cwd=ROOT, env=env, check=True, timeout=100)
    told: dict[str, JsonValue] = json.loads((folder / "told").read_text())
    return told


def test_buckets_are_opened_with_the_role_which_is_renewed_while_a_raster_is_open(
    tmp_path: Path, store: Gatekeeper, bucket_port: int
) -> None:
    """Each request has temporary keys; those of one open raster change. No variable has them.

    A session of 15 minutes is renewed each time, as botocore does for one that ends so soon.
    """
    told = run(
        tmp_path, store, bucket_port, role_arn="arn:aws:iam::123456789012:role/reader",
        assume_role_kwargs={"DurationSeconds": 900},
    )  # fmt: skip
    pixels = noise(3000, 3000)[0]
    assert told["pixels"] == [int(pixels[a : a + 9, a : a + 9].sum()) for a in (0, 1500, 2900)]
    assert told["restored"] is True
    requests = [each for each in store.requests() if each[":path"] == "/bucket/roles/scene.tif"]
    keys = [each["authorization"].split("=")[1].split("/")[0] for each in requests]
    assert requests[0][":method"] == "PUT"
    read = [key for key, each in zip(keys, requests, strict=True) if each[":method"] == "GET"]
    assert len(set(read)) > 1
    assert all(each["x-amz-security-token"] for each in requests)
    for secret in (*keys, *(each["x-amz-security-token"] for each in requests)):
        assert secret not in str(told["environment"])


def test_without_the_role_the_same_keys_are_refused(
    tmp_path: Path, store: Gatekeeper, bucket_port: int
) -> None:
    """The control."""
    told = run(tmp_path, store, bucket_port)
    assert "permission denied" in str(told["error"])
    assert "store_conn_id 'lake'" in str(told["error"])


def test_a_role_that_cannot_be_assumed_now_is_tried_again(
    tmp_path: Path, store: Gatekeeper
) -> None:
    """STS is away; the error names the connection, and nothing was written."""
    told = run(tmp_path, store, 9, role_arn="arn:aws:iam::123456789012:role/reader")
    assert "store_conn_id 'lake': its role cannot be assumed now" in str(told["error"])
    assert (told["retryable"], told["restored"]) == (True, True)
    assert SECRET not in str(told)
    assert store.requests() == []
