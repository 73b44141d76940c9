"""`python -m benchmarks.reliability kills [N]`: kill runs, and count what is wrong."""

from __future__ import annotations

import sys

from benchmarks.reliability.kills import campaign


def main() -> None:
    """Run a campaign, print its figures, and exit with 1 if anything was wrong."""
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    tally = campaign(count, seed=1, tell=lambda line: print(line, flush=True))
    print("\n".join([str(tally), *tally.complaints]))
    sys.exit(bool(tally.complaints))


if __name__ == "__main__":
    main()
