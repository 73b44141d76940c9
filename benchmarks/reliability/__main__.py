"""`python -m benchmarks.reliability kills|damage [N]`: disturb runs, and count what is wrong."""

from __future__ import annotations

import sys

from benchmarks.goals import Goal, missed
from benchmarks.reliability import damage, kills

_COUNT = 200


def main() -> None:
    """Run a campaign, print its figures, and exit with 1 if anything was wrong."""
    chosen = {"kills": kills, "damage": damage}[sys.argv[1]]
    count = int(sys.argv[2]) if sys.argv[2:] else _COUNT
    tally = chosen.campaign(count, seed=1, tell=lambda line: print(line, flush=True))
    found = Goal(f"{sys.argv[1]}: runs with anything wrong", "0", str(len(tally.complaints)),
                 is_reached=not tally.complaints)  # fmt: skip
    print("\n".join([missed([found]), "", chosen.summary(tally), *tally.complaints]))
    sys.exit(bool(tally.complaints))


if __name__ == "__main__":
    main()
