"""Every workflow of workflows/conductor: without workers on made-up outputs, then for real."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.support.commands import descendants, is_alive, pesto, saved, served, started, waited
from tests.support.conductor_workers import conductor_worker, made_up_run
from tests.support.landsat import expected_answer
from tests.support.processes import MARKER
from tests.support.rasters import noise, pixels_of, sha256_of, write_scene
from tests.support.runs import CLOUD_COVER, ROOT, SCENE, chain, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.conductor_workers import Desk

    Document = dict[str, JsonValue]

pytestmark = [pytest.mark.integration, pytest.mark.conductor, pytest.mark.timeout(300)]

FOLDER = ROOT / "workflows" / "conductor"
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module", autouse=True)
def registered(conductor: Desk) -> Iterator[str]:
    """All files, registered by the command; answers what it said."""
    done = pesto("conductor", "register", "--url", conductor.url, *sorted(FOLDER.glob("*.json")))
    assert done.returncode == 0, done.stderr
    yield done.stdout
    conductor.register()  # other tests want impatient task definitions


@pytest.fixture(scope="module")
def worker(conductor: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One that works for all of them."""
    with conductor_worker(conductor.url, tmp_path_factory.mktemp("worker"), at_once=4):
        yield


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> str:
    """sha256 of the mask of the Landsat scene, by the local engine."""
    document = json.loads(CLOUD_COVER.read_text())
    return run_local(document, tmp_path_factory.mktemp("local"), {"scene": SCENE}).sha256("mask")


def read(name: str) -> Document:
    document: Document = json.loads((FOLDER / f"{name}.json").read_text())
    return document


def run(conductor: Desk, name: str, *inputs: str) -> Document:
    """Start a registered workflow by the command, follow it; answers its output."""
    given = [word for each in inputs for word in ("-i", each)]
    done = pesto("conductor", "start", name, "--url", conductor.url, "--wait", "--json", *given)
    assert done.returncode == 0, done.stderr
    output: Document = json.loads(done.stdout)["output"]
    return output


# ------------------------------------------------------------------ without workers

CHUNK: Document = {"manifest": "file:///m.json", "tiles": 2}
CHUNKS: JsonValue = [
    [{"plan": "file:///p.json", "phase": 0, "start": n, "stop": n + 1} for n in (0, 1)]
]
PLANNED: Document = {"plan": "file:///p.json", "run": "r", "started": "2026-01-01", "tiles": 4,
                     "chunks": CHUNKS}  # fmt: skip
PUBLISHED: Document = {"status": "COMPLETE", "result": "file:///r.json", "tiles": {},
                       "outputs": {"cover": 0.25, "mask": "file:///mask.tif"}}  # fmt: skip
RUN: dict[str, Document] = {
    "plan": PLANNED, "_pesto_process_0": CHUNK, "_pesto_process_1": CHUNK, "publish": PUBLISHED,
}  # fmt: skip
WHERE: Document = {"scene": "file:///s.tif", "folder": "/out"}

# Name -> input, task reference -> made-up output, and the expected output of the workflow.
MADE_UP: dict[str, tuple[Document, dict[str, Document], Document]] = {
    "cloud_cover": (
        WHERE,
        {**RUN, "close_0": {"unmade": []}},
        {"status": "COMPLETE", "outputs": PUBLISHED["outputs"]},
    ),
    "cloud_cover_by_hand": (
        {**WHERE, "deliver": "/m.tif", "urls": ["http://a"]},
        {
            **RUN,
            "discover": {"services": {"sieve": "http://a"}, "digests": {}},
            "mosaic": {"href": "file:///m.tif", "sha256": "abc", "holes": 0},
            "cover": {"made": True},
        },
        {"delivered": "file:///m.tif", "sha256": "abc", "cover": 0.25, "status": "COMPLETE"},
    ),
    "clouds_widened": (
        {**WHERE, "ours": "http://a", "pesto": "http://b"},
        RUN,
        {"status": "COMPLETE", "outputs": PUBLISHED["outputs"]},
    ),
    "cloud_gate": (
        WHERE,
        {"verdict": {"outputs": {"verdict": "usable"}}},
        {"verdict": "usable", "cover": 0.25},
    ),
    "without_workers": (
        {"service": "http://a", "fractions": [0.25, 0.75]},
        {
            "describe": {"response": {"body": {"name": "verdict"}}},
            "request": {"result": {"fraction": 0.5, "limit": 0.3}},
            "process": {"response": {"body": {"verdict": "cloudy"}}},
        },
        {"verdict": "cloudy", "text": "verdict says cloudy"},
    ),
    "pesto_failure": (
        {"workflowId": "w", "reason": "r"},
        {"cleanup": {"forgotten": False}},
        {"forgotten": False},
    ),
}


def test_every_workflow_has_made_up_outputs() -> None:
    """A new file without a contract test is noticed; those without made-up outputs run below."""
    others = {"announce_scene", "on_new_scene", "approved_scene", "scenes_at_once"}
    others |= {"scenes_one_by_one", "cloud_cover_campaign", "service_job", "decide_scene"}
    others |= {"on_decision"}
    assert {path.stem for path in FOLDER.glob("*.json")} == MADE_UP.keys() | others


@pytest.mark.parametrize("name", MADE_UP)
def test_a_workflow_is_valid_and_runs_on_made_up_outputs(conductor: Desk, name: str) -> None:
    """The server validates it, then runs it without workers: every reference has a target."""
    definition, (inputs, outputs, expected) = read(name), MADE_UP[name]
    cover = made_up_run(read("cloud_cover"), *MADE_UP["cloud_cover"][:2])
    children = {"cover": cover} if name == "cloud_gate" else {}
    with conductor.conductor() as server:
        server.validate(definition)
        request = made_up_run(definition, inputs, outputs, children=children)
        ran = server.request("POST", "/workflow/test", body=request)
    assert isinstance(ran, dict)
    assert ran["status"] == "COMPLETED", ran.get("reasonForIncompletion")
    output = ran["output"]
    assert isinstance(output, dict)
    assert {key: output[key] for key in expected} == expected


def test_a_reference_without_a_target_is_null_to_conductor(conductor: Desk) -> None:
    """The control of both: the server itself completes a workflow with a misspelt reference."""
    text = json.dumps(read("pesto_failure")).replace("output.forgotten", "output.forgoten")
    with conductor.conductor() as server:
        server.validate(json.loads(text))
        request = made_up_run(json.loads(text), *MADE_UP["pesto_failure"][:2])
        ran = server.request("POST", "/workflow/test", body=request)
    assert isinstance(ran, dict)
    assert (ran["status"], ran["output"]) == ("COMPLETED", {"forgotten": None})


# ------------------------------------------------------------------ for real


@pytest.mark.usefixtures("worker")
def test_verbs_by_hand_give_the_bytes_of_the_local_engine(
    conductor: Desk, tmp_path: Path, local: str
) -> None:
    """Three services over HTTP, discovered, planned, fanned out, mosaicked and folded by hand."""
    with ExitStack() as stack:
        urls = [
            stack.enter_context(served(f"{EXAMPLES}/{name}.py:{name}"))
            for name in ("cloud_mask", "sieve", "cloud_cover")
        ]
        output = run(
            conductor, "cloud-cover-by-hand", f"scene={SCENE}", f"folder={tmp_path}/out",
            f"deliver={tmp_path}/mask.tif", f"urls={json.dumps(urls)}",
        )  # fmt: skip
    assert output["cover"] == expected_answer().cover
    assert output["sha256"] == local
    assert sha256_of(tmp_path / "mask.tif") == sha256_of(tmp_path / "out" / "mask.tif") == local


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("limit", "verdict"), [("0.3", "usable"), ("0.01", "too cloudy")])
def test_a_switch_follows_the_cloud_cover_of_a_sub_workflow(
    conductor: Desk, tmp_path: Path, local: str, limit: str, verdict: str
) -> None:
    """0.053 of the scene is cloudy: one limit lets it through to the next process, one ends it."""
    output = run(
        conductor, "cloud-gate", f"scene={SCENE}", f"folder={tmp_path}/out", f"limit={limit}"
    )
    assert output == {"verdict": verdict, "cover": expected_answer().cover}
    assert sha256_of(tmp_path / "out" / "mask.tif") == local


@pytest.mark.usefixtures("worker")
@pytest.mark.real_pesto
def test_a_service_of_ours_and_one_of_pesto_are_chained(
    conductor: Desk, tmp_path: Path, real_pesto: str
) -> None:
    """The mask, then PESTO 1.7.2's local maximum of it: as the local engine with the same two."""
    definition: dict[str, list[dict[str, dict[str, dict[str, Document]]]]]
    definition = json.loads((FOLDER / "clouds_widened.json").read_text())
    plan = definition["tasks"][0]["inputParameters"]
    with served(f"{EXAMPLES}/cloud_mask.py:cloud_mask") as ours:
        run(conductor, "clouds-widened", f"scene={SCENE}", f"folder={tmp_path}/out",
            f"ours={ours}", f"pesto={real_pesto}")  # fmt: skip
        overlaid: Document = {**plan["services"]["local-maximum"], "url": real_pesto}
        catalog = saved(tmp_path / "c.json", {"cloud-mask": ours, "local-maximum": overlaid})
        done = run_local(plan["pipeline"], tmp_path / "l", {"scene": SCENE}, catalog=catalog)
    assert sha256_of(tmp_path / "out" / "mask.tif") == done.sha256("mask")


def test_a_workflow_without_workers_calls_a_service(conductor: Desk) -> None:
    """HTTP, JQ and INLINE are the server's own: 0.4 is over the limit of 0.3."""
    with served(f"{EXAMPLES}/verdict.py:verdict") as url:
        output = run(conductor, "without-workers", f"service={url}", "fractions=[0.1, 0.7]")
    assert output == {"verdict": "cloudy", "text": "verdict says cloudy"}


def test_a_long_call_without_a_worker_is_a_job_that_writes_its_image(
    conductor: Desk, tmp_path: Path
) -> None:
    """The service writes the file; the control is a scene that does not exist."""
    target, made, alone = f"{EXAMPLES}/cloud_mask.py:cloud_mask", tmp_path / "m.tif", tmp_path / "a"
    with served(target, "--allow", "/") as url:
        output = run(conductor, "service-job", f"service={url}", f"scene={SCENE.as_uri()}",
                     f"out={made.as_uri()}")  # fmt: skip
        assert output["cloud"] == made.as_uri()
        words = ("conductor", "start", "service-job", "--url", conductor.url, "--wait")
        gone = ("-i", f"service={url}", "-i", "scene=file:///no.tif", "-i", f"out={alone.as_uri()}")
        failed = pesto(*words, *gone)
    assert (failed.returncode, "the job is failed" in failed.stderr) == (1, True), failed.stderr
    assert "no.tif" in failed.stderr
    done = pesto("process", target, "-i", f"scene={SCENE}", "-o", f"cloud={alone}.tif")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(pixels_of(made), pixels_of(tmp_path / "a.tif"))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", ["scenes-one-by-one", "scenes-at-once"])
def test_a_list_of_scenes_runs_as_sub_workflows(
    conductor: Desk, tmp_path: Path, local: str, name: str
) -> None:
    """One after another in a loop, or all at once in a fork: a folder each."""
    scenes = f"scenes={json.dumps([str(SCENE)] * 2)}"
    run(conductor, name, scenes, f"folder={tmp_path}")
    for number in (1, 2):
        assert sha256_of(tmp_path / str(number) / "mask.tif") == local


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("approved", "status"), [(True, "COMPLETED"), (False, "FAILED")])
def test_a_person_decides_over_a_scene(
    conductor: Desk, tmp_path: Path, approved: bool, status: str
) -> None:
    """The workflow waits until the task is completed from outside, and ends by the decision."""
    inputs: Document = {"scene": str(SCENE), "folder": str(tmp_path / "out")}
    with conductor.conductor() as server:
        identity = server.start("approved-scene", inputs)
        waited(lambda: bool(conductor.tasks(identity, "HUMAN")), 120)
        (approval,) = conductor.tasks(identity, "HUMAN")
        assert approval["inputData"]["cover"] == expected_answer().cover  # type: ignore[index, call-overload]
        server.complete(str(approval["taskId"]), identity, {"approved": approved, "by": "Ada"})
        assert conductor.ended(identity, 60)["status"] == status


@pytest.mark.usefixtures("worker")
def test_an_event_decides_over_a_scene(conductor: Desk, tmp_path: Path) -> None:
    """Another workflow publishes the decision; a handler completes the task that waits for it."""
    inputs: Document = {"scene": str(SCENE), "folder": str(tmp_path / "out")}
    with conductor.conductor() as server:
        identity = server.start("approved-scene", inputs)
    waited(lambda: bool(conductor.tasks(identity, "HUMAN")), 120)
    run(conductor, "decide-scene", f"workflow={identity}", "approved=true", "by=Ada")
    # The server looks for new handlers once a minute.
    ended = conductor.ended(identity, 150)
    assert ended["status"] == "COMPLETED", ended.get("reasonForIncompletion")
    assert ended["output"]["by"] == "Ada"  # type: ignore[index, call-overload]


@pytest.mark.usefixtures("worker")
def test_an_event_starts_a_workflow(conductor: Desk, tmp_path: Path, local: str) -> None:
    """One workflow announces a scene; a handler starts cloud-cover over it."""
    run(conductor, "announce-scene", f"scene={SCENE}", f"folder={tmp_path}/out")
    # The server looks for new handlers once a minute.
    waited((tmp_path / "out" / "result.json").exists, 150)
    assert sha256_of(tmp_path / "out" / "mask.tif") == local


# ------------------------------------------------------------------ pesto run --engine conductor


def test_the_engine_gives_the_bytes_of_the_local_one(
    conductor: Desk, tmp_path: Path, local: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With workers of its own; the second run answers at once, and no worker is left."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", conductor.url)
    words = ("run", CLOUD_COVER, "--engine", "conductor", "-i", f"scene={SCENE}", "--tile", 500,
             "-o", tmp_path / "out")  # fmt: skip
    done = pesto(*words, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert sha256_of(tmp_path / "out" / "mask.tif") == local
    assert json.loads((tmp_path / "out" / "cover.json").read_text()) == expected_answer().cover
    assert result["engine"]["name"] == "conductor"
    assert conductor.workflow(result["engine"]["run"])["status"] == "COMPLETED"
    again = pesto(*words)
    assert "already complete" in again.stderr


def test_a_run_with_holes_is_partial_as_on_the_local_engine(
    conductor: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tile fails: the same bytes, status and skipped outputs of both, over two phases."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", conductor.url)
    (tmp_path / "broken").touch()
    pixels = np.where(noise(900, 600) == MARKER, 0, noise(900, 600))
    pixels[0, 550, 700] = MARKER
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = pipeline(
        stage("same", "fragile", image="$inputs.scene", broken=str(tmp_path / "broken")),
        stage("mean", "mean", image="$same.image"),
        stage("above", "above", image="$inputs.scene", level="$mean.mean"),
        outputs={"image": "$same.image", "above": "$above.image"},
    )
    expected = run_local(document, tmp_path / "local", {"scene": scene})
    path = saved(tmp_path / "p.json", document)
    done = pesto("run", path, "--engine", "conductor", "-i", f"scene={scene}", "--tile", 200,
                 "-o", tmp_path / "out", "--json")  # fmt: skip
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    for key in ("status", "skipped", "tiles"):
        assert result[key] == expected.result[key]
    assert result["tiles"]["holes"] == 1
    assert sha256_of(tmp_path / "out" / "image.tif") == expected.sha256()


def test_an_interrupted_run_ends_its_workflow_and_its_workers(
    conductor: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while tiles are computed: exit code 130, TERMINATED, and nobody left."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", conductor.url)
    scene, log = write_scene(tmp_path / "s.tif", noise(1536, 512)), tmp_path / "log"
    document = chain("paced", log=str(log), seconds=0.5)
    path = saved(tmp_path / "p.json", {**document, "name": "interrupted"})
    words = ("run", path, "--engine", "conductor", "-i", f"scene={scene}", "--tile", 128)
    with started(*words, "-o", tmp_path / "out") as process:
        waited(log.exists, 60)
        family = descendants(process.pid)
        assert family
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        waited(lambda: not any(is_alive(pid) for pid in family), 10)
    with conductor.conductor() as server:
        (ended,) = server.search("workflowType = 'interrupted'")
    assert ended["status"] == "TERMINATED"
    assert len(log.read_text().splitlines()) < 48


def test_a_pipeline_that_does_not_check_is_refused_before_a_server_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and every error, though no Conductor is where the environment says."""
    monkeypatch.setenv("CONDUCTOR_SERVER_URL", "http://127.0.0.1:1/api")
    document = json.loads(CLOUD_COVER.read_text())
    document["stages"][1]["inputs"]["mask"] = "$inputs.scene"
    path = saved(tmp_path / "p.json", document)
    words = ("--engine", "conductor", "-i", f"scene={SCENE}", "-o", tmp_path / "out")
    assert pesto("run", path, *words).returncode == 2
    there = pesto("run", CLOUD_COVER, *words)
    assert there.returncode == 1
    assert "no Conductor responds at http://127.0.0.1:1/api" in there.stderr
