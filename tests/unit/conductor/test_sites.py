"""The task domain of a workflow, by where its scenes are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pesto_conductor.sites import read_sites, site_of
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from pydantic import JsonValue

SITES = read_sites(["eu=s3://eu/", "eu=s3://old-eu/", "gpu=s3://eu/hot/", "us=/mnt/us/"])


@pytest.mark.parametrize(
    ("inputs", "site"),
    [
        ({"scene": "s3://eu/a.tif"}, "eu"),
        ({"scene": "s3://old-eu/a.tif#bands=red:1"}, "eu"),
        ({"scene": "s3://eu/hot/a.tif"}, "gpu"),
        ({"scene": "/mnt/us/a.tif"}, "us"),
        ({"scene": "file:///mnt/us/a.tif"}, "us"),
        ({"scene": {"href": "s3://eu/a.tif", "bands": ["red"]}, "level": 3}, "eu"),
        ({"scenes": ["s3://eu/a.tif", {"id": "b", "scene": "s3://old-eu/b.tif"}]}, "eu"),
        ({"scene": "/mnt/us2/a.tif"}, None),
        ({"scene": "s3://elsewhere/a.tif"}, None),
        ({"scene": "s3://elsewhere/a.tif", "folder": "s3://eu/out"}, None),
    ],
)
def test_the_longest_prefix_of_a_scene_selects_the_domain(
    inputs: dict[str, JsonValue], site: str | None
) -> None:
    """The output folder selects none; without sites (control) nothing is selected."""
    assert site_of(inputs, SITES) == site
    assert site_of(inputs, {}) is None


def test_scenes_at_several_sites_are_refused_with_one_of_each() -> None:
    """Tasks of one workflow have one domain; two prefixes of one domain are one site."""
    with pytest.raises(InvalidInput, match="one workflow for each site") as caught:
        site_of({"scenes": ["s3://eu/a.tif", "s3://eu/b.tif", "/mnt/us/c.tif"]}, SITES)
    assert "s3://eu/a.tif at eu, file:///mnt/us/c.tif at us" in str(caught.value)


@pytest.mark.parametrize(
    "texts", [["s3://eu/"], ["=s3://eu/"], ["eu="], ["a=s3://x/", "b=s3://x/"]]
)
def test_a_site_that_is_no_pair_is_refused(texts: list[str]) -> None:
    """Also two domains for one prefix."""
    with pytest.raises(InvalidInput, match="--site"):
        read_sites(texts)
