"""Command line of the service's benchmarks: `python -m benchmarks.service`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.service import bodies
from benchmarks.service.contest import OURS, PESTO, hold
from benchmarks.service.health import Health, health_while
from benchmarks.service.memory import Memory, memory_of
from benchmarks.service.servers import Server, ours, running
from benchmarks.service.tables import markdown

_BIG = (4, 2372, 2372)  # 45 MB of pixels, 60 MB as base64
_SENDERS = 4


def main() -> int:
    """Hold the benchmarks; 1 where an answer was wrong, 2 where wrk is not there."""
    options = _options()
    if shutil.which("wrk") is None:
        print("wrk is not installed (Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        standings, right = hold(
            folder, pesto=_pesto(options), rounds=options.rounds, seconds=options.seconds,
            workers=options.workers,
        )  # fmt: skip
        health, memory = _under_load(folder, options)
    text = markdown(
        standings, right, health, memory,
        rounds=options.rounds, seconds=options.seconds, workers=options.workers,
    )  # fmt: skip
    if not options.quick:
        options.output.write_text(text)
    print(text)
    return 0 if all(right.values()) else 1


def _under_load(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Health], Memory]:
    image = bodies.pixels(_BIG)
    text, raw = bodies.in_base64(image), bodies.raw(image)
    health = {}
    with running(OURS, ours(folder, options.workers)) as server:
        memory = memory_of(server, {"60 MB of base64": text, "45 MB of .npy": raw})
    with running(OURS, ours(folder, options.workers)) as server:
        idle = health_while(server, None, senders=0, seconds=2)
        health[f"{OURS}, idle"] = idle
        health[OURS] = health_while(server, text, senders=_SENDERS, seconds=options.seconds * 3)
    pesto = _pesto(options)
    if pesto is not None:
        health[PESTO] = health_while(pesto, text, senders=_SENDERS, seconds=options.seconds * 3)
    return health, memory


def _pesto(options: argparse.Namespace) -> Server | None:
    if options.pesto_url is None:
        return None
    return Server(PESTO, options.pesto_url.rstrip("/") + "/api/v1", options.pesto_pid)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--pesto-url", help="a running PESTO 1.7.2 that serves benchmarks/service/project, as http://127.0.0.1:4000")  # fmt: skip  # noqa: E501
    parser.add_argument("--pesto-pid", type=int, help="its process, to tell its CPU from others'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "RESULTS.md")
    parser.add_argument("--quick", action="store_true", help="one round of 1 s, a smoke test: writes no file")  # fmt: skip  # noqa: E501
    options = parser.parse_args()
    if options.quick:
        options.rounds = options.seconds = 1
    return options


if __name__ == "__main__":
    sys.exit(main())
