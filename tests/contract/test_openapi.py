"""The OpenAPI document: valid, complete, and enough for clients that are generated from it."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from pesto_runtime.processor import load_processor
from pesto_runtime.service.openapi import openapi
from tests.contract.serving import served
from tests.contract.web import in_process, ready
from tests.support.buckets import TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from tests.contract.serving import Server

CLOUDS = "examples/cloud_mask.py:cloud_mask"
TARGETS = (
    CLOUDS, "tests/data/jobs_project", "tests/contract/processes.py:nap",
    "tests/contract/processes.py:facts", "tests/contract/batched.py:add",
)  # fmt: skip
SCENE = Path("examples/data/landsat8_cloudy.tif")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The service of an example."""
    with served(CLOUDS, "--allow", ".") as server:
        yield server


@pytest.mark.parametrize("target", TARGETS)
def test_the_document_is_valid_openapi(target: str) -> None:
    """Each operation has an id of its own, and each answer a text. The control has no title."""
    document: dict[str, Any] = openapi(load_processor(target).description)
    validate(document)
    operations = [each for path in document["paths"].values() for each in path.values()]
    ids = [each["operationId"] for each in operations]
    assert len({*ids}) == len(ids) == 15
    assert "HTTPValidationError" not in json.dumps(document)
    with pytest.raises(OpenAPIValidationError):
        validate({key: each for key, each in document.items() if key != "info"})


def test_every_route_is_in_the_document() -> None:
    """Except the pages for people, the document itself, and OGC's, which has its own."""
    from pesto_runtime.service.limits import Limits

    with in_process(CLOUDS, [], Limits()) as web:
        ready(web)
        told = json.loads(web("GET", "/openapi").content)
        routes = {re.sub(":path", "", str(route.path)) for route in web.app.routes}  # type: ignore[attr-defined]  # Starlette's
        ogc = re.sub("processID", "process_id", web("GET", "/../../api").text)
    other = routes - {*told["paths"]} - {"/", "/api/v1", "/docs", "/metrics", "/openapi.json"}
    assert other == {"/api", *({*json.loads(re.sub("jobID", "job_id", ogc))["paths"]} - {"/"})}


def test_both_addresses_have_the_document(server: Server) -> None:
    """PESTO's has its media type, the other the registered one."""
    host = server.url.removesuffix("/api/v1")
    ours, theirs = server.http.get(f"{host}/openapi.json"), server("GET", "/openapi")
    assert ours.content == theirs.content
    assert ours.headers["content-type"].startswith("application/vnd.oai.openapi+json")
    schema = ours.json()["components"]["schemas"]
    assert schema["Inputs"]["required"] == ["scene"]
    assert schema["Inputs"]["properties"]["threshold"]["default"] == 0.0
    content = ours.json()["paths"]["/api/v1/process"]["post"]["responses"]["200"]["content"]
    assert {*content} >= {"application/json", "image/tiff", "image/png", "application/x-npy"}


@pytest.fixture(scope="module")
def generated(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A Python client that openapi-python-client generated from the running service."""
    if not TOOLS.exists():
        pytest.skip(f"{TOOLS} does not exist: make setup")
    folder = tmp_path_factory.mktemp("generated")
    host = server.url.removesuffix("/api/v1")
    words = ["generate", "--url", f"{host}/openapi.json", "--meta", "none", "--output-path",
             str(folder / "cloud_client")]  # fmt: skip
    subprocess.run(
        [TOOLS, "-m", "openapi_python_client", *words], check=True, timeout=300,
        capture_output=True,
    )  # fmt: skip
    sys.path.insert(0, str(folder))
    yield importlib.import_module("cloud_client")
    sys.path.remove(str(folder))


def test_a_generated_client_calls_the_service(server: Server, generated: ModuleType) -> None:
    """A reference, a form, a job, a wrong value: each as the generated types say."""
    client = generated.Client(base_url=server.url.removesuffix("/api/v1"))
    with client.get_httpx_client():
        _uses(client, server)


def _uses(client: Any, server: Server) -> None:  # of generated code
    models, types = _part("models"), _part("types")
    call, job, health = (_part(f"api.default.{each}") for each in ("process", "get_job", "health"))
    assert health.sync(client=client) == "OK"
    scene = models.ImageReference(href=SCENE.resolve().as_uri())
    body = models.Inputs(scene=scene, threshold=0.02)
    outputs = call.sync(client=client, body=body)
    assert isinstance(outputs, models.Outputs)
    with SCENE.open("rb") as file:
        part = types.File(BytesIO(file.read()), SCENE.name, "image/tiff")
    form = models.ProcessFilesBody(scene=part, threshold=0.02)
    assert call.sync(client=client, body=form).to_dict() == outputs.to_dict()
    accepted = call.sync(client=client, body=body, prefer="respond-async")
    assert isinstance(accepted, models.Job)
    server.over(accepted.id)
    assert job.sync(accepted.id, client=client).state == "successful"
    body.additional_properties["threshold"] = "high"
    body.threshold = types.UNSET
    wrong = call.sync(client=client, body=body)
    assert isinstance(wrong, models.Problem)
    assert wrong.errors[0].pointer == "/threshold"


def _part(name: str) -> Any:  # of generated code
    return importlib.import_module(f"cloud_client.{name}")


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_a_generated_typescript_client_calls_the_service(server: Server, tmp_path: Path) -> None:
    """A wrong type in it does not compile (`@ts-expect-error`); at run time it is an error."""
    folder = tmp_path / "typescript"
    shutil.copytree("tests/data/typescript", folder)
    host = server.url.removesuffix("/api/v1")
    generate = ["openapi-typescript", f"{host}/openapi.json", "--default-non-nullable=false"]
    for words in (
        ["npm", "ci", "--no-audit", "--no-fund"],
        ["npx", *generate, "-o", "schema.d.ts"],
        ["npx", "tsc"],
    ):
        done = subprocess.run(  # noqa: PLW1510  # its output is shown
            words, cwd=folder, timeout=300, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    use = ["node", "built/use.js", host, SCENE.resolve().as_uri()]
    told = subprocess.run(use, cwd=folder, timeout=120, capture_output=True, check=True)
    assert json.loads(told.stdout) == {
        "health": "OK", "image": "string", "status": 201, "state": "successful",
        "pointers": ["/threshold"],
    }  # fmt: skip
