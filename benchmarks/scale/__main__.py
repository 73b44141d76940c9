"""Command line of the model of scale: `python -m benchmarks.scale measure | check | curves`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scale.engines import OnAirflow, OnConductor, OnDask
from benchmarks.scale.facts import load_measured
from benchmarks.scale.measure import measure_costs, measure_engine, save

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scale.runs import Server

_SLOTS = 8


def main() -> int:
    """Measure, check or draw; 1 where a prediction is not within 20 %."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.what == "measure":
            return _measure(folder, options)
        if options.what == "check":
            from benchmarks.scale.check import check

            with _server(options.engine, folder) as server:
                return check(options.engine, server, folder / "runs", options.rounds, options.cases)
    from benchmarks.scale.curves import draw

    draw()
    return 0


def _measure(folder: Path, options: argparse.Namespace) -> int:
    runs = folder / "runs"
    if options.engine == "costs":
        save(costs=measure_costs(runs, options.rounds))
        return 0
    with _server(options.engine, folder) as server:
        costs, _ = load_measured()
        save(engine=measure_engine(options.engine, server, runs, costs, options.rounds))
    return 0


@contextmanager
def _server(engine: str, folder: Path) -> Iterator[Server]:
    if engine == "dask":
        with closing(OnDask()) as dask:
            yield dask
    elif engine == "conductor":
        from pesto_conductor.trial_server import borrowed

        with (
            borrowed(folder / "server") as server,
            closing(OnConductor(server.url, server.pid)) as conductor,
        ):
            yield conductor
    else:
        from pesto_airflow.trial.standalone import running_standalone

        dags = folder / "dags"
        dags.mkdir()
        with running_standalone(folder / "home", dags, parallelism=_SLOTS) as airflow:
            yield OnAirflow(airflow, dags)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("what", choices=["measure", "check", "curves"])
    parser.add_argument("engine", nargs="?", default="costs",
                        choices=["costs", "airflow", "conductor", "dask"])  # fmt: skip
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--cases", type=int, nargs="+", default=(), help="numbers of cases to check"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
