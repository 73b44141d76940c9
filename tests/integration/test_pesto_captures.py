"""The captured answers of PESTO 1.7.2 are what it answers, asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.pesto_answers import answers, images
from tests.support.pesto_requests import cases

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

pytestmark = [pytest.mark.integration, pytest.mark.real_pesto, pytest.mark.timeout(300)]

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("profile", ["", "stateful"])
def test_the_captured_answers_are_those_of_pesto(
    served_by_pesto: Callable[..., AbstractContextManager[str]], profile: str
) -> None:
    """Each request once more, to the real thing; `python -m tests.support.pesto_answers` writes."""
    captured = json.loads((DATA / "pesto_answers.json").read_text())
    asked = [each for each in cases() if each.is_stateful == bool(profile)]
    profiles = (profile,) if profile else ()
    with images() as found, served_by_pesto(DATA / "pesto_menagerie", *profiles) as url:
        told = {each.id: answers(each, url, found) for each in asked}
    assert len(told) > 10
    assert {name for name, each in told.items() if each != captured[name]} == set()
