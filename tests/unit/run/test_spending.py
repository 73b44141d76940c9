"""Deadlines and budgets: a run stops before they are exceeded, and the same command goes on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from pesto_runtime.contract.prices import Prices, SpendingLimits
from pesto_runtime.engines import RunRequest, SilentListener, load_engine
from pesto_runtime.errors import InvalidInput, LimitReached
from pesto_runtime.finished_run import Run
from pesto_runtime.places import place_of
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.run.spending import (
    SpendingMeter,
    read_prices,
    seconds_of,
)
from pesto_runtime.run.targets import pipeline_of
from tests.support.commands import pesto

if TYPE_CHECKING:
    from pathlib import Path

_SLOW = """
import time
from typing import Annotated
import numpy as np
from pesto_runtime import Named, Raster, process

@process(version="1")
def slow(
    scene: Annotated[np.ndarray, Raster(margin=0)],
) -> Annotated[np.ndarray, Named("out"), Raster()]:
    time.sleep(1.0)
    return scene + 1
"""


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(_SLOW)
    pixels = np.arange(2048 * 2048, dtype=np.uint32).reshape(1, 2048, 2048)
    (tmp_path / "scene.tif").write_bytes(encode_image(Image(pixels), "image/tiff"))
    return tmp_path / "scene.tif"


def request(
    scene: Path,
    limits: SpendingLimits | None,
    executor: Literal["threads", "processes"] = "threads",
    out: str = "out",
) -> RunRequest:
    source = pipeline_of(f"{scene.parent / 'slow.py'}:slow")
    return RunRequest(
        source.pipeline, source.base, {"scene": str(scene)}, scene.parent / out,
        workers=2, tile=512, report="none", limits=limits, executor=executor,
    )  # fmt: skip


def run(*args: object, **options: object) -> None:
    load_engine("local").run(request(*args, **options), watcher=SilentListener())  # type: ignore[arg-type]  # as of request


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_run_stops_before_its_deadline_and_goes_on(
    scene: Path, executor: Literal["threads", "processes"]
) -> None:
    """Again and again; nothing is published meanwhile, and the product is that of one run."""
    deadline = 7.0
    stops: list[tuple[float, LimitReached]] = []
    while not (scene.parent / "out" / "result.json").exists():
        assert len(stops) < 9
        assert not [*scene.parent.glob("out/*.tif")]
        began = time.monotonic()
        try:
            run(scene, SpendingLimits(deadline), executor)
        except LimitReached as error:
            stops.append((time.monotonic() - began, error))
    assert stops
    for took, stop in stops:
        assert took < deadline
        assert stop.exit_code == 3
        assert "tiles are left" in stop.detail
    run(scene, None, out="control")
    products = [(scene.parent / name / "out.tif").read_bytes() for name in ("out", "control")]
    assert products[0] == products[1]


def test_a_run_within_its_limits_is_complete(scene: Path) -> None:
    """The control: the same run with time and money enough."""
    run(scene, SpendingLimits(300, 1.0, Prices(core_hour=1)))
    assert Run.of(scene.parent / "out").status == "COMPLETE"


def test_a_run_stops_before_its_budget(scene: Path) -> None:
    """2 cores at 3600 each in an hour are 2 each second: 6 last for 3 s."""
    with pytest.raises(LimitReached, match="--budget 6 EUR is exceeded") as caught:
        run(scene, SpendingLimits(None, 6.0, Prices(core_hour=3600, currency="EUR")))
    assert "of 16 tiles are done" in caught.value.detail


def meter(limits: SpendingLimits, *, tiles: int, done: int, after_s: float) -> SpendingMeter:
    found = SpendingMeter(limits, workers=1, remote_bytes=8 * 10**9, end_s=0)
    found.begin(tiles)
    found._began -= after_s
    found.add([after_s / done] * done)
    return found


def test_what_is_transferred_costs_by_tiles() -> None:
    """8 GB at 1 each: after half of the tiles, 4 and the next tile's share are spent."""
    prices = Prices(gb_transferred=1)
    meter(SpendingLimits(None, 5.1, prices), tiles=8, done=4, after_s=4).require_more()
    with pytest.raises(LimitReached, match=r"4 of 8 tiles .* 4 tiles are left, about 4 s") as end:
        meter(SpendingLimits(None, 4.9, prices), tiles=8, done=4, after_s=4).require_more()
    stopped = dict(end.value.stopped or {})
    assert stopped.pop("seconds") == pytest.approx(4, abs=0.5)
    assert stopped == {
        "limit": "budget", "tiles_done": 4, "tiles_left": 4, "seconds_left": 4.0, "cost": 4.0,
        "currency": "", "resume": "the same command",
    }  # fmt: skip


def test_a_stopped_command_prints_what_is_left(scene: Path) -> None:
    """As JSON on stdout, PARTIAL; the message is on stderr. No tile has ended: no seconds left."""
    words = ["run", f"{scene.parent / 'slow.py'}:slow", "-i", f"scene={scene}", "--tile", 512,
             "-o", scene.parent / "out", "--json"]  # fmt: skip
    done = pesto(*words, "--deadline", "0.1s")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    stopped = document.pop("stopped")
    assert document == {"status": "PARTIAL", "pipeline": "slow", "outputs": {}}
    assert (stopped["limit"], stopped["tiles_done"], stopped["tiles_left"]) == ("deadline", 0, 16)
    assert stopped["seconds_left"] is None
    assert stopped["resume"] == "the same command"
    assert f"pesto: {stopped['detail']}\n" in done.stderr
    assert not (scene.parent / "out" / "result.json").exists()


def test_a_tile_is_begun_only_if_it_ends_in_time() -> None:
    """Tiles take 1 s, and some may take a bit longer: at 4 s, 6 are enough and 5 are not."""
    meter(SpendingLimits(6), tiles=8, done=4, after_s=4).require_more()
    with pytest.raises(LimitReached, match="--deadline 5 s"):
        meter(SpendingLimits(5), tiles=8, done=4, after_s=4).require_more()
    meter(SpendingLimits(5), tiles=4, done=4, after_s=4).require_more()  # only the end is left


@pytest.mark.parametrize("text", ["", "soon", "1d", "0", "-5", "10 m"])
def test_a_wrong_duration_is_refused(text: str) -> None:
    """With the forms that are right."""
    with pytest.raises(InvalidInput, match="1h30m"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("content", "fault"),
    [("{", "cannot be read"), ('{"core_hour": -1}', "core_hour"), ('{"cores": 1}', "cores")],
)
def test_wrong_prices_are_refused(tmp_path: Path, content: str, fault: str) -> None:
    """With the field; the control is a right file."""
    path = tmp_path / "prices.json"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=fault):
        read_prices(place_of(str(path)))
    path.write_text(json.dumps({"core_hour": 36, "gb_hour": 3.6, "currency": "EUR"}))
    cost = read_prices(place_of(str(path))).cost(
        100, cores=2, memory_bytes=5 * 10**9, transferred=10**9
    )
    assert cost == pytest.approx(2 + 0.5)
