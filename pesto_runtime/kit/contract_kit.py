"""All checks of the contract kit, in the order in which they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.kit import answer_checks, description_checks, load_checks, refusal_checks
from pesto_runtime.kit.check_list import CHECKS

if TYPE_CHECKING:
    from pesto_runtime.kit.check_list import Check

_MODULES = (description_checks, answer_checks, load_checks, refusal_checks)


def all_checks() -> dict[str, Check]:
    """Return every check by name, in order."""
    return {
        name: each
        for module in _MODULES
        for name, each in CHECKS.items()
        if each.run.__module__ == module.__name__
    }
