"""What PESTO 1.7.2 answers to a hundred requests, captured, against what we answer to them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.contract.serving import served
from tests.support.pesto_answers import answers, images
from tests.support.pesto_requests import cases

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    Answers: TypeAlias = Mapping[str, list[dict[str, JsonValue]]]

pytestmark = [pytest.mark.contract, pytest.mark.integration]

DATA = Path(__file__).parents[1] / "data"
PROJECT = "tests/data/pesto_menagerie"
_CHANGES = {
    "base64-u16.tif": ('"crc": ', '"crc": 1'),
    "tree": ('"c": ', '"d": '),
    "job-values": ('"DONE"', '"FAILED"'),
}
MISTAKES = ("the caller's mistake", "not there")


@pytest.fixture(scope="module")
def theirs() -> Answers:
    """What PESTO 1.7.2 answered; `test_the_captured_answers_are_those_of_pesto` made sure."""
    found: Answers = json.loads((DATA / "pesto_answers.json").read_text())
    return found


@pytest.fixture(scope="module")
def listed() -> dict[str, dict[str, JsonValue]]:
    """Where we differ, and why."""
    found: dict[str, dict[str, JsonValue]] = json.loads(
        (DATA / "pesto_agreement.json").read_text()
    )["cases"]
    return found


@pytest.fixture(scope="module")
def ours() -> Iterator[Answers]:
    """What we answer, by `pesto serve`."""
    with ExitStack() as stack:
        found = stack.enter_context(images())
        # PESTO fetches from every web server; here each has to be named.
        one = ("--workers", "1", "--allow", found.address)
        plain = stack.enter_context(served(PROJECT, *one))
        stateful = stack.enter_context(served(PROJECT, *one, "-p", "stateful"))
        yield {
            each.id: answers(each, (stateful if each.is_stateful else plain).url, found)  # type: ignore[misc]  # each step is an object
            for each in cases()
        }


def differing(ours: Answers, theirs: Answers) -> set[str]:
    """Cases that are not answered alike."""
    return {name for name in theirs if ours.get(name) != theirs[name]}


def test_we_differ_from_pesto_where_the_list_says_so_and_nowhere_else(
    ours: Answers, theirs: Answers, listed: Mapping[str, object]
) -> None:
    """Both ways: a difference that is not listed, and one that is listed and is none."""
    assert len(theirs) > 100
    assert set(ours) == set(theirs)
    assert differing(ours, theirs) == set(listed)


def test_a_changed_answer_would_be_found(ours: Answers, theirs: Answers) -> None:
    """Control: other pixels, another key, another status, in cases that agree."""
    changed = {
        name: json.loads(json.dumps(each).replace(*_CHANGES.get(name, ("", ""))))
        for name, each in theirs.items()
    }
    found = differing(ours, changed) - differing(ours, theirs)
    assert found == set(_CHANGES)


def test_differing_answers_have_the_status_that_the_list_says(
    ours: Answers, listed: Mapping[str, Mapping[str, JsonValue]]
) -> None:
    """And a reason each; mistakes of the caller are 4xx, all of them."""
    for name, said in listed.items():
        statuses = [step["status"] for step in ours[name]]
        assert statuses == said["ours"], name
        assert said["reason"]
        if str(said["reason"]).startswith(MISTAKES):
            last = statuses[-1]
            assert isinstance(last, int)
            assert 400 <= last < 500, name


def test_faults_of_the_algorithm_are_500_and_not_retryable(ours: Answers) -> None:
    """An exception, and a number that JSON cannot carry."""
    assert [ours[name][0]["status"] for name in ("shows-fault", "shows-nan", "job-fault")] == [
        500, 500, 500,
    ]  # fmt: skip
    with served(PROJECT, "--workers", "1") as web:
        for shown in ("fault", "nan"):
            assert web("POST", "/process", json={"show": shown}).json()["retryable"] is False


def test_a_second_call_waits_where_pesto_refuses_it() -> None:
    """PESTO answers 429 while one runs; here both are answered, and health meanwhile."""
    with served(PROJECT, "--workers", "1") as web:
        first = web.submit({"show": "x", "seconds": 0.5})
        second = web("POST", "/process", json={"show": "x", "amount": 1})
        assert web("GET", "/health").text == "OK"
    assert (first.status_code, second.json()) == (201, {"amount": 1})
