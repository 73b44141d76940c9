"""Workers on two machines without a common disk: everything is in a bucket, or is refused."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.definitions import workflow_definition
from pesto_conductor.following import output_of, tasks_of
from pesto_runtime.contract import Pipeline
from pesto_runtime.places import place_of
from pesto_runtime.run.planning import shape
from pesto_runtime.run.services import resolve_services
from tests.support.buckets import BUCKET, names, put, variables
from tests.support.commands import served
from tests.support.conductor_workers import conductor_worker
from tests.support.file_server import use
from tests.support.machines import (
    HOST,
    disk_variables,
    on_machine,
    require_machines,
    write_hosts,
)
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import PROCESSES, ROOT, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk, Document

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(300)]

WORK = {
    "machine-b": ("process", "close", "call", "process_scenes", "close_scenes"),
    "machine-a": ("plan", "publish", "mosaic", "merge", "plan_scenes", "publish_scenes"),
}
"""Host -> the tasks that its worker takes: each run needs both."""
DOCUMENT = pipeline(
    stage("grown", "grow", image="$inputs.scene"),
    stage("mean", "mean", image="$grown.image"),
    stage("above", "above", image="$grown.image", level="$mean.mean"),
    outputs={"image": "$above.image", "mean": "$mean.mean"},
)
REMOTE: Document = {"store": f"{BUCKET}/two/store", "tile": 200, "workers": 2}


@pytest.fixture(scope="module")
def service(
    conductor: Desk, bucket_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Both workers, and the URL of the service `grow` by the name that both know."""
    require_machines()
    base = tmp_path_factory.getbasetemp()
    folder = tmp_path_factory.mktemp("machines")
    hosts = write_hosts(folder / "hosts", WORK)
    env = variables(bucket_port) | {"AWS_ENDPOINT_URL": f"http://{HOST}:{bucket_port}"}
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        use(variables(bucket_port), patch)
        for host, tasks in WORK.items():
            options = [word for each in tasks for word in ("--task", f"pesto_{each}")]
            stack.enter_context(
                conductor_worker(
                    conductor.url, folder, "--domain", "two", *options,
                    machine=lambda words, host=host: on_machine(  # type: ignore[misc]
                        host, words, base=base, hosts=hosts
                    ),
                    env=env | disk_variables(base),
                )
            )  # fmt: skip
        url = stack.enter_context(served(f"{PROCESSES}:grow", "--allow", BUCKET))
        yield url.replace("127.0.0.1", HOST)


@pytest.fixture(scope="module")
def scene(service: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene on the disk of the tests, and in the bucket."""
    scene = write_scene(tmp_path_factory.mktemp("scene") / "s.tif", noise(700, 500))
    put("two/s.tif", scene.read_bytes())
    return scene


def run(conductor: Desk, definition: Document, inputs: Document) -> Document:
    with conductor.conductor() as server:
        identity = server.start(
            str(definition["name"]), inputs, definition=definition, domains={"*": "two"}
        )
    return conductor.ended(identity, 120)


def by_hand() -> Document:
    """The rendered workflow; then a mosaic, and a call of what the mosaic has written."""
    parsed = Pipeline.parse(dict(DOCUMENT))
    services = resolve_services(parsed, base=ROOT)
    definition = workflow_definition(parsed, shape(parsed, services))
    del definition["failureWorkflow"]
    tasks = definition["tasks"]
    assert isinstance(tasks, list)
    further: dict[str, Document] = {
        "mosaic": {
            "plan": "${plan.output.plan}", "raster": "$grown.image",
            "path": f"{BUCKET}/two/mosaic.tif",
        },
        "call": {
            "service": f"{PROCESSES}:grow", "values": {"image": "${mosaic.output.href}"},
            "keep": {"image": f"{BUCKET}/two/called.tif"},
        },
    }  # fmt: skip
    tasks[-1:-1] = [
        {"name": f"pesto_{name}", "taskReferenceName": name, "type": "SIMPLE",
         "inputParameters": parameters}
        for name, parameters in further.items()
    ]  # fmt: skip
    return definition


def test_two_machines_finish_a_workflow_in_a_bucket(
    conductor: Desk, service: str, scene: Path, tmp_path: Path
) -> None:
    """Same bytes as on one disk; `folder`, `store`, `path` and `keep` are objects."""
    inputs: Document = {
        **REMOTE, "scene": f"{BUCKET}/two/s.tif", "folder": f"{BUCKET}/two/out",
        "services": {"grow": service},
    }  # fmt: skip
    ended = run(conductor, by_hand(), inputs)
    assert ended["status"] == "COMPLETED", ended.get("reasonForIncompletion")
    workers = {str(each["workerId"]).rpartition("-")[0] for each in tasks_of(ended)
               if str(each["taskType"]).startswith("pesto_")}  # fmt: skip
    assert workers == {"machine-a", "machine-b"}
    twice = pipeline(
        stage("a", "grow", image="$inputs.scene"),
        stage("b", "grow", image="$a.image"),
        outputs={"once": "$a.image", "twice": "$b.image"},
    )
    local = run_local(DOCUMENT, tmp_path / "local", {"scene": scene})
    grown = run_local(twice, tmp_path / "twice", {"scene": scene})
    assert names(f"{BUCKET}/two/out") == tree(local.folder)
    for name in ("image.tif", "mean.json"):
        remote = place_of(f"{BUCKET}/two/out/{name}").read_bytes()
        assert remote == (local.folder / name).read_bytes(), name
    mosaic = place_of(f"{BUCKET}/two/mosaic.tif").read_bytes()
    assert mosaic == (grown.folder / "once.tif").read_bytes()
    import rasterio

    called = place_of(f"{BUCKET}/two/called.tif").read_bytes()
    with rasterio.MemoryFile(called) as file, file.open() as made:
        pixels = made.read()
    with rasterio.open(grown.folder / "twice.tif") as expected:
        assert (pixels == expected.read()).all()


def test_two_machines_finish_a_campaign_in_a_bucket(
    conductor: Desk, service: str, scene: Path, tmp_path: Path
) -> None:
    """The plan of one machine is read on the other one, and its blocks on the first again."""
    inputs: dict[str, JsonValue] = {
        **REMOTE, "scenes": [f"{BUCKET}/two/s.tif"], "folder": f"{BUCKET}/two/many",
        "services": {"grow": service},
    }  # fmt: skip
    identity = conductor.start(DOCUMENT, inputs, domains={"*": "two"}, is_campaign=True)
    ended = conductor.ended(identity, 120)
    assert ended["status"] == "COMPLETED", ended.get("reasonForIncompletion")
    local = run_local(DOCUMENT, tmp_path / "local", {"scene": scene})
    remote = place_of(f"{BUCKET}/two/many/s/image.tif").read_bytes()
    assert remote == (local.folder / "image.tif").read_bytes()


def test_a_folder_of_one_machine_is_refused_before_a_tile(
    conductor: Desk, service: str, scene: Path, tmp_path: Path
) -> None:
    """The control sets `preflight` to `warn`: then it fails where the other machine reads it."""
    folder = tmp_path.parent / "home" / "out"  # each machine has its own
    inputs: dict[str, JsonValue] = {
        "scene": f"{BUCKET}/two/{scene.name}", "folder": str(folder), "tile": 200,
        "services": {"grow": service},
    }  # fmt: skip
    refused = conductor.ended(conductor.start(DOCUMENT, inputs, domains={"*": "two"}), 120)
    (task,) = tasks_of(refused)
    why = str(task["reasonForIncompletion"])
    for words in ("machine-b", "preflight=warn", f"/folder: {folder.as_uri()} is on this"):
        assert words in why
    assert task["taskType"] == "pesto_plan"

    inputs["preflight"] = "warn"
    failed = conductor.ended(conductor.start(DOCUMENT, inputs, domains={"*": "two"}), 120)
    assert failed["status"] == "FAILED"
    planned, *others = tasks_of(failed)
    assert str(output_of(planned)["plan"]).startswith(f"{folder.as_uri()}/.pesto/plans/")
    assert any("does not exist" in str(each.get("reasonForIncompletion")) for each in others)
