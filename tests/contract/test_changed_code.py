"""Code that changes during a run ends the run; a service that is only restarted does not."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import ProcessChanged, Unreachable
from pesto_runtime.pipeline import Sizing
from pesto_runtime.run.callers import close_callers
from pesto_runtime.run.chunk import process
from pesto_runtime.run.closing import close_phase
from pesto_runtime.run.context import begin_run, chunks_of, load_context
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import plan
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.workspace import run_store
from tests.support.commands import pesto, saved, started, waited
from tests.support.deployment import Deployment, deployed, document
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import Done, run_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

pytestmark = [
    pytest.mark.contract,
    pytest.mark.integration,
    pytest.mark.usefixtures("without_pictures"),
]

PIXELS = noise(1100, 600)
TILES, HALF = 28, 23
SECONDS = 0.2


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", PIXELS)


@pytest.fixture(autouse=True)
def callers() -> Iterator[None]:
    """No caller of a test is used by the next."""
    yield
    close_callers()


def shaded(folder: Path, scene: Path, *urls: str, patience_s: float = 60) -> Done:
    """Run `shade` over a scene at services."""
    options = tuple(f"shade={url}" for url in urls)
    return run_local(
        document("shade"), folder, {"scene": scene},  # type: ignore[arg-type]  # JSON
        services=options, patience_s=patience_s,
    )  # fmt: skip


def is_unpublished(folder: Path) -> bool:
    """Whether a run has left nothing but its store."""
    return all(name.startswith(".pesto/") for name in tree(folder))


def half_way(deployment: Deployment) -> None:
    """Wait until a part of the tiles is computed."""
    waited(lambda: deployment.calls >= HALF, 90)


@pytest.fixture
def running(tmp_path: Path, scene: Path) -> Iterator[Callable[[Deployment, float], Future[Done]]]:
    """Starts a run in a thread, and returns when some tiles are computed."""
    with ThreadPoolExecutor(1) as threads:

        def begin(deployment: Deployment, patience_s: float) -> Future[Done]:
            future = threads.submit(
                shaded, tmp_path / "out", scene, deployment.url, patience_s=patience_s
            )
            half_way(deployment)
            return future

        yield begin


def test_replicas_of_different_code_are_refused_before_a_pixel(tmp_path: Path, scene: Path) -> None:
    """By the command line: exit code 1, URL and build of each, and no call of either."""
    with deployed(tmp_path / "a") as first, deployed(tmp_path / "b", added=7) as second:
        path = saved(tmp_path / "p.json", document("shade"))  # type: ignore[arg-type]  # JSON
        words = ["-s", f"shade={first.url}", "-s", f"shade={second.url}"]
        done = pesto("run", path, "-i", f"scene={scene}", "-o", tmp_path / "out", *words)
        assert done.returncode == ProcessChanged.exit_code == 1
        assert all(each.url in done.stderr for each in (first, second))
        assert done.stderr.count("sha256:") == 2
        assert "Traceback" not in done.stderr
        assert first.calls + second.calls == 0
    assert not (tmp_path / "out").exists()


def test_two_targets_of_different_code_are_refused(tmp_path: Path, scene: Path) -> None:
    """Functions in this process, too; two copies of one code (control) run."""
    copies = [Deployment(tmp_path / name) for name in "abc"]
    for each, added in zip(copies, (1, 7, 1), strict=True):
        each.write(added=added)
        text = (each.folder / "shades.py").read_text()
        (each.folder / "shades.py").write_text(text.replace(str(each.folder), "/nowhere"))
    with pytest.raises(ProcessChanged, match=r"a/shades.*\n.*b/shades"):
        resolve_services(
            Pipeline.parse(document("shade")), base=tmp_path,
            options=[f"shade={copies[0].target}", f"shade={copies[1].target}"],
        )  # fmt: skip
    found = resolve_services(
        Pipeline.parse(document("shade")), base=tmp_path,
        options=[f"shade={copies[0].target}", f"shade={copies[2].target}"],
    )  # fmt: skip
    assert found.services["shade"].targets == (copies[0].target,)
    assert scene.exists()


def test_replicas_of_one_code_share_the_tiles(tmp_path: Path, scene: Path) -> None:
    """The control: both are called, and the result is right."""
    with ExitStack() as stack:
        first = stack.enter_context(deployed(tmp_path / "a", seconds=0.05))
        second = Deployment(first.folder)
        second.ready()
        stack.callback(second.kill)
        done = shaded(tmp_path / "out", scene, first.url, second.url)
    assert np.array_equal(done.pixels("made"), PIXELS + 1)


@pytest.mark.parametrize("added", [7, 1])
def test_a_replica_that_was_away_is_compared_when_it_is_back(
    tmp_path: Path, scene: Path, added: int
) -> None:
    """Of other code: the chunk fails, and the first replica goes on; of the same code: it helps."""
    with ExitStack() as stack:
        first = stack.enter_context(deployed(tmp_path / "a", seconds=0.05))
        second = Deployment(first.folder)
        stack.callback(second.kill)
        urls = tuple(f"shade={each.url}" for each in (second, first))
        href = begun(urls, tmp_path, scene, "shade")
        assert second.url in load_context(href).plan.warnings[0]
        second.write(added=added, seconds=0.05)
        second.ready()
        (chunk, *_) = chunks_of(href, 0)
        if added == 1:
            process(chunk, threads=4)
            return
        with pytest.raises(ProcessChanged, match="stage 's0'") as caught:
            process(chunk, threads=4)
    assert second.url in caught.value.detail


@pytest.mark.parametrize(
    ("code", "named"),
    [({"added": 7}, "build"), ({"added": 7, "version": "2", "margin": 9}, "digest")],
)
def test_a_service_replaced_by_other_code_ends_the_run(
    tmp_path: Path,
    running: Callable[[Deployment, float], Future[Done]],
    code: dict[str, object],
    named: str,
) -> None:
    """Restarted on its port in the middle: stage, URL and both builds; nothing is published."""
    with deployed(tmp_path / "a", seconds=SECONDS) as service:
        future = running(service, 60)
        service.kill()
        service.write(**code)  # type: ignore[arg-type]  # as given
        service.start()
        with pytest.raises(ProcessChanged) as caught:
            future.result(60)
    error = caught.value
    assert (error.retryable, error.exit_code) == (False, 1)
    assert all(each in error.detail for each in ("stage 's0'", service.url, "build sha256:", named))
    assert is_unpublished(tmp_path / "out")
    load_context.cache_clear()


def test_the_same_code_restarted_in_the_middle_goes_through(
    tmp_path: Path, scene: Path, running: Callable[[Deployment, float], Future[Done]]
) -> None:
    """Another process on the same port, after an outage: COMPLETE, and the same bytes."""
    with deployed(tmp_path / "a", seconds=SECONDS) as service:
        future = running(service, 60)
        service.kill()
        waited(lambda: not future.done())
        service.start()
        done = future.result(60)
        whole = shaded(tmp_path / "whole", scene, service.url)
    assert done.result["status"] == "COMPLETE"
    assert done.tiles == (TILES, 0, 0)
    assert done.sha256("made") == whole.sha256("made")
    assert np.array_equal(done.pixels("made"), PIXELS + 1)


def test_an_outage_beyond_the_patience_ends_the_run_and_it_resumes(
    tmp_path: Path, scene: Path, running: Callable[[Deployment, float], Future[Done]]
) -> None:
    """`unreachable`, exit code 1; the same command computes only the missing tiles."""
    with deployed(tmp_path / "a", seconds=SECONDS) as service:
        future = running(service, 1)
        service.kill()
        with pytest.raises(Unreachable, match="Connection refused") as caught:
            future.result(90)
        assert (caught.value.retryable, caught.value.exit_code) == (True, 1)
        assert is_unpublished(tmp_path / "out")
        service.ready()
        done = shaded(tmp_path / "out", scene, service.url)
    computed, reused, _ = done.tiles
    assert computed + reused == TILES
    assert reused > 0
    assert np.array_equal(done.pixels("made"), PIXELS + 1)


def test_ctrl_c_ends_the_wait_for_a_service_at_once(tmp_path: Path, scene: Path) -> None:
    """Exit code 130, within seconds of a wait of ten minutes; the same command resumes."""
    with deployed(tmp_path / "a", seconds=SECONDS) as service:
        path = saved(tmp_path / "p.json", document("shade"))  # type: ignore[arg-type]  # JSON
        words = ["run", path, "-i", f"scene={scene}", "-o", tmp_path / "out", "--tile", 200,
                 "-s", f"shade={service.url}", "--workers", 2, "--patience", 600]  # fmt: skip
        with started(*words) as run:
            half_way(service)
            service.kill()
            time.sleep(2)
            assert run.poll() is None
            run.send_signal(signal.SIGINT)
            assert run.wait(60) == 130


def begun(services: tuple[str, ...], folder: Path, scene: Path, *processes: str) -> str:
    """The href of a plan."""
    model = Pipeline.parse(document(*processes))
    found = resolve_services(model, base=folder, options=services)
    inputs = read_inputs(model, found, {"scene": str(scene)})
    made = plan(
        model, found, inputs, store=run_store(folder / "out"),
        sizing=Sizing(workers=1, tile=200, max_tasks=2), patience_s=20,
    )  # fmt: skip
    return begin_run(made.plan)


@pytest.mark.parametrize(
    ("function", "processes"),
    [
        ("shade", ("shade",)),
        ("shade_batch", ("shade-batch",)),
        ("shade_mean", ("shade-mean",)),
    ],
)
def test_each_kind_of_answer_is_compared(
    tmp_path: Path, scene: Path, function: str, processes: tuple[str, ...]
) -> None:
    """An image, a batch, a partial: the chunk of a plan made before is refused."""
    with deployed(tmp_path / "a", function) as service:
        href = begun((service.url,), tmp_path, scene, *processes)
        planned = load_context(href).plan.services[processes[0]]
        assert planned.states_code  # else only the start and the end of a chunk are compared
        service.kill()
        service.write(added=7)
        service.ready()
        (chunk, *_) = chunks_of(href, 0)
        with pytest.raises(ProcessChanged, match="stage 's0'"):
            process(chunk, threads=4)


def test_a_request_with_several_calls_is_compared(tmp_path: Path) -> None:
    """By a pinned client; one that is not pinned (control) takes the answer of any code."""
    image = np.zeros((1, 8, 8), np.uint8)
    with deployed(tmp_path / "a", "shade_batch") as service:
        with Client(service.url) as client:
            described = client.described
        assert described.states_code
        service.kill()
        service.write(added=7)
        service.ready()
        many = [{"image": image}] * 4
        with Client(service.url, described=described, pinned=True) as pinned:
            with pytest.raises(ProcessChanged):
                pinned.process_many(many)
            with pytest.raises(ProcessChanged):
                pinned.submit({"image": image})
        with Client(service.url, described=described) as free:
            answers = free.process_many(many)
    assert [int(np.asarray(each["image"])[0, 0, 0]) for each in answers] == [7] * 4


def test_the_finish_of_a_reduce_is_compared(tmp_path: Path, scene: Path) -> None:
    """Its partials are of the planned code; the control finishes with that code."""
    with deployed(tmp_path / "a", "shade_mean") as service:
        href = begun((service.url,), tmp_path, scene, "shade-mean")
        for chunk in chunks_of(href, 0):
            process(chunk)
        service.kill()
        service.write(added=7)
        service.ready()
        with pytest.raises(ProcessChanged, match="stage 's0'"):
            close_phase(href, 0)
        service.kill()
        service.write()
        service.ready()
        assert close_phase(href, 0) == ()


IN_ANOTHER_PROCESS = """
import sys
from pesto_runtime.errors import PestoError
from pesto_runtime.run.chunk import process
from pesto_runtime.run.context import chunks_of
try:
    print(process(chunks_of(sys.argv[1], 0)[0]).tiles)
except PestoError as error:
    print(error.slug, error)
"""


def said_elsewhere(href: str) -> str:
    """What a worker says that has loaded nothing yet."""
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, href]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_a_function_with_another_source_in_a_worker_ends_the_run(
    tmp_path: Path, scene: Path
) -> None:
    """The plan is made with one copy, a worker has another; with the planned one it computes."""
    author = Deployment(tmp_path / "a")
    author.write(added=1)
    href = begun((f"shade={author.target}",), tmp_path, scene, "shade")
    planned = load_context(href).plan.services["shade"].build
    author.write(added=7)
    told = said_elsewhere(href)
    assert told.startswith("process-changed")
    assert all(each in told for each in (author.target, planned, socket.gethostname()))
    assert told.count("sha256:") == 2
    assert author.calls == 0
    (author.folder / "shades.py").unlink()
    author.write(added=1)
    assert int(said_elsewhere(href)) > 0
