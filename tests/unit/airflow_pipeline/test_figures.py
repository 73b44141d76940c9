"""What Airflow's metrics and OpenLineage receive of a pipeline, by their own clients."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
from openlineage.client.serde import Serde

from pesto_airflow import (
    PestoClosePhaseOperator,
    PestoMapOperator,
    PestoPlanOperator,
    PestoPublishOperator,
)
from pesto_airflow.lineage import dataset_name, lineage_of
from pesto_runtime.contract.band_files import BandFile, stack_href
from tests.support.airflow_tasks import Run
from tests.support.processes import MARKER
from tests.support.rasters import noise, sha256_of, write_scene
from tests.support.runs import CLOUD_COVER, chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import JsonValue


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A StatsD server: lines of text by UDP. Airflow sends to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)
        for name, value in (("ON", "True"), ("HOST", "127.0.0.1"), ("PREFIX", "af"),
                            ("PORT", str(server.getsockname()[1])),
                            ("INFLUXDB_ENABLED", "True")):  # fmt: skip
            monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
        logger = get_stats_factory()()
        stats.initialize(factory=lambda: logger, export_legacy_names=False)
        yield server
        logger.statsd.close()
    stats.initialize(factory=NoStatsLogger, export_legacy_names=False)


def lines_of(server: socket.socket) -> dict[str, str]:
    """Metric with its tags -> value and type."""
    found: dict[str, str] = {}
    while True:
        try:
            name, _, value = server.recv(65536).decode().partition(":")
        except TimeoutError:
            return found
        found[name] = value


def ran(folder: Path, document: dict[str, JsonValue], run: Run) -> PestoPublishOperator:
    """Run a pipeline of one phase; return its last task."""
    pixels = noise(300, 120)
    pixels[0, 10, 10] = MARKER
    scene = write_scene(folder / "s.tif", pixels)
    PestoPlanOperator(
        task_id="plan", pipeline=document, base=CLOUD_COVER.parent, folder=folder / "out",
        inputs={"scene": str(scene)}, tile=100, max_tasks=1,
    ).perform(run.context)  # fmt: skip
    href = str(run.pushed["plan"])
    PestoMapOperator(task_id="m", plan=href, chunk=0, holes="keep").perform(run.context)
    PestoClosePhaseOperator(task_id="c", plan=href).perform(run.context)
    last = PestoPublishOperator(task_id="p", plan=href, folder=folder / "out")
    last.perform(run.context)
    return last


def test_a_chunk_sends_its_counts_to_airflows_metrics(
    tmp_path: Path, statsd: socket.socket
) -> None:
    """Five tiles and a hole of 300 x 120 pixels in tiles of 100; a second try is a retry."""
    document = chain("fragile", broken=str(tmp_path))
    ran(tmp_path, document, Run(dag_id="daily", task_id="run.map", try_number=2))
    found = lines_of(statsd)
    tags = ",dag_id=daily,task_id=run.map"
    assert found.pop(f"af.pesto.tiles.computed{tags}") == "5|c"
    assert found.pop(f"af.pesto.tiles.holes{tags}") == "1|c"
    assert found.pop(f"af.pesto.task_retries{tags}") == "1|c"
    assert found.pop(f"af.pesto.tiles_per_second{tags}").endswith("|g")
    assert [*found] == [f"af.pesto.bytes_read{tags}"], "the only block has the hole"


def test_without_metrics_nothing_is_sent(tmp_path: Path, statsd: socket.socket) -> None:
    """The control: as by default."""
    stats.initialize(factory=NoStatsLogger, export_legacy_names=False)
    ran(tmp_path, chain("grow"), Run())
    assert lines_of(statsd) == {}


def test_openlineage_learns_scenes_and_products_with_their_versions(tmp_path: Path) -> None:
    """As its own client writes them: identities of inputs, sha256 of outputs."""
    last = ran(tmp_path, chain("grow"), Run())
    found = last.get_openlineage_facets_on_complete(None)
    (read,), (written,) = (
        [Serde.to_dict(each) for each in datasets] for datasets in (found.inputs, found.outputs)
    )
    image = tmp_path / "out" / "image.tif"
    assert (written["namespace"], written["name"]) == ("file", str(image))
    assert written["facets"]["version"]["datasetVersion"] == sha256_of(image)
    assert (read["namespace"], read["name"]) == ("file", str(tmp_path / "s.tif"))
    assert read["facets"]["version"]["datasetVersion"]


def test_each_file_of_a_scene_is_a_dataset() -> None:
    """Also with a window; each once."""
    bands = ["s3://b/red.tif", "s3://b/nir.tif", "s3://b/nir.tif"]
    href = stack_href([BandFile(href=each) for each in bands])
    inputs: dict[str, JsonValue] = {"scene": {"href": f"{href}#window=0,0,5,5", "identity": "x y"}}
    found = lineage_of([(inputs, {})]).inputs
    assert [(each.namespace, each.name) for each in found] == [
        ("s3://b", "red.tif"), ("s3://b", "nir.tif"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("href", "name"),
    [
        ("s3://b/p/a.tif", ("s3://b", "p/a.tif")),
        ("gs://b/a.tif#bands=red:1", ("gs://b", "a.tif")),
        ("https://host:8443/a.tif?token=x", ("https://host:8443", "a.tif")),
        ("https://user:secret@host/a.tif", ("https://host", "a.tif")),
        ("file:///d/a%20b.tif", ("file", "/d/a b.tif")),
    ],
)
def test_datasets_are_named_by_the_rules_of_openlineage(href: str, name: tuple[str, str]) -> None:
    """Without anything that may be secret."""
    assert dataset_name(href) == name
