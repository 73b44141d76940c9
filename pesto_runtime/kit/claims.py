"""State that a claim does not hold, or that a service gives no occasion to test it."""

from __future__ import annotations


class NotApplicable(Exception):
    """The service gives no occasion to test the claim; the message has the reason."""


def require(fact: object, seen: str) -> None:
    """Require a fact of a claim.

    Raises:
        AssertionError: it is not so; with what was seen.
    """
    if not fact:
        raise AssertionError(seen)
