"""Goals of the benchmarks, and the part of a result page that says which of them are missed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Goal:
    """A goal and the figure that was measured for it.

    Attributes:
        what: The measured quantity.
        wanted: The goal, in words.
        figure: The measured figure.
        is_reached: Whether the figure reaches the goal.
        cause: Why it is missed, where that is known.
    """

    what: str
    wanted: str
    figure: str
    is_reached: bool
    cause: str = ""


def missed(goals: Sequence[Goal]) -> str:
    """Return the first section of a result page: every goal that is missed, or that none is."""
    lost = [goal for goal in goals if not goal.is_reached]
    if not goals:
        return "## Goals\n\nNo goal was measured."
    if not lost:
        return f"## Goals\n\nAll {len(goals)} goals are reached."
    rows = [
        f"| {goal.what} | {goal.wanted} | {goal.figure} | {goal.cause or 'not known'} |"
        for goal in lost
    ]
    return "\n".join(
        [
            f"## Goals: {len(lost)} of {len(goals)} missed",
            "",
            "| measurement | goal | figure | cause |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def at_most(what: str, figure: float, limit: float, *, digits: int = 2, cause: str = "") -> Goal:
    """Return a goal that is reached up to a limit."""
    return Goal(what, f"<= {limit:g}", f"{figure:.{digits}f}", figure <= limit, cause)


def at_least(what: str, figure: float, limit: float, *, digits: int = 2, cause: str = "") -> Goal:
    """Return a goal that is reached from a limit on."""
    return Goal(what, f">= {limit:g}", f"{figure:.{digits}f}", figure >= limit, cause)
