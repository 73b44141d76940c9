"""Collect the checks of the contract kit: each has a name, the claim that it proves, a function.

A check raises `AssertionError` with what was seen if the claim does not hold, and `NotApplicable`
if this service gives no occasion to test it: that is never counted as a success.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pesto_runtime.kit.service_under_test import ServiceUnderTest


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Its name, as pytest reports it.
        claim: The sentence that it proves.
        run: Tests a service.
    """

    name: str
    claim: str
    run: Callable[[ServiceUnderTest], None]


CHECKS: dict[str, Check] = {}
"""Checks by name; `contract_kit` imports the modules that define them."""


def check(function: Callable[[ServiceUnderTest], None]) -> Callable[[ServiceUnderTest], None]:
    """Register a function as a check; the first line of its docstring is the claim."""
    claim = (function.__doc__ or "").strip().partition("\n")[0]
    CHECKS[function.__name__] = Check(function.__name__, claim, function)
    return function
