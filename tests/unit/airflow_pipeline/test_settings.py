"""The settings of a task group: a name that is none is refused, and a page has them all."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, cast

import pytest

from pesto_airflow import pesto_pipeline
from pesto_airflow.taskgroups import DEFAULTS, TEMPLATED, GroupSettings, with_defaults
from pesto_runtime.errors import InvalidInput
from tests.support.runs import CLOUD_COVER, ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = ROOT / "docs" / "airflow" / "pipelines.md"
NAMED = {"group_id", "holes"}
"""Arguments of their own that one need not give."""


@pytest.mark.parametrize(
    ("name", "meant"),
    [("tiles", "did you mean 'tile'"), ("hole", "did you mean 'holes'"), ("q", "there are as_cog")],
)
def test_an_unknown_setting_is_refused(name: str, meant: str) -> None:
    """When the file is parsed, before any other check; with a suggestion."""
    with pytest.raises(InvalidInput, match=f"no setting '{name}'; {meant}"):
        pesto_pipeline(CLOUD_COVER, folder="/out", services="/nowhere", **{name: 1})  # type: ignore[arg-type]  # as given


def test_what_is_given_wins_over_the_defaults() -> None:
    """All other settings are as they are by default."""
    assert with_defaults({"tile": 128}, arguments=()) == {**DEFAULTS, "tile": 128}


@pytest.mark.parametrize("name", sorted({*DEFAULTS} - {*TEMPLATED}))
def test_a_template_is_refused_where_it_would_not_be_rendered(name: str) -> None:
    """When the file is parsed, by name; the other settings take one (control)."""
    with pytest.raises(InvalidInput, match=rf"{name} .* cannot be a template \(.\{{\{{ x \}}\}}"):
        with_defaults({name: "{{ x }}"}, arguments=())  # type: ignore[misc]  # as given
    for templated in TEMPLATED:
        with_defaults({templated: "{{ x }}"}, arguments=())  # type: ignore[misc]


def test_every_setting_is_in_the_table_with_its_default() -> None:
    """Names and defaults of the page are those of the code; one without a value is in words."""
    parameters = inspect.signature(pesto_pipeline).parameters
    real = {**DEFAULTS, **{name: parameters[name].default for name in NAMED}}
    assert set(DEFAULTS) == set(GroupSettings.__annotations__)
    assert differences(PAGE.read_text(), real) == []


def test_a_table_that_differs_is_noticed() -> None:
    """The control: a setting too few, one too many, another default."""
    page = "| setting | default | |\n|---|---|---|\n| `tile` | 3 | x |\n| `old` | words | x |\n"
    assert differences(page, {"tile": 4, "new": None}) == ["new", "old", "tile"]


def differences(page: str, real: Mapping[str, object]) -> list[str]:
    """Settings whose row of the table `setting` is not there, not wanted, or of another default."""
    (table,) = re.findall(r"^\| setting .*\n\|-.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    rows = [[cell.strip(" `") for cell in line.split("|")[1:3]] for line in table.splitlines()]
    shown = dict(cast("list[tuple[str, str]]", rows))
    return sorted(
        name
        for name in {*shown, *real}
        if name not in shown
        or name not in real
        or (real[name] is not None and shown[name] != _shown(real[name]))
    )


def _shown(default: object) -> str:
    return json.dumps(default) if isinstance(default, str) else str(default)
