"""Deployments: what the manifests say of each service, and services that run as they say."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import ValidationError, validate
from kubernetes_validate import latest_version
from kubernetes_validate import validate as validate_manifest

from pesto_runtime.projects.manifests import as_yaml
from tests.docs.markdown import ROOT
from tests.support.commands import saved, served
from tests.support.projects import write_project

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.commands import Command

EXAMPLE = ROOT / "examples" / "deployment"
COMPOSE = get_builtin_schema("vendor.compose-spec")


def deployed(pesto: Command, out: Path, *words: object) -> dict[str, list[Any]]:  # as YAML is read
    """The files that the command writes: name -> documents."""
    done = pesto("deploy", *words, "-o", out)
    assert done.code == 0, done.err
    paths = [out / line.removeprefix(f"{out}/") for line in done.out.splitlines()]
    return {path.name: [*yaml.safe_load_all(path.read_text())] for path in paths}


def scaled(project: Path, process: str = "scaled") -> dict[str, Any]:
    """A pipeline of one project."""
    return {
        "name": "p", "inputs": {"scene": "image"}, "services": {process: str(project)},
        "stages": [{"id": "s", "process": process, "inputs": {"image": "$inputs.scene"}}],
        "outputs": {"image": "$s.image"},
    }  # fmt: skip


def test_manifests_have_what_a_profile_declares(pesto: Command, tmp_path: Path) -> None:
    """GPU, memory and image of the profile; a range of replicas is an autoscaler, and no number."""
    project = write_project(tmp_path / "scaled")
    words = (f"{project}", "--to", "kubernetes", "-p", "big", "--replicas", "scaled=2-6")
    (documents,) = [each for name, each in deployed(pesto, tmp_path / "out", *words).items()
                    if name == "scaled.yaml"]  # fmt: skip
    for each in documents:
        validate_manifest(each, latest_version(), strict=True)
    workload, service, scaling = documents
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "scaled:1.2.0-big"
    assert container["resources"]["limits"] == {"memory": "8192Mi", "nvidia.com/gpu": "1"}
    assert "--insecure" in container["args"]
    assert "replicas" not in workload["spec"]
    assert (scaling["spec"]["minReplicas"], scaling["spec"]["maxReplicas"]) == (2, 6)
    assert scaling["spec"]["metrics"][0]["pods"]["metric"]["name"] == "pesto_calls"
    assert service["spec"]["ports"] == [{"port": 8080}]


def test_secrets_are_names_and_never_values(pesto: Command, tmp_path: Path) -> None:
    """Both forms; without a secret with tokens, the command warns."""
    project = write_project(tmp_path / "scaled")
    words = ("--secret", "lake", "--token-secret", "callers")
    pods = deployed(pesto, tmp_path / "a", project, "--to", "kubernetes", *words)["scaled.yaml"][0]
    spec = pods["spec"]["template"]["spec"]
    assert spec["containers"][0]["envFrom"] == [{"secretRef": {"name": "lake"}}]
    assert {"name": "tokens", "secret": {"secretName": "callers"}} in spec["volumes"]
    (made,) = deployed(pesto, tmp_path / "b", project, "--to", "compose", *words)["compose.yaml"]
    validate(made, COMPOSE)
    assert made["services"]["scaled"]["env_file"] == ["lake.env"]
    assert made["secrets"] == {"callers": {"file": "./callers"}}
    bare = pesto("deploy", project, "--to", "compose", "-o", tmp_path / "c")
    assert "anybody in the network" in bare.err


def test_an_overlay_stays_in_the_catalog(pesto: Command, tmp_path: Path) -> None:
    """The margin that a catalog has for a service is that of the deployed service."""
    project = write_project(tmp_path / "scaled")
    overlay: JsonValue = {"input": {"properties": {"image": {"x-raster": {"margin": 3}}}}}
    catalog = saved(tmp_path / "c.json", {"scaled": {"url": str(project), "overlay": overlay}})
    file = saved(tmp_path / "p.json", {**scaled(project), "services": {}})
    made = deployed(pesto, tmp_path / "out", file, "--to", "compose", "--services", catalog)
    assert made["services.json"] == [{"scaled": {"url": "http://scaled:8080", "overlay": overlay}}]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--replicas", "other=2"), "--replicas other: is no process of the pipeline"),
        (("--replicas", "scaled=3-2"), "'3-2' is neither a number of replicas nor MIN-MAX"),
        (("--image", "x=y"), "--image x: is no process of the pipeline; it has scaled"),
    ],
)
def test_a_wrong_option_is_refused(
    pesto: Command, tmp_path: Path, words: tuple[str, ...], fault: str
) -> None:
    """Before a file is written."""
    project = write_project(tmp_path / "scaled")
    done = pesto("deploy", project, "--to", "compose", "-o", tmp_path / "out", *words)
    assert done.code == 2
    assert fault in done.err
    assert not (tmp_path / "out").exists()


def test_names_that_are_one_in_the_network_are_refused(pesto: Command, tmp_path: Path) -> None:
    """`a_b` and `a.b` would be one service."""
    project = write_project(tmp_path / "scaled")
    document = scaled(project, "a_b")
    document["services"] = {"a_b": str(project), "a.b": str(project)}
    document["stages"] += [{"id": "t", "process": "a.b", "inputs": {"image": "$inputs.scene"}}]
    done = pesto("deploy", saved(tmp_path / "p.json", document), "--to", "kubernetes",
                 "-o", tmp_path / "out")  # fmt: skip
    assert done.code == 2
    assert "has the name a-b in the network, as a.b" in done.err


def test_a_service_runs_as_compose_says(pesto: Command, tmp_path: Path) -> None:
    """Its command and its port; the catalog beside it finds the service."""
    target = ROOT / "examples" / "cloud_mask.py:cloud_mask"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = deployed(pesto, tmp_path / "out", target, "--to", "compose", "--publish", port)
    service = made["compose.yaml"][0]["services"]["cloud-mask"]
    assert service["ports"] == [f"127.0.0.1:{port}:8080"]
    (catalog,) = made["services.json"]
    with served(str(target), *service["command"], "--port", port):
        done = pesto("describe", catalog["cloud-mask"])
    assert done.out.startswith("cloud-mask 1.0.0")


def test_replicas_have_a_port_each(pesto: Command, tmp_path: Path) -> None:
    """Two services, five replicas: five ports, and as many URLs in the catalog."""
    words = (EXAMPLE / "vessels.json", "--to", "compose", "--publish", 9000)
    made = deployed(pesto, tmp_path, *words, "--replicas", "calibrate=2", "--replicas", "detect=3")
    services = made["compose.yaml"][0]["services"]
    assert services["calibrate"]["ports"] == ["127.0.0.1:9000-9001:8080"]
    assert services["detect"]["ports"] == ["127.0.0.1:9002-9004:8080"]
    (catalog,) = made["services.json"]
    assert [url[-4:] for urls in catalog.values() for url in urls] == [
        str(each) for each in range(9000, 9005)
    ]


def test_the_example_is_what_the_page_says() -> None:
    """13 replicas for cores and 3 for GPUs; a field that does not exist is found."""
    pods = [yaml.safe_load_all(path.read_text()) for path in EXAMPLE.glob("kubernetes/*.yaml")]
    workloads = [each for documents in pods for each in documents if each["kind"] == "Deployment"]
    assert sorted(each["spec"]["replicas"] for each in workloads) == [3, 13]
    gpus = {each["metadata"]["name"]: "nvidia.com/gpu" in json.dumps(each) for each in workloads}
    assert gpus == {"calibrate": False, "detect": True}
    document = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
    validate(document, COMPOSE)
    document["services"]["detect"]["replicas"] = 3
    with pytest.raises(ValidationError):
        validate(document, COMPOSE)


def test_yaml_has_no_anchors() -> None:
    """A value that is used twice is written twice: people edit one of them."""
    probe: dict[str, JsonValue] = {"port": 8080}
    text = as_yaml({"a": probe, "b": [probe]}, {"c": probe})
    assert "&" not in text
    assert [*yaml.safe_load_all(text)] == [{"a": probe, "b": [probe]}, {"c": probe}]
    assert "&" in yaml.safe_dump({"a": probe, "b": [probe]})
