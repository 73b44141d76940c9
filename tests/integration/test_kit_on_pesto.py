"""The contract kit against PESTO 1.7.2: its known failures, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import PestoError
from pesto_runtime.kit.claims import NotApplicable
from pesto_runtime.kit.contract_kit import all_checks
from pesto_runtime.kit.service_under_test import ServiceUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

pytestmark = [pytest.mark.integration, pytest.mark.real_pesto, pytest.mark.timeout(600)]

DATA = Path(__file__).parents[1] / "data"
KNOWN = {
    "crs_and_transform_survive": "CRS EPSG:32631 in, None out",
    "a_busy_service_states_when_to_retry": "no Retry-After: HTTP 429",
    "a_caller_that_leaves_frees_its_place": "as long as one lasts",
    "a_missing_input_is_named": "HTTP 500",
    "a_value_of_another_type_is_named": "HTTP 500",
    "an_unreadable_image_is_named": "HTTP 500",
    "broken_requests_are_refused": "HTTP 500",
    "unknown_places_are_refused": "not application/problem+json",
    "a_large_wrong_request_is_refused_briefly": "HTTP 500",
}
"""Check -> part of what was seen; each is in docs/contract/differences.md."""


def test_pesto_fails_the_known_checks_alone(
    served_by_pesto: Callable[..., AbstractContextManager[str]],
) -> None:
    """Each failure is known; 5 checks of what PESTO promises hold, so a failure means something."""
    with served_by_pesto(DATA / "pesto_menagerie") as url:
        found = outcomes(ServiceUnderTest.at(url, slow={"seconds": 4}), [*all_checks()])
        defaults = outcomes(ServiceUnderTest.at(url, given={"show": "scale"}), [DEFAULTS])
    failed = {name: seen for name, seen in found.items() if seen.startswith("fails")}
    assert failed.keys() == KNOWN.keys()
    assert [name for name, text in KNOWN.items() if text not in failed[name]] == []
    assert {name for name, seen in found.items() if seen == "holds"} >= {
        "the_description_is_valid", "the_description_is_stable", "outputs_fit_their_schemas",
        "the_same_call_returns_the_same_outputs", "parallel_calls_do_not_mix",
        "health_responds_during_a_call",
    }  # fmt: skip
    assert "are not those of its default 5" in defaults[DEFAULTS]


def test_a_job_of_pesto_cannot_be_dismissed(
    served_by_pesto: Callable[..., AbstractContextManager[str]],
) -> None:
    """The published API has DELETE jobs/ID; an asynchronous service answers 404."""
    with served_by_pesto(DATA / "pesto_menagerie", "stateful") as url:
        found = outcomes(ServiceUnderTest.at(url, slow={"seconds": 2}), [DISMISSAL])
    assert "DELETE /jobs/" in found[DISMISSAL]


DEFAULTS, DISMISSAL = "an_absent_input_has_its_default", "a_job_can_be_dismissed"


def outcomes(service: ServiceUnderTest, names: list[str]) -> dict[str, str]:
    """Run checks: what each has seen."""
    try:
        return {name: outcome(service, name) for name in names}
    finally:
        service.close()


def outcome(service: ServiceUnderTest, name: str) -> str:
    """Run a check."""
    try:
        all_checks()[name].run(service)
    except NotApplicable as reason:
        return f"not applicable: {reason}"
    except (AssertionError, PestoError) as seen:
        return f"fails: {seen}"
    return "holds"
