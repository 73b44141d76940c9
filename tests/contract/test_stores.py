"""Pipeline, catalog, scene, run store and outputs in a bucket give the bytes of the disk."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Unpack

import numpy as np
import pytest
import rasterio
from rasterio.enums import MaskFlags

from pesto_conductor.deploy import read_definitions
from pesto_runtime.client.client import Client
from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import RenderRequest, RunRequest, SilentListener, load_renderer
from pesto_runtime.errors import (
    FolderInUse,
    InvalidContract,
    InvalidInput,
    PestoError,
    StoreFailed,
    StoreRefused,
)
from pesto_runtime.finished_run import Run
from pesto_runtime.pipeline import Sizing
from pesto_runtime.places import RemotePath, output_place, place_of
from pesto_runtime.projects.build_context import write_context
from pesto_runtime.projects.validating import BuildFiles, read_build_files
from pesto_runtime.raster.image import Image
from pesto_runtime.raster.read import read_image, read_scene
from pesto_runtime.run.chunk import process
from pesto_runtime.run.closing import close_phase
from pesto_runtime.run.context import begin_run, chunks_of, load_context
from pesto_runtime.run.local import engine
from pesto_runtime.run.output_files import withdraw
from pesto_runtime.run.ownership import claim, owner_of, release
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import load_pipeline, plan
from pesto_runtime.run.product_check import verify_result
from pesto_runtime.run.publishing import publish_run
from pesto_runtime.run.result import RunRecord
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.workspace import locked_workspace, run_store
from pesto_runtime.store import Store
from tests.support import detections, masked
from tests.support.buckets import BUCKET, moto_server, names, proxy_before, put, variables
from tests.support.commands import pesto, saved, served, started
from tests.support.file_server import serving, use
from tests.support.projects import write_project
from tests.support.rasters import noise, write_scene
from tests.support.runs import CLOUD_COVER, SCENE, Settings, chain, pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan
    from tests.support.buckets import Proxy

pytestmark = pytest.mark.contract

RESULTS = {"image.tif", "report.html", "result.json"}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with moto_server() as port:
        yield port


@pytest.fixture
def bucket(port: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own; the variables of the server are set."""
    use(variables(port), monkeypatch)
    number = abs(hash(request.node.name))
    return f"{BUCKET}/{number}"


@pytest.fixture
def proxy(port: int, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, to which the variables point."""
    with proxy_before(port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def absolute(path: Path) -> dict[str, JsonValue]:
    """A pipeline's document with absolute targets."""
    document: dict[str, JsonValue] = json.loads(path.read_text())
    services = document["services"]
    assert isinstance(services, dict)
    document["services"] = {n: str((path.parent / str(t)).resolve()) for n, t in services.items()}
    return document


def run_into(
    folder: str, document: Mapping[str, JsonValue], scene: str, **settings: Unpack[Settings]
) -> dict[str, JsonValue]:
    """Run a pipeline into a folder of the bucket, with tiles of 256 pixels."""
    wanted: Settings = {"workers": 2, "tile": 256, **settings}
    request = RunRequest(
        pipeline=Pipeline.parse(document), base=CLOUD_COVER.parent, inputs={"scene": scene},
        folder=RemotePath(folder), **wanted,
    )  # fmt: skip
    return engine.run(request, watcher=SilentListener())


def slow(bucket: str, scene: Path) -> tuple[dict[str, JsonValue], str]:
    """A pipeline whose run takes a while, and its scene in the bucket."""
    href = put(f"{bucket.rpartition('/')[2]}/s.tif", scene.read_bytes())
    return chain("slow", seconds=0.05), href


def test_every_place_in_a_bucket_gives_the_bytes_of_the_disk(tmp_path: Path, bucket: str) -> None:
    """Processes, phases with a raster between them, a reduce, a report; nothing else is left."""
    document = absolute(CLOUD_COVER)
    local = run_local(document, tmp_path / "out", {"scene": str(SCENE)}, tile=256)
    prefix = bucket.removeprefix(f"{BUCKET}/")
    catalog = put(f"{prefix}/catalog.json", json.dumps(document.pop("services")).encode())
    file = put(f"{prefix}/p.json", json.dumps(document).encode())
    scene = put(f"{prefix}/s.tif", SCENE.read_bytes())
    done = pesto(
        "run", file, "-i", f"scene={scene}", "-o", f"{bucket}/out", "--services", catalog,
        "--tile", 256, "--executor", "processes", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert names(f"{bucket}/out") == {"cover.json", "mask.tif", "report.html", "result.json"}
    for name in ("mask.tif", "cover.json"):
        assert place_of(f"{bucket}/out/{name}").read_bytes() == (local.folder / name).read_bytes()
    run = Run.of(f"{bucket}/out")
    assert run.result["outputs"] == local.result["outputs"]
    with run.open("mask") as dataset:
        pixels = dataset.read()
    assert np.array_equal(pixels, local.pixels("mask"))


def test_masks_and_vectors_in_a_bucket_are_those_of_the_disk(tmp_path: Path, bucket: str) -> None:
    """Threads; a product with the mask of its scene, and features. Another scene differs."""
    source = write_scene(tmp_path / "s.tif", noise(600, 300, below=40))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source, "r+") as dataset:
        dataset.write_mask(np.arange(600 * 300).reshape(300, 600) % 7 > 0)
    document = pipeline(
        stage("s", "same", image="$inputs.scene"),
        stage("found", "boxes", image="$inputs.scene"),
        outputs={"image": "$s.image", "boxes": "$found.boxes"},
    )
    services = document["services"]
    assert isinstance(services, dict)
    services |= {"boxes": f"{detections.__file__}:boxes", "same": f"{masked.__file__}:same"}
    href = put(f"{bucket.removeprefix(f'{BUCKET}/')}/s.tif", source.read_bytes())
    local = run_local(document, tmp_path / "out", {"scene": str(source)}, tile=256)
    result = run_into(f"{bucket}/out", document, href)
    assert result["outputs"] == local.result["outputs"]
    with rasterio.open(local.folder / "image.tif") as dataset:
        assert MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    other = run_into(f"{bucket}/other", document, str(write_scene(source, noise(600, 300))))
    assert other["outputs"] != result["outputs"], "the control"


def test_tasks_of_an_orchestrator_share_only_a_bucket(tmp_path: Path, bucket: str) -> None:
    """Plan, chunks, ends of phases and publication, each as a task; a second publication too."""
    document = absolute(CLOUD_COVER)
    made = planned(bucket, SCENE, document, tile=256)
    with locked_workspace(place_of(bucket), run=made.run):
        claim(place_of(bucket), made, member="orchestrator")
        href = begin_run(made)
    for number in range(len(made.phases)):
        for chunk in chunks_of(href, number):
            load_context.cache_clear()
            process(chunk)
        close_phase(href, number)
    record = RunRecord(engine={"name": "orchestrator"})
    result = publish_run(href, place_of(bucket), record)
    assert publish_run(href, place_of(bucket), record) == result
    local = run_local(document, tmp_path / "out", {"scene": str(SCENE)}, tile=256)
    assert result["outputs"] == local.result["outputs"]
    assert names(bucket) == {"cover.json", "mask.tif", "report.html", "result.json"}


def test_a_changed_product_is_found_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    """`pesto verify` names the block; the untouched product (control) is intact."""
    document, href = slow(bucket, write_scene(tmp_path / "s.tif", noise(600, 300)))
    run_into(f"{bucket}/out", document, href)
    product = RemotePath(f"{bucket}/out/image.tif")
    assert all(each.is_intact for each in verify_result(RemotePath(f"{bucket}/out")))
    data = bytearray(product.read_bytes())
    data[-100] ^= 1
    product.write_bytes(bytes(data))
    (check,) = verify_result(RemotePath(f"{bucket}/out"))
    assert not check.is_intact
    assert [tuple(each)[:2] for each in check.blocks] == [(512, 0)]


def test_an_object_that_changes_while_it_is_read_is_noticed(bucket: str) -> None:
    """Its parts are read by several requests; unchanged (control), they are its bytes."""
    data, place = noise(4096, 4096).tobytes(), RemotePath(f"{bucket}/a")
    place.write_bytes(data)
    assert b"".join(place.chunks()) == data
    parts = place.chunks()
    next(parts)
    place.write_bytes(data[::-1])
    with pytest.raises(StoreFailed, match="changed while it was read"):
        next(parts)


MOMENTS = {
    "a block": r"PUT .*/blocks/",
    "the header": r"PUT .*image\.tif\?.*partNumber",
    "the end of the upload": r"POST .*image\.tif\?.*uploadId",
    "the result": r"PUT .*result\.json",
    "the cleaning": r"GET .*\.pesto(%2F|/)$",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on(
    tmp_path: Path, port: int, bucket: str, proxy: Proxy, moment: str
) -> None:
    """SIGKILL during a request: nothing half-visible; the same command goes on."""
    source = write_scene(tmp_path / "s.tif", noise(600, 300))
    document, href = slow(bucket, source)
    file = tmp_path / "p.json"
    file.write_text(json.dumps(document))
    proxy.hold(MOMENTS[moment])
    words = ("run", file, "-i", f"scene={href}", "-o", f"{bucket}/out", "--tile", 256)
    with started(*words) as process:
        assert proxy.seen.wait(60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    proxy.held = None
    wanted = run_local(document, tmp_path / "out", {"scene": str(source)}).sha256()
    there = names(f"{bucket}/out")
    if "image.tif" in there:
        assert RemotePath(f"{bucket}/out/image.tif").sha256()[0] == wanted
    assert ("result.json" in there) == (moment == "the cleaning")
    assert run_into(f"{bucket}/out", document, href)["status"] == "COMPLETE"
    assert RemotePath(f"{bucket}/out/image.tif").sha256()[0] == wanted
    assert names(f"{bucket}/out") == RESULTS


def planned(
    folder: str, scene: Path, document: Mapping[str, JsonValue], *, tile: int | None = None
) -> Plan:
    """The plan of a run into a folder of the bucket."""
    model = Pipeline.parse(document)
    services = resolve_services(model, base=scene.parent)
    inputs = read_inputs(model, services, {"scene": str(scene)})
    place, sizing = output_place(folder), Sizing(workers=1, tile=tile)
    store = run_store(place)
    return plan(model, services, inputs, store=store, sizing=sizing, folder=place).plan


def waits(number: int) -> dict[str, JsonValue]:
    """One of several pipelines."""
    return chain("slow", seconds=number / 100)


def claim_at(start: threading.Barrier, folder: str, made: Plan) -> str:
    """Claim a folder together with others; `owner`, or the error."""
    start.wait()
    try:
        claim(place_of(folder), made, member=made.run)
    except FolderInUse as error:
        return str(error)
    return "owner"


def test_of_two_runs_that_race_for_a_prefix_one_is_refused(bucket: str, tmp_path: Path) -> None:
    """Five times, of four claims at once one wins; the others name it. Released, it is free."""
    scene = write_scene(tmp_path / "s.tif", noise(64, 64))
    for attempt in range(5):
        folder = f"{bucket}/{attempt}"
        plans = [planned(folder, scene, waits(number)) for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            outcomes = [*pool.map(partial(claim_at, threading.Barrier(4), folder), plans)]
        (winner,) = [number for number, outcome in enumerate(outcomes) if outcome == "owner"]
        refused = [outcome for outcome in outcomes if outcome != "owner"]
        assert all(plans[winner].run in each for each in refused)
        assert release(place_of(folder), plans[winner].run, member=plans[winner].run)
        other = plans[(winner + 1) % 4]
        claim(place_of(folder), other, member="later")
        owner = owner_of(place_of(folder))
        assert owner is not None
        assert owner.run == other.run


def test_a_prefix_of_a_run_at_work_is_refused_until_it_is_taken_over(
    bucket: str, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "s.tif", noise(64, 64))
    first, second = (planned(bucket, scene, waits(number)) for number in (1, 2))
    with locked_workspace(place_of(bucket), run=first.run):
        claim(place_of(bucket), first, member="first", pid=os.getpid())
    with pytest.raises(FolderInUse, match=first.run):
        claim(place_of(bucket), second, member="second")
    claim(place_of(bucket), second, member="second", take_over=True)
    owner = owner_of(place_of(bucket))
    assert owner is not None
    assert owner.run == second.run


def test_a_process_of_the_same_run_is_waited_for_until_it_ends(bucket: str, tmp_path: Path) -> None:
    """Killed, it owns nothing any more on this machine; a living one (control) is waited for."""
    made = planned(bucket, write_scene(tmp_path / "s.tif", noise(64, 64)), waits(1))
    waiting, entered = threading.Event(), threading.Event()

    def enter() -> None:
        with locked_workspace(place_of(bucket), run=made.run, on_wait=lambda _: waiting.set()):
            entered.set()

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        claim(place_of(bucket), made, member="other", pid=other.pid)
        thread = threading.Thread(target=enter)
        thread.start()
        assert waiting.wait(60)
        assert not entered.wait(1.5)
        other.kill()
        other.wait()
        assert entered.wait(60)
        thread.join()


def test_a_repeated_publication_never_withdraws_the_result(bucket: str, tmp_path: Path) -> None:
    """A task that publishes late leaves the result of its run; of another one (control) not."""
    document, href = slow(bucket, write_scene(tmp_path / "s.tif", noise(600, 300)))
    result = run_into(f"{bucket}/out", document, href)
    made = planned(f"{bucket}/out", tmp_path / "s.tif", document)
    folder = RemotePath(f"{bucket}/out")
    withdraw(made.model_copy(update={"run": str(result["run"])}), folder, keep={"image.tif"})
    assert names(folder.href) == RESULTS
    withdraw(made, folder, keep={"image.tif"})
    assert names(folder.href) == {"image.tif"}


def test_faults_of_the_network_change_no_byte(
    tmp_path: Path, port: int, bucket: str, proxy: Proxy
) -> None:
    """Every fifth request gets 503, every third no response; scene, store and outputs go on."""
    source = write_scene(tmp_path / "s.tif", noise(1100, 600))
    document, href = slow(bucket, source)
    proxy.fault = lambda number: "503" if number % 5 == 0 else "drop" if number % 3 == 0 else ""
    run_into(f"{bucket}/out", document, href)
    assert proxy.faults > 10
    proxy.fault = lambda _number: ""
    wanted = run_local(document, tmp_path / "out", {"scene": str(source)}).sha256()
    assert RemotePath(f"{bucket}/out/image.tif").sha256()[0] == wanted
    assert names(f"{bucket}/out") == RESULTS


def test_a_store_that_is_away_is_a_retryable_error(
    bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the patience; a missing bucket is not retryable."""
    monkeypatch.setenv("PESTO_STORE_PATIENCE", "0.3")
    proxy.fault = lambda _number: "503"
    for access in (
        lambda: RemotePath(f"{bucket}/a").write_bytes(b"1"),
        lambda: read_scene(f"{bucket}/s.tif"),
        lambda: Store(bucket).get("a"),
    ):
        with pytest.raises(PestoError) as away:
            access()
        assert away.value.retryable
    proxy.fault = lambda _number: ""
    monkeypatch.setenv("PESTO_STORE_PATIENCE", "3")
    with pytest.raises(StoreFailed, match="the bucket does not exist") as missing:
        RemotePath("s3://missing/a").write_bytes(b"1")
    assert not missing.value.retryable


def test_a_store_that_cannot_be_written_is_refused_before_planning(tmp_path: Path) -> None:
    """The scene is not even looked for."""
    given = {"scene": str(tmp_path / "none.tif")}
    with pytest.raises(StoreRefused, match="s3://"):
        run_local(chain("slow"), tmp_path / "out", given, store="https://example.org/store")


@pytest.mark.parametrize("folder", ["https://example.org/out", "ftp://example.org/out"])
def test_a_folder_that_cannot_be_written_is_refused_before_planning(
    tmp_path: Path, folder: str
) -> None:
    """The scene is not even looked for; the message has the way out."""
    with pytest.raises(StoreRefused, match="folder"):
        run_into(folder, chain("slow"), str(tmp_path / "none.tif"))


@pytest.mark.parametrize("form", ["as_cog", "overviews"])
def test_products_with_overviews_are_uploaded(tmp_path: Path, bucket: str, form: str) -> None:
    """With a mask, the bytes of a disk; a plain product (control) has others; nothing is left."""
    source = masked_scene(tmp_path / "s.tif")
    document = pipeline(stage("s", "same", image="$inputs.scene"), outputs={"image": "$s.image"})
    document["services"] = {"same": f"{masked.__file__}:same"}
    settings: Settings = {"as_cog": form == "as_cog", "overviews": form == "overviews"}
    local = run_local(document, tmp_path / "out", {"scene": str(source)}, **settings)
    done = run_into(f"{bucket}/out", document, str(source), **settings)
    assert done["outputs"] == local.result["outputs"]
    assert names(f"{bucket}/out") == RESULTS
    data = place_of(f"{bucket}/out/image.tif").read_bytes()
    assert data == (local.folder / "image.tif").read_bytes()
    assert all(each.is_intact for each in verify_result(place_of(f"{bucket}/out")))
    run_into(f"{bucket}/plain", document, str(source))
    assert place_of(f"{bucket}/plain/image.tif").read_bytes() != data


def test_a_pipeline_in_a_bucket_is_rendered(tmp_path: Path, bucket: str) -> None:
    """With its catalog, for Conductor as from a disk; a DAG file reads no bucket."""
    document = absolute(CLOUD_COVER)
    prefix = bucket.removeprefix(f"{BUCKET}/")
    catalog = put(f"{prefix}/catalog.json", json.dumps(document.pop("services")).encode())
    href = put(f"{prefix}/p.json", json.dumps(document).encode())
    saved(tmp_path / "catalog.json", json.loads(place_of(catalog).read_text()))
    file = saved(tmp_path / "p.json", document)
    found = {}
    for where, given in ((href, catalog), (str(file), str(tmp_path / "catalog.json"))):
        definition = definition_of(where, given)
        assert definition == read_definitions(place_of(where), catalog=place_of(given))[0]
        template = definition["inputTemplate"]
        assert isinstance(template, dict)
        template.pop("base")
        found[where] = definition
    assert found[href] == found[str(file)]
    with pytest.raises(InvalidInput, match="download"):
        definition_of(href, catalog, engine="airflow")


def definition_of(
    pipeline: str, catalog: str, *, engine: str = "conductor"
) -> dict[str, JsonValue]:
    """What `pesto render` prints."""
    place = place_of(pipeline)
    request = RenderRequest(load_pipeline(place), place, catalog=place_of(catalog))
    definition: dict[str, JsonValue] = json.loads(load_renderer(engine).render(request))
    return definition


def masked_scene(path: Path) -> Path:
    """A scene of several blocks, with a mask of its own."""
    write_scene(path, noise(1100, 700))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(noise(1100, 700, below=3, seed=3)[0] == 1)
    return path


def test_requirements_of_an_image_are_in_a_bucket_or_on_a_web_server(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive is unpacked, a model copied; of what is absent, all names are in one report.

    The server of files stands for Google's storage, whose objects have the paths /BUCKET/NAME.
    """
    web = tmp_path / "web"
    web.mkdir()
    with tarfile.open(tmp_path / "a.tar.gz", mode="w:gz") as file:
        member = tarfile.TarInfo("weights/a.bin")
        member.size = 5
        file.addfile(member, io.BytesIO(b"model"))
    RemotePath(f"{bucket}/model.tar.gz").write_bytes((tmp_path / "a.tar.gz").read_bytes())
    (web / "b.bin").write_bytes(b"other")
    project = write_project(tmp_path / "scaled")
    listed = project / "pesto" / "build" / "requirements.json"

    def needs(**hrefs: str) -> BuildFiles:
        entries = {name: {"from": href, "to": "/opt/models"} for name, href in hrefs.items()}
        listed.write_text(json.dumps({"requirements": entries}))
        return read_build_files(project)

    (web / "lake").mkdir()
    (web / "lake" / "g.bin").write_bytes(b"google")
    with serving(web, tmp_path / "log") as server:
        as_google(server.url, tmp_path, monkeypatch)
        files = needs(model=f"{bucket}/model.tar.gz", b=f"{server.url}/b.bin", g="gs://lake/g.bin")
        made = write_context(files, tmp_path / "out")
        assert (made.folder / "files/model/weights/a.bin").read_bytes() == b"model"
        assert not (made.folder / "files/model/model.tar.gz").exists()
        assert (made.folder / "files/b/b.bin").read_bytes() == b"other"
        assert (made.folder / "files/g/g.bin").read_bytes() == b"google"
        files = needs(x=f"{bucket}/x.bin", y=f"{server.url}/y.bin", z="gs://lake/z.bin",
                      b=f"{server.url}/b.bin")  # fmt: skip
        with pytest.raises(InvalidContract) as refused:
            write_context(files, tmp_path / "other")
    assert [each.pointer.split("/")[-2] for each in refused.value.fields] == ["x", "y", "z"]
    assert not (tmp_path / "other" / "context").exists()


def as_google(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `gs://BUCKET/NAME` be the file BUCKET/NAME of a server."""
    account = folder / "account.json"
    keys = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    account.write_text(json.dumps({"gcs_base_url": url, "disable_oauth": True, **keys}))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))


def test_a_service_writes_an_output_into_a_bucket(bucket: str) -> None:
    """Below `--allow` alone; the control is a prefix beside it."""
    target = "tests/contract/processes.py:same"
    with served(target, "--allow", f"{bucket}/out") as url, Client(url) as client:
        image = Image(noise(20, 10, bands=2), bands=("red", "nir"))
        for href in (f"{bucket}/other/a.tif", f"{bucket}/out2/a.tif"):
            with pytest.raises(PestoError, match="may not be written"):
                client.process({"image": image}, out={"image": href})
        href = f"{bucket}/out/new/a.tif"
        assert client.process({"image": image}, out={"image": href}) == {"image": href}
    np.testing.assert_array_equal(read_image(href).pixels, noise(20, 10, bands=2))
