"""Command line of Airflow's benchmarks: `python -m benchmarks.airflow`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.airflow.contest import WORKERS, add_contestants, hold
from benchmarks.airflow.tables import markdown
from benchmarks.airflow.work import work_of
from pesto_airflow.trial.standalone import running_standalone

_TILES = (16, 64, 256)
_QUICK = (4,)


def main() -> int:
    """Hold them; 1 where a product's bytes are not everybody's."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dags = folder / "dags"
        dags.mkdir()
        works = [work_of(tiles, folder) for tiles in (_QUICK if options.quick else options.tiles)]
        begun = time.perf_counter()
        with running_standalone(folder / "home", dags, parallelism=WORKERS) as airflow:
            start_s = time.perf_counter() - begun
            for work in works:
                add_contestants(airflow, dags, work)
            hold(airflow, works[0], folder / "unmeasured")  # the first run of an Airflow is slow
            rounds = [
                hold(airflow, work, folder / f"{number}-{work.tiles}")
                for number in range(1 if options.quick else options.rounds)
                for work in works
            ]
    text = markdown(rounds, start_s=start_s)
    if not options.quick:
        options.output.write_text(text)
    print(text)
    return 0 if all(each.identical for each in rounds) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.airflow", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of 4 tiles, a smoke test: writes no file")  # fmt: skip  # noqa: E501
    parser.add_argument("--tiles", type=int, nargs="+", default=_TILES, help="square numbers")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
