"""Stop a run before its deadline passes or its budget is spent; what a machine costs.

Memory that is paid for is the most that the processes of the run have had so far.
"""

from __future__ import annotations

import json
import re
import time
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pesto_runtime.contract import bad_fields
from pesto_runtime.contract.prices import Prices
from pesto_runtime.errors import InvalidInput, LimitReached, shortened
from pesto_runtime.machine import resident_bytes
from pesto_runtime.raster.identity import is_local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan
    from pesto_runtime.contract.prices import SpendingLimits
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.planning import PhaseEstimate

_END_S = 0.5  # to store what the last tiles have made
_TILE_SPREAD = 1.2  # the longest of the next tiles, over the longest so far


def read_prices(path: AnyPath) -> Prices:
    """Read a file of prices, JSON as `{"core_hour": 0.04, "gb_hour": 0.005}`.

    Raises:
        InvalidInput: it cannot be read, is not JSON, or has wrong fields; lists all.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"--prices {path} cannot be read: {error}") from error
    try:
        return Prices.model_validate(document)
    except ValidationError as error:
        raise InvalidInput.of(f"--prices {path}", bad_fields(error, value=document)) from error


def remote_bytes(plan: Plan, first: PhaseEstimate) -> int:
    """Return the bytes that a run reads from scenes on other machines, without margins.

    Args:
        plan: The plan.
        first: The estimate of its first phase, which reads the scenes.
    """
    is_remote = any(not is_local(scene.href) for scene in plan.scenes.values())
    return first.bytes_read if is_remote else 0


_UNITS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")


def seconds_of(text: str) -> float:
    """Return the seconds of a duration.

    Raises:
        InvalidInput: it is none, or not longer than 0.

    >>> seconds_of("90"), seconds_of("1h30m"), seconds_of("2.5s")
    (90.0, 5400.0, 2.5)
    """
    match = _DURATION.fullmatch(text)
    parts = match.groupdict() if match else {}
    seconds = sum(_UNITS[unit] * float(count) for unit, count in parts.items() if count)
    if not seconds:
        raise InvalidInput(
            f"--deadline {shortened(text)} is no duration: write 90s, 10m, 2h or 1h30m"
        )
    return seconds


class SpendingMeter:
    """What a run has taken so far, and whether the next tiles would take too much."""

    def __init__(
        self,
        limits: SpendingLimits,
        *,
        workers: int,
        remote_bytes: int = 0,
        end_s: float = 0.0,
        published: str = "nothing",
    ) -> None:
        """Begin now.

        Args:
            limits: Of the run.
            workers: Tiles at once; a core is paid for each.
            remote_bytes: Bytes that all tiles read from other machines.
            end_s: Seconds to publish the run after its last tile.
            published: What a stopped run publishes, for the message.
        """
        self._limits, self._workers, self._published = limits, workers, published
        self._remote_bytes, self._end_s = remote_bytes, end_s
        self._began = time.monotonic()
        self._memory = 0
        self._done = self._total = 0
        self._seconds: list[float] = []  # of the tiles that were computed

    def expect(self, *, remote_bytes: int, end_s: float) -> None:
        """Add bytes that are read from other machines, and seconds to publish another scene."""
        self._remote_bytes += remote_bytes
        self._end_s += end_s

    def begin(self, total: int) -> None:
        """Begin the tiles, of which there are so many."""
        self._total = total

    def add(self, tiles: Sequence[float]) -> None:
        """Count tiles that have ended, by their seconds; 0 for one that was stored before."""
        self._done += len(tiles)
        self._seconds += [each for each in tiles if each]

    def require_more(self) -> None:
        """Do nothing while one more tile for each worker, and the end, fit into the limits.

        Raises:
            LimitReached: they do not; has what is done, what is left, and what it took, also as
                JSON: `limit` (`deadline` or `budget`), `tiles_done`, `tiles_left`, `seconds`,
                `seconds_left` (None if it is not known), with prices `cost` and `currency`, and
                `resume`.
        """
        limits = self._limits
        if limits.deadline_s is None and limits.budget is None:
            return
        elapsed = time.monotonic() - self._began
        tile_s = 0.0 if self._done == self._total else max(self._seconds, default=0.0)
        ends = elapsed + _TILE_SPREAD * tile_s + self._end_s + _END_S
        name = reason = ""
        if limits.deadline_s is not None and ends > limits.deadline_s:
            name, reason = "deadline", f"--deadline {limits.deadline_s:g} s"
        if limits.budget is not None:
            self._memory = max(self._memory, resident_bytes())
            if self._cost(ends, self._done + self._workers) > limits.budget:
                name, reason = "budget", f"--budget {limits.budget:g} {limits.prices.currency}"
        if name:
            raise self._reached(name, reason.rstrip(), elapsed)

    def _cost(self, seconds: float, tiles: int) -> float:
        share = min(1.0, tiles / max(1, self._total))
        return self._limits.prices.cost(
            seconds, cores=self._workers, memory_bytes=self._memory,
            transferred=share * self._remote_bytes,
        )  # fmt: skip

    def _reached(self, name: str, reason: str, elapsed: float) -> LimitReached:
        left, seconds_left = self._total - self._done, None
        if self._seconds:
            seconds_left = left * fmean(self._seconds) / self._workers + self._end_s
        about = "an unknown time" if seconds_left is None else f"about {seconds_left:.0f} s"
        took = f"{elapsed:.1f} s"
        cost: dict[str, JsonValue] = {}
        if self._limits.budget is not None:
            currency = self._limits.prices.currency
            cost = {"cost": round(self._cost(elapsed, self._done), 6), "currency": currency}
            took += f" and {cost['cost']:.4g} {currency}".rstrip()
        error = LimitReached(
            f"stopped before {reason} is exceeded: {self._done} of {self._total} tiles are done in "
            f"{took}, and {left} tiles are left, {about}; {self._published} is published yet; the "
            "same command resumes it"
        )
        error.stopped = {
            "limit": name, "tiles_done": self._done, "tiles_left": left,
            "seconds": round(elapsed, 3),
            "seconds_left": None if seconds_left is None else round(seconds_left, 3),
            **cost, "resume": "the same command",
        }  # fmt: skip
        return error
