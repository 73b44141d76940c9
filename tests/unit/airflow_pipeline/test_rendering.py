"""`pesto render --engine airflow`: the file that is committed, formatted, whatever the names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pesto_airflow.catalog import write_catalog
from pesto_airflow.render import renderer
from pesto_runtime.engines import RenderRequest
from pesto_runtime.errors import InvalidInput
from pesto_runtime.run.planning import load_pipeline
from pesto_runtime.run.services import resolve_services
from tests.support.commands import saved
from tests.support.runs import CLOUD_COVER, ROOT, pipeline, stage

if TYPE_CHECKING:
    from pathlib import Path

CATALOG = ROOT / "dags" / "catalog" / "in_worker"
COMMITTED = ROOT / "dags" / "cloud_cover.py"


def request(path: Path, catalog: Path | None, **settings: object) -> RenderRequest:
    made = RenderRequest(pipeline=load_pipeline(path), path=path, catalog=catalog)
    return replace(made, **settings)  # type: ignore[arg-type]  # as given


def is_formatted(path: Path) -> bool:
    command = [sys.executable, "-m", "ruff", "format", "--check", "--isolated", "--line-length"]
    return subprocess.run([*command, "100", str(path)], check=False).returncode == 0


def test_the_committed_dag_is_what_is_rendered() -> None:
    """`dags/cloud_cover.py`, byte for byte, under 40 lines."""
    text = renderer.render(request(CLOUD_COVER, CATALOG, out=COMMITTED))
    assert text == COMMITTED.read_text()
    assert len(text.splitlines()) < 40


def test_any_pipeline_renders_to_a_formatted_dag(tmp_path: Path) -> None:
    """Long names, odd names, an input called folder, numbers: ruff changes nothing, it compiles."""
    level = "a_level_whose_name_is_so_long_that_the_line_it_stands_on_becomes_far_too_long"
    document = pipeline(
        stage("s0", "above", image="$inputs.scene", level=f"$inputs.{level}"),
        outputs={"image": "$s0.image"},
        **{"scene": "image", level: "number", "folder": "string", "with-hyphen": "object"},
    )
    document["name"] = "for"
    path = saved(tmp_path / "p.json", document)
    services = resolve_services(load_pipeline(path), base=tmp_path)
    write_catalog(services.found.values(), tmp_path / "catalog")
    out = tmp_path / "dag.py"

    out.write_text(
        renderer.render(request(path, tmp_path / "catalog", out=out, tile=200, max_tasks=8))
    )

    compile(out.read_text(), out, "exec")
    assert is_formatted(out)
    for text in (
        "tile=200",
        "max_tasks=8",
        "params.output_folder",
        "params['with-hyphen'] | tojson",
    ):
        assert text in out.read_text()


def test_a_description_without_a_url_gets_a_connection(tmp_path: Path) -> None:
    """Of the name of its process; the others get none."""
    shutil.copytree(CATALOG, tmp_path / "catalog")
    path = next((tmp_path / "catalog").glob("cloud-mask@*.json"))
    document = json.loads(path.read_text())
    del document["url"]
    saved(path, document)
    out = tmp_path / "dag.py"
    out.write_text(renderer.render(request(CLOUD_COVER, tmp_path / "catalog", out=out)))
    assert is_formatted(out)
    assert 'conn_ids={"cloud-mask": "cloud_mask"},' in out.read_text()


@pytest.mark.parametrize(
    "settings", [{"catalog": None}, {"services": ("cloud-mask=http://127.0.0.1:1",)}]
)
def test_a_dag_file_needs_saved_descriptions(settings: dict[str, object]) -> None:
    """A service that every parse would contact is rejected, with the solution."""
    with pytest.raises(InvalidInput, match="pesto discover"):
        renderer.render(request(CLOUD_COVER, settings.pop("catalog", CATALOG), **settings))  # type: ignore[arg-type]  # as given
