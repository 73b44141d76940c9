"""The manifests of examples/ are valid, and the pages about them show and name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import kubernetes_validate
import pytest
import yaml

from tests.docs.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ROOT / "examples" / "kubernetes"
PAGE = ROOT / "docs" / "airflow" / "kubernetes.md"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
DEPLOYED = sorted((ROOT / "examples" / "deployment" / "kubernetes").glob("*.yaml"))
VERSION = kubernetes_validate.latest_version()


@pytest.mark.parametrize("file", [*MANIFESTS, *DEPLOYED], ids=lambda file: file.stem)
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
    assert [file.name for file in FOLDER.iterdir() if file.name not in page] == []
    assert (FOLDER / "worker-pod.yaml").read_text() in page
