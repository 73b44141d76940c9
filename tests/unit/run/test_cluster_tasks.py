"""What passes between a run and a worker of a cluster: short texts; and a missing package."""

from __future__ import annotations

import gc
import json
import sys
from typing import TYPE_CHECKING

import pytest
from pyspark import SparkContext

from pesto_runtime.clusters.chunk_jobs import performed
from pesto_runtime.contract import Chunk, Pipeline
from pesto_runtime.engines import load_engine
from pesto_runtime.errors import InvalidInput, InvalidPipeline, Unreachable
from pesto_runtime.run.context import begin_run, load_context
from pesto_runtime.run.local import sizing_of
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import plan
from pesto_runtime.run.services import resolve_services
from tests.support.clusters import run_on
from tests.support.rasters import noise, write_scene
from tests.support.runs import chain

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def chunk(tmp_path: Path) -> str:
    """The first chunk of a stored plan, with 64 tiles or more."""
    pipeline = Pipeline.parse(chain("grow"))
    services = resolve_services(pipeline, base=tmp_path, options=[], catalog=None)
    scene = write_scene(tmp_path / "s.tif", noise(1024, 1024))
    planned = plan(
        pipeline, services, read_inputs(pipeline, services, {"scene": str(scene)}),
        store=(tmp_path / "store").as_uri(), folder=tmp_path / "out",
        sizing=sizing_of(workers=1, tile=64, max_tasks=1),
    ).plan  # fmt: skip
    return Chunk(plan=begin_run(planned), phase=0, start=0, stop=1).model_dump_json()


def test_a_chunk_and_its_outcome_are_short_texts(tmp_path: Path, chunk: str) -> None:
    """However many tiles it has: an href and counts, and neither pixels nor records of tiles."""
    outcome = performed(chunk)
    assert json.loads(outcome)["result"]["tiles"] == 256
    assert len(chunk) + len(outcome) < 2 * len(str(tmp_path)) + 400


def test_a_cancelled_chunk_ends_before_its_first_tile(chunk: str) -> None:
    """The error passes as a problem document."""
    assert (
        json.loads(performed(chunk, lambda: True))["error"]["type"] == "urn:pesto:error:interrupted"
    )


def test_a_worker_without_the_store_names_itself_and_the_way_out(
    tmp_path: Path, chunk: str
) -> None:
    """As on a machine without the shared folder."""
    load_context.cache_clear()
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    problem = json.loads(performed(chunk))["error"]
    assert "does not exist on " in problem["detail"]
    assert "--store" in problem["detail"]


@pytest.mark.parametrize(("engine", "package"), [("dask", "distributed"), ("spark", "pyspark")])
def test_a_missing_package_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, engine: str, package: str
) -> None:
    """The engine is registered without its package."""
    monkeypatch.delitem(sys.modules, f"pesto_runtime.clusters.{engine}_engine", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidInput, match=rf"{package}.*pesto-workflows\[{engine}\]"):
        load_engine(engine)


@pytest.mark.parametrize(
    ("engine", "variable", "dead", "wrong"),
    [
        ("dask", "PESTO_DASK_ADDRESS", "tcp://127.0.0.1:1", "ftp://host"),
        ("spark", "PESTO_SPARK_MASTER", "spark://127.0.0.1:1", "sc://host"),
    ],
)  # fmt: skip
def test_inputs_are_checked_before_the_cluster_is_contacted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    variable: str,
    dead: str,
    wrong: str,
) -> None:
    """A missing scene is refused although no cluster is there; a right one (control) is not."""
    scene = write_scene(tmp_path / "s.tif", noise(64, 64))
    monkeypatch.setenv(variable, dead)
    out = tmp_path / "out"
    with pytest.raises(InvalidPipeline, match="scene"):
        run_on(engine, chain("grow"), out, {}, patience_s=1)
    with pytest.raises(Unreachable, match=variable):
        run_on(engine, chain("grow"), out, {"scene": scene}, patience_s=1)
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(InvalidInput, match=variable):
        run_on(engine, chain("grow"), out, {"scene": scene}, patience_s=1)
    assert not (out / "result.json").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Spark's own pipe
def test_spark_without_its_java_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, or one without the modules that Spark needs: its launcher ends."""
    scene = write_scene(tmp_path / "s.tif", noise(64, 64))
    monkeypatch.setattr(SparkContext, "_gateway", None)  # a Java that another test has started
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InvalidInput, match="Spark needs Java 17 or 21"):
        run_on("spark", chain("grow"), tmp_path / "out", {"scene": scene})
    gc.collect()
