"""The manifests of examples/ are valid, and the pages about them show and name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from pesto_conductor.commands import app as commands
from pesto_conductor.taskdefs import task_definitions
from tests.docs.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "examples" / "kubernetes"
PAGE = ROOT / "docs" / "airflow" / "kubernetes.md"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
DEPLOYED = sorted((ROOT / "examples" / "deployment" / "kubernetes").glob("*.yaml"))
OF_CONDUCTOR = sorted((FOLDER / "conductor").glob("*.yaml"))
VERSION = kubernetes_validate.latest_version()


@pytest.mark.parametrize("file", [*MANIFESTS, *DEPLOYED, *OF_CONDUCTOR], ids=lambda file: file.stem)
def test_a_manifest_fits_the_schemas_of_kubernetes(file: Path) -> None:
    """Every document of it, and no field that Kubernetes does not know."""
    for document in yaml.safe_load_all(file.read_text()):
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_a_wrong_manifest_is_noticed() -> None:
    """The control: a field that no pod has, and a container without a name."""
    (pod,) = yaml.safe_load_all((FOLDER / "worker-pod.yaml").read_text())
    for wrong in ({"replicas": 2}, {"containers": [{"image": "a"}]}):
        document = {**pod, "spec": {**pod["spec"], **wrong}}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, VERSION, strict=True)


def test_what_belongs_together_has_one_name() -> None:
    """Airflow's name of the first container; secrets and services that exist; a named file each."""
    documents = [each for file in MANIFESTS for each in yaml.safe_load_all(file.read_text())]
    there = {each["metadata"]["name"] for each in documents}
    pods = [each["spec"] for each in documents if each["kind"] == "Pod"]
    assert [pod["containers"][0]["name"] for pod in pods] == ["base", "base"]
    workload = next(each for each in documents if each["kind"] == "Deployment")
    for pod in (*pods, workload["spec"]["template"]["spec"]):
        for source in pod["containers"][0]["envFrom"]:
            assert source["secretRef"]["name"] in there
    page = PAGE.read_text()
    assert [
        file.name for file in FOLDER.iterdir() if file.is_file() and file.name not in page
    ] == []
    assert (FOLDER / "worker-pod.yaml").read_text() in page


def test_workers_of_conductor_have_what_their_manifests_name() -> None:
    """Secrets that exist, options that the command has, and each task type once."""
    files = {file: list(yaml.safe_load_all(file.read_text())) for file in OF_CONDUCTOR}
    documents = [each for found in files.values() for each in found]
    secrets = {each["metadata"]["name"] for each in documents if each["kind"] == "Secret"}
    deployed = [each for each in documents if each["kind"] == "Deployment"]
    pods = {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in deployed}
    for pod in pods.values():
        named = {each["secretRef"]["name"] for each in pod["containers"][0]["envFrom"]}
        named |= {each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
        assert named <= secrets
    taken = []
    for name in ("pesto-worker", "pesto-planner"):
        words = pods[name]["containers"][0]["args"]
        command = get_command(commands).get_command(None, "worker")  # type: ignore[attr-defined]
        parsed = command.make_context("worker", [*words[3:]])
        assert parsed.params["no_supervisor"]
        taken += parsed.params["task"]
    assert sorted(taken) == sorted(each.name for each in task_definitions())
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in documents
              if each["kind"] == "HorizontalPodAutoscaler"}  # fmt: skip
    assert scaled <= pods.keys()
    page = (ROOT / "docs" / "conductor" / "production.md").read_text()
    assert [file.name for file in files if file.name not in page] == []
