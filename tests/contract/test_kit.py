"""The contract kit: a right service passes each check, and each planted fault is noticed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from pesto_runtime.kit.claims import NotApplicable
from pesto_runtime.kit.contract_kit import all_checks
from pesto_runtime.kit.service_under_test import ServiceUnderTest
from tests.support.commands import served
from tests.support.faulty_service import faulty

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration, pytest.mark.timeout(300)]
pytest_plugins = ["pytester"]

EVERYTHING = "tests/contract/kit_subjects.py:everything"
TOTAL = "tests/contract/kit_subjects.py:total"
LONG_S, SHORT_S = 120, 2

# A plugin of conductor-python, which takes seconds to import, is not needed.
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:conductor-agents-testing")

FAULTS = {
    "no_input": "the_description_is_valid",
    "dangling_reference": "the_schemas_are_valid",
    "changing_description": "the_description_is_stable",
    "no_version": "the_other_documents_respond",
    "dead_link": "the_links_lead_to_the_service",
    "unstated_code": "each_response_states_the_code",
    "extra_output": "a_call_returns_the_declared_outputs",
    "missing_outputs": "a_call_returns_the_declared_outputs",
    "text_for_number": "outputs_fit_their_schemas",
    "wrong_dtype": "images_are_as_promised",
    "wrong_bands": "images_are_as_promised",
    "cut_to_bytes": "dtypes_do_not_change_on_the_way",
    "counting": "the_same_call_returns_the_same_outputs",
    "ignored_default": "an_absent_input_has_its_default",
    "no_crs": "crs_and_transform_survive",
    "no_transform": "crs_and_transform_survive",
    "no_nodata": "nodata_survives",
    "ignored_nodata": "an_absent_mask_is_made_from_nodata",
    "no_margin": "tiled_equals_whole",
    "wrong_example": "an_example_returns_its_outputs",
    "mixed": "parallel_calls_do_not_mix",
    "no_retry_after": "a_busy_service_states_when_to_retry",
    "held_health": "health_responds_during_a_call",
    "abandoned": "a_caller_that_leaves_frees_its_place",
    "undead_job": "a_job_can_be_dismissed",
    "no_fields": "a_missing_input_is_named",
    "server_error": "a_value_of_another_type_is_named",
    "traceback": "an_unreadable_image_is_named",
    "plain_json": "broken_requests_are_refused",
    "bad_gateway": "unknown_places_are_refused",
    "echo": "a_large_wrong_request_is_refused_briefly",
}
"""Planted fault -> the check that must notice it."""


class Places(Protocol):
    """Returns the address of a service that gives a check an occasion, and of its proxy."""

    def __call__(self, check: str) -> tuple[str, str]:
        """Return both."""


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    """Three services, each with a proxy, started when they are needed."""
    with ExitStack() as stack:
        known: dict[tuple[str, ...], tuple[str, str]] = {}

        def find(check: str) -> tuple[str, str]:
            words: tuple[str, ...] = (
                (TOTAL,) if check == "an_example_returns_its_outputs" else (EVERYTHING,)
            )
            if check == "a_busy_service_states_when_to_retry":
                words = (EVERYTHING, "--queue", "1")
            if words not in known:
                url = stack.enter_context(served(*words))
                known[words] = (url, stack.enter_context(faulty(url)))
            return known[words]

        yield find


def run(name: str, url: str, *, pin: str | None = None, slow_s: float = SHORT_S) -> None:
    """Run a check against a service."""
    service = ServiceUnderTest.at(url, slow={"seconds": slow_s}, pin=pin)
    try:
        all_checks()[name].run(service)
    finally:
        service.close()


@pytest.mark.parametrize("name", sorted(set(FAULTS.values())))
def test_a_right_service_passes(places: Places, name: str) -> None:
    """Each check with a planted fault applies to the service without one, and holds."""
    # A worker that is stopped for its caller starts anew: that may take seconds on a slow machine.
    leaves = name == "a_caller_that_leaves_frees_its_place"
    run(name, places(name)[0], slow_s=LONG_S if leaves else SHORT_S)


@pytest.mark.parametrize(("fault", "name"), FAULTS.items())
def test_a_planted_fault_is_noticed(places: Places, fault: str, name: str) -> None:
    """The control of each check: it fails, and does not skip, if its promise is broken."""
    with pytest.raises(AssertionError):
        run(name, f"{places(name)[1]}/{fault}")


def test_each_check_has_a_planted_fault() -> None:
    """No check is without a control; that of the pin is in a test of its own."""
    assert set(FAULTS.values()) | {"the_description_has_not_drifted"} == set(all_checks())


def test_a_description_is_compared_with_its_pin(places: Places, tmp_path: Path) -> None:
    """The digest, and a saved file; another digest and another file are noticed."""
    url, name = places("")[0], "the_description_has_not_drifted"
    service = ServiceUnderTest.at(url)
    digest, text = service.description.digest, service.get("/describe").text
    service.close()
    saved, other = tmp_path / "saved.json", tmp_path / "other.json"
    saved.write_text(text)
    other.write_text(text.replace('"margin": 1', '"margin": 2'))
    assert other.read_text() != text
    for pin in (digest, str(saved)):
        run(name, url, pin=pin)
    with pytest.raises(AssertionError, match="pinned sha256:0000"):
        run(name, url, pin="sha256:0000")
    with pytest.raises(AssertionError, match="margin"):
        run(name, url, pin=str(other))
    with pytest.raises(NotApplicable, match="--pesto-pin"):
        run(name, url)


def test_pytest_runs_the_kit_of_a_url(places: Places, pytester: pytest.Pytester) -> None:
    """`pytest --pesto-url URL` alone: a test for each check, and reasons of those that skip."""
    result = pytester.runpytest_subprocess(
        f"--pesto-url={places('')[0]}", "-k", "not tiled", *PLUGINS
    )
    outcomes = result.parseoutcomes()
    assert result.ret == 0
    assert outcomes.pop("deselected") == 1
    assert outcomes["passed"] + outcomes["skipped"] == len(all_checks()) - 1
    result.stdout.fnmatch_lines(["*a_job_can_be_dismissed: not applicable: * --pesto-slow*"])


def test_pytest_reports_the_claim_that_fails(places: Places, pytester: pytest.Pytester) -> None:
    """A failure has the claim and the fact; the exit code is that of failed tests."""
    result = pytester.runpytest_subprocess(
        f"--pesto-url={places('')[1]}/dead_link", "-k", "links", *PLUGINS
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["does not hold: Each link*", "seen: link 'health'*"])


def test_a_users_tests_have_the_service_as_fixtures(
    places: Places, pytester: pytest.Pytester
) -> None:
    """Paths of tests run these alone; without a service they are skipped with the reason."""
    path = pytester.makepyfile(
        """
        def test_mine(pesto_client, pesto_description, pesto_service):
            assert pesto_description.name == "total"
            assert pesto_client.process({"a": 1, "b": 2}) == {"result": 3.0}
            assert pesto_service.get("/health").text == "OK"
        """
    )
    url = places("an_example_returns_its_outputs")[0]
    options = (path, *PLUGINS)
    assert pytester.runpytest_subprocess(*options, f"--pesto-url={url}").parseoutcomes() == {
        "passed": 1
    }
    without = pytester.runpytest_subprocess(*options, "-rs")
    assert without.parseoutcomes() == {"skipped": 1}
    without.stdout.fnmatch_lines(["*no service to test: --pesto-url*"])
