"""A run that was planned by one version of the package, and meets another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Chunk, Pipeline, package_version
from pesto_runtime.errors import InvalidInput, OtherVersion
from pesto_runtime.pipeline import Sizing
from pesto_runtime.run.chunk import process
from pesto_runtime.run.context import begin_run, load_context
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import plan
from pesto_runtime.run.publishing import publish_run
from pesto_runtime.run.result import RunRecord
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.workspace import run_store
from pesto_runtime.store import open_store
from tests.support.rasters import noise, pixels_of, tree, write_scene
from tests.support.runs import CLOUD_COVER, chain

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue


def planned_by(folder: Path, **facts: JsonValue) -> tuple[str, np.ndarray]:
    """Plan as a version with these facts does; return the plan's href, and the scene's pixels."""
    pixels = noise(300, 200)
    model = Pipeline.parse(chain("above", level=50))
    services = resolve_services(model, base=CLOUD_COVER.parent)
    inputs = {"scene": str(write_scene(folder / "s.tif", pixels))}
    store = run_store(folder / "out")
    made = plan(
        model, services, read_inputs(model, services, inputs), store=store, sizing=Sizing(tile=200),
        folder=folder / "out",
    ).plan  # fmt: skip
    href = begin_run(made)
    name = href.removeprefix(f"{store}/")
    document = json.loads(open_store(store).get(name))
    assert document["package"] == package_version()
    open_store(store).put(name, json.dumps({**document, **facts}).encode())
    load_context.cache_clear()  # as in the process of another task
    return href, pixels


def test_another_version_with_the_same_plans_and_products_goes_on(tmp_path: Path) -> None:
    """Its number alone is no reason to stop."""
    href, pixels = planned_by(tmp_path, package="99.9")
    process(Chunk(plan=href, phase=0, start=0, stop=1))
    publish_run(href, tmp_path / "out", RunRecord(engine={"name": "test"}))
    assert np.array_equal(pixels_of(tmp_path / "out" / "image.tif") > 0, pixels > 50)


@pytest.mark.parametrize(
    "facts", [{"product_format": 3}, {"format": 1}, {"format": 3, "news": []}], ids=str
)
def test_a_plan_of_other_plans_or_products_is_refused(
    tmp_path: Path, facts: dict[str, JsonValue]
) -> None:
    """By a chunk and by publishing; both versions are named, and nothing is stored."""
    href, _ = planned_by(tmp_path, package="99.9", **facts)
    before = tree(tmp_path / "out")
    with pytest.raises(OtherVersion, match=rf"99\.9 .* this process has {package_version()}"):
        process(Chunk(plan=href, phase=0, start=0, stop=1))
    with pytest.raises(OtherVersion, match="plan again"):
        publish_run(href, tmp_path / "out", RunRecord(engine={"name": "test"}))
    assert tree(tmp_path / "out") - before <= {".pesto/lock"}


@pytest.mark.parametrize("data", [b"no plan", b"[2]", b'{"format": 2, "product_format": 4}'])
def test_an_object_that_is_no_plan_is_refused_as_one(tmp_path: Path, data: bytes) -> None:
    """It is no plan of any version."""
    href, _ = planned_by(tmp_path)
    store = run_store(tmp_path / "out")
    open_store(store).put(href.removeprefix(f"{store}/"), data)
    load_context.cache_clear()
    with pytest.raises(InvalidInput, match="plan file:"):
        load_context(href)
