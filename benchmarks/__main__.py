"""Command line of the benchmarks: hold them, and write `benchmarks/RESULTS.md`."""

from __future__ import annotations

import argparse
import fcntl
import sys
from pathlib import Path

from benchmarks.arena import Arena, contestants
from benchmarks.peers import eoscale_python
from benchmarks.tables import all_identical, markdown

_HERE = Path(__file__).parent
_CACHE = _HERE / ".cache"
EOSCALE = _CACHE / "eoscale"
"""The environment that EOScale has for itself; used wherever the scenes are."""
_QUICK_SIZE, _FULL_SIZE = 1024, 8192


def main() -> int:
    """Hold the benchmarks; 1 where an answer was not identical."""
    options = _options()
    options.cache.mkdir(parents=True, exist_ok=True)
    with (options.cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two benchmarks at once would measure each other
        peer = eoscale_python(EOSCALE, install=not options.quick)
        size = options.scene_size or (_QUICK_SIZE if options.quick else _FULL_SIZE)
        results = Arena(options.cache, size, options.wait, options.tries).hold(
            contestants(peer),
            letters=options.jobs,
            rounds=1 if options.quick else options.rounds,
            warm=not options.quick,
        )
    text = markdown(results)
    if options.output is not None:
        options.output.write_text(text)
    print(text)
    return 0 if all_identical(results) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round on a small scene, a smoke test: installs nothing, writes no file")  # fmt: skip  # noqa: E501
    parser.add_argument("--scene-size", type=int, help="width and height of the scenes, pixels")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--jobs", default="ABCDE", help="letters of the jobs")
    parser.add_argument("--wait", type=float, default=0.0, metavar="S", help="longest wait for a quiet machine before each run")  # fmt: skip  # noqa: E501
    parser.add_argument("--tries", type=int, default=1, help="most runs of a contestant in a round while others disturb it: the least disturbed counts")  # fmt: skip  # noqa: E501
    parser.add_argument("--cache", type=Path, default=_CACHE, help="folder of scenes")
    parser.add_argument("--output", type=Path, help="file to write; RESULTS.md by default")
    options = parser.parse_args()
    if options.output is None and not options.quick:
        options.output = _HERE / "RESULTS.md"
    return options


if __name__ == "__main__":
    sys.exit(main())
