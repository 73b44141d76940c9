"""What tasks on other machines need: code by its path in the bundle, and places that all reach."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pesto_airflow import PestoMapOperator, PestoPlanOperator, PestoPublishOperator
from pesto_airflow.errors import PestoTaskFailed
from pesto_airflow.preflight import has_remote_workers, preflight
from pesto_runtime.contract import CachePlace
from pesto_runtime.errors import InvalidInput
from pesto_runtime.run.context import load_context
from tests.support.airflow_tasks import Run
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import PROCESSES, chain, run_local

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan, Service

CODE = """
import numpy as np
from typing import Annotated
from pesto_runtime import Raster, process

Grey = Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")]
Lighter = Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")]


@process(name="lighter", version="1", tileable="map")
def lighter(image: Grey) -> Lighter:
    return np.minimum(image, 200) + {step}
"""


def bundle(folder: Path, *, step: int = 1) -> Path:
    """A worker's copy of a DAG bundle with code in it."""
    (folder / "svc").mkdir(parents=True)
    (folder / "svc" / "lighter.py").write_text(CODE.format(step=step))
    return folder


def worker(bundle_path: Path) -> Run:
    """A task on a worker that has the bundle there."""
    return Run(bundle_instance=SimpleNamespace(path=bundle_path))


def planned(folder: Path, run: Run, here: Path, **arguments: object) -> str:
    """Plan on a worker; the href of the plan."""
    document: dict[str, JsonValue] = {
        **chain("lighter"),
        "services": {"lighter": "svc/lighter.py:lighter"},
    }
    PestoPlanOperator(
        task_id="plan", pipeline=document, base=here, folder=folder / "out", tile=100,
        inputs={"scene": str(write_scene(folder / "s.tif", noise(300, 120)))}, max_tasks=1,
        **arguments,  # type: ignore[arg-type]  # as given
    ).execute(run.context)  # fmt: skip
    load_context.cache_clear()  # as in the process of another task
    return str(run.pushed["plan"])


def test_code_of_the_bundle_is_found_where_each_worker_has_it(tmp_path: Path) -> None:
    """The copy of the worker that planned is deleted before another one runs the chunk."""
    first, second = bundle(tmp_path / "one" / "a"), bundle(tmp_path / "two" / "b")
    href = planned(tmp_path, worker(first), first)
    shutil.rmtree(first)

    assert load_context(href).plan.services["lighter"].targets == ("svc/lighter.py:lighter",)
    there = worker(second).context
    PestoMapOperator(task_id="m", plan=href, chunk=0).execute(there)
    PestoPublishOperator(task_id="p", plan=href, folder=tmp_path / "out").execute(there)

    document: dict[str, JsonValue] = {
        **chain("lighter"), "services": {"lighter": f"{second}/svc/lighter.py:lighter"}
    }  # fmt: skip
    local = run_local(document, tmp_path / "local", {"scene": tmp_path / "s.tif"})
    assert sha256_of(tmp_path / "out" / "image.tif") == local.sha256()


def test_other_code_in_the_bundle_of_a_worker_is_refused(tmp_path: Path) -> None:
    """Another build names both; without a bundle the code is not found (control)."""
    first, second = bundle(tmp_path / "a"), bundle(tmp_path / "b", step=2)
    href = planned(tmp_path, worker(first), first)
    task = PestoMapOperator(task_id="m", plan=href, chunk=0)
    with pytest.raises(PestoTaskFailed, match=r"Process changed: svc/lighter.py.* planned sha256"):
        task.execute(worker(second).context)
    with pytest.raises(PestoTaskFailed, match=r"Not found: .*svc/lighter.py"):
        task.execute(Run().context)


def test_a_plan_that_another_machine_has_is_explained() -> None:
    """The way out is named; an object of another kind that is missing has no such hint."""
    task = PestoMapOperator(task_id="m", plan="file:///nowhere/.pesto/plans/a.json", chunk=0)
    with pytest.raises(PestoTaskFailed, match="another machine; give folder= and store="):
        task.execute(Run().context)


@pytest.fixture
def on_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow whose tasks run on other machines."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")


@pytest.mark.parametrize(
    ("executor", "is_remote"),
    [
        ("LocalExecutor", False),
        ("airflow.executors.local_executor.LocalExecutor", False),
        ("CeleryExecutor", True),
        ("LocalExecutor,KubernetesExecutor", True),
        ("my.Executor", True),
    ],
)
def test_any_executor_but_the_local_one_is_remote(
    executor: str, monkeypatch: pytest.MonkeyPatch, *, is_remote: bool
) -> None:
    """A pod of Kubernetes is, too: it has a local executor configured."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    assert has_remote_workers() is is_remote
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    assert has_remote_workers()


@pytest.mark.usefixtures("on_celery")
def test_places_of_one_machine_are_refused_before_a_tile(tmp_path: Path) -> None:
    """Each by its argument, with the way out; as warnings if the machines share the disk."""
    here = bundle(tmp_path / "dags")
    with pytest.raises(PestoTaskFailed) as caught:
        planned(tmp_path, worker(here), here)
    text = str(caught.value)
    assert all(each in text for each in ("/folder: ", "/inputs/scene: ", 'preflight="warn"'))
    assert not any(each in text for each in ("/services", "/store"))
    assert not (tmp_path / "out").exists()
    assert load_context(planned(tmp_path, worker(here), here, preflight="warn"))


@pytest.mark.usefixtures("on_celery")
def test_each_kind_of_place_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store, service on loopback, code outside the bundle, endpoint; none for places of all."""
    here = bundle(tmp_path / "dags")
    plan = load_context(planned(tmp_path, worker(here), here, preflight="warn")).plan
    (scene,) = plan.scenes.values()
    everywhere = plan.model_copy(update={
        "folder": "s3://lake/out", "store": "s3://lake/out/.pesto",
        "scenes": {"scene": scene.model_copy(update={"href": "s3://lake/s.tif"})},
    })  # fmt: skip
    assert preflight(everywhere, kind="refuse") == ()

    def found(**changes: object) -> list[str]:
        return [*preflight(everywhere.model_copy(update=changes), kind="warn")]

    assert pointers(found(store="file:///tmp/store")) == ["/store"]
    local, shared = (CachePlace(href=href, keys={}) for href in ("file:///tmp/c", "s3://lake/c"))
    assert pointers(found(cache=local)) == ["/cache"]
    assert pointers(found(cache=shared)) == []
    assert pointers(found(services=with_target(plan, "http://localhost:8091/api/v1"))) == [
        "/services/lighter"
    ]
    assert pointers(found(services=with_target(plan, f"{PROCESSES}:grow"))) == ["/services/lighter"]
    assert pointers(found(services=with_target(plan, "https://eo.example/api/v1"))) == []
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert pointers(found()) == ["/store_conn_id"]
    with pytest.raises(InvalidInput, match=r"127\.0\.0\.1:9000 is an endpoint of this machine"):
        preflight(everywhere, kind="refuse")


def pointers(warnings: list[str]) -> list[str]:
    """The arguments that warnings are about."""
    return [each.partition(":")[0] for each in warnings]


def with_target(plan: Plan, target: str) -> dict[str, Service]:
    """The services of a plan with another target."""
    (name,) = plan.services
    return {name: plan.services[name].model_copy(update={"targets": (target,)})}
