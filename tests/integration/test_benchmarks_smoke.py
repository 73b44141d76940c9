"""The benchmarks run: a table comes out, and every contestant's answer is the right one.

Nothing here looks at how long anything takes.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kernels
from benchmarks.__main__ import EOSCALE
from benchmarks.answers import digest_of, ready_answer
from benchmarks.arena import Contestant, Results, Standing, contestants
from benchmarks.contestants.windows import tiles
from benchmarks.jobs import JOBS
from benchmarks.measure import Measured
from benchmarks.peers import eoscale_python
from benchmarks.scenes import scene
from benchmarks.tables import all_identical, markdown

ROOT = Path(__file__).parents[2]
SIZE = 1024


@pytest.mark.integration
@pytest.mark.timeout(300)  # ten processes, one after another
def test_a_quick_run_gives_a_table_in_which_everybody_is_right(tmp_path: Path) -> None:
    """One round on a small scene: two tables, every row identical; EOScale where it is there."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--jobs", "CD", "--cache", tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    rows = [line for line in said.stdout.splitlines() if line.endswith("| yes |")]
    names = [team.name for team in contestants(eoscale_python(EOSCALE, install=False))]
    assert [row.split("|")[1].strip() for row in rows] == names * 2
    assert "| NO |" not in said.stdout
    assert str(tmp_path) not in said.stdout


def test_a_wrong_answer_is_not_reported() -> None:
    """A contestant that is fast and wrong has no figures, and fails the run."""
    run = Measured(0.125, 0.25, 0.125, 0.0, 1)
    right, wrong = Standing([run]), Standing([run], identical=False)
    rows = {"limit": right, "hand-written threads": right, "pesto, threads": wrong}
    results = Results(SIZE, 1, {"A": rows}, control=1)
    (row,) = [line for line in markdown(results).splitlines() if line.startswith("| pesto")]
    assert row.endswith("| NO |")
    assert "0.12" not in row
    assert not all_identical(results)


def test_a_comparison_that_cannot_fail_is_no_control() -> None:
    """Where a margin one too small gives no wrong pixel, the run fails."""
    good = {"A": {"limit": Standing([])}}
    assert all_identical(Results(SIZE, 1, good, control=1))
    assert not all_identical(Results(SIZE, 1, good, control=0))


def test_scenes_are_the_same_every_time_and_compress_two_to_one(tmp_path: Path) -> None:
    """Two machines compare ratios on the same work."""
    first, second = (scene(tmp_path / name, "one", size=SIZE) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert 1.5 < SIZE * SIZE * 2 / first.stat().st_size < 2.5


def test_tiles_with_the_margin_cannot_be_told_from_the_whole(tmp_path: Path) -> None:
    """Job A in tiles of 300 equals it on the whole array; with a margin one less it does not."""
    job, place = JOBS["A"], scene(tmp_path, "one", size=SIZE)
    whole = np.load(ready_answer(tmp_path, job, place))

    def tiled(margin: int) -> np.ndarray:
        import rasterio

        made: np.ndarray = np.empty_like(whole)
        with rasterio.open(place) as file:
            for tile in tiles(SIZE, SIZE, side=300, margin=margin):
                rows, cols = tile.write.toslices()
                image = file.read(job.bands, window=tile.read)
                made[:, rows, cols] = tile.trim(kernels.gaussian(image))
        return made

    assert digest_of(tiled(job.margin)) == digest_of(whole)
    assert digest_of(tiled(job.margin - 1)) != digest_of(whole)


def test_every_contestant_has_its_own_name() -> None:
    """Tables are keyed by it, EOScale taking part or not."""
    teams: tuple[Contestant, ...] = contestants(Path(sys.executable))
    assert len({team.name for team in teams}) == len(teams) == 8
