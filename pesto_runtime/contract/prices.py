"""Prices of a machine, and what a run may take of time and money."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import Field

from pesto_runtime.contract.base import ClosedValue


class Prices(ClosedValue):
    """What a machine costs, in one currency."""

    core_hour: float = Field(default=0, ge=0, allow_inf_nan=False, description="of one core")
    gb_hour: float = Field(
        default=0, ge=0, allow_inf_nan=False, description="of 10^9 bytes of memory"
    )
    gb_transferred: float = Field(
        default=0, ge=0, allow_inf_nan=False, description="of 10^9 bytes read from remote scenes"
    )
    currency: str = ""

    def cost(self, seconds: float, *, cores: int, memory_bytes: float, transferred: float) -> float:
        """Return what a run costs.

        Args:
            seconds: Wall time.
            cores: Cores that it has.
            memory_bytes: Memory that it has.
            transferred: Bytes from other machines.
        """
        hourly = cores * self.core_hour + memory_bytes / 1e9 * self.gb_hour
        return seconds / 3600 * hourly + transferred / 1e9 * self.gb_transferred


@dataclass(frozen=True)
class SpendingLimits:
    """What a run may take; each start of the command has all of it.

    Attributes:
        deadline_s: Seconds from the start of the command; None for any number.
        budget: Amount in the currency of the prices; None for any.
        prices: Of this machine.
    """

    deadline_s: float | None = None
    budget: float | None = None
    prices: Prices = field(default_factory=Prices)
