"""Any pipeline as a DAG of the shared Airflow: its file, its catalog, a DAG file around them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_airflow.catalog import write_catalog
from pesto_runtime.contract import Pipeline
from pesto_runtime.run.services import find, resolve_services, save_description
from tests.support.commands import saved
from tests.support.runs import CLOUD_COVER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_airflow.trial.rest import TaskInstanceState
    from tests.support.airflow_standalone import Airflow

MEAN = """
from typing import Annotated

import numpy as np

from pesto_runtime import Named, Raster, process

Grey = Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8")]


def finish(partial: dict[str, int]) -> Annotated[float, Named("mean")]:
    return partial["sum"] / partial["count"]


@process(version="1", reduce={"sum": "sum", "count": "sum"}, finish=finish)
def mean(image: Grey) -> dict[str, int]:
    return {"sum": int(image.sum(dtype=np.int64)), "count": image.size}
"""
"""Code of a bundle: the type of a grey image, and a reduce of its mean; others follow it."""

_DAG = """
import json
from pathlib import Path

from airflow.sdk import Param, dag

from pesto_airflow import pesto_pipeline

OWN = Path(__file__).parent / "{dag_id}"


@dag("{dag_id}", schedule=None,
     params={{"scene": Param(type="string"), "folder": Param(type="string")}})
def made():
    pesto_pipeline(
        OWN / "pipeline.json", services=OWN / "catalog", group_id="run",
        scene="{{{{ params.scene }}}}", folder="{{{{ params.folder }}}}",
        **json.loads((OWN / "settings.json").read_text()),
    )


made()
"""


@dataclass(frozen=True)
class PipelineDag:
    """A DAG of a pipeline with the one input `scene`, whose outputs go to a folder.

    Attributes:
        airflow: Where it is.
        dag_id: Its id.
        scene: What it runs on.
        folder: Where its outputs go.
    """

    airflow: Airflow
    dag_id: str
    scene: Path
    folder: Path

    def begin(self) -> str:
        """Trigger a run; answers its id."""
        return self.airflow.api.trigger(
            self.dag_id, {"scene": str(self.scene), "folder": str(self.folder)}
        )

    def end(self, run_id: str, *, timeout_s: float = 120) -> str:
        """Wait for a run's end; answers its state."""
        return self.airflow.api.await_end(self.dag_id, run_id, timeout_s=timeout_s)

    def succeed(self, run_id: str) -> None:
        """Wait for a run's end, which must be a success."""
        assert self.end(run_id) == "success", self.airflow.logs(self.dag_id, run_id)

    def tasks(self, run_id: str, verb: str = "") -> list[TaskInstanceState]:
        """The tasks of a run whose name begins with a verb."""
        tasks = self.airflow.api.tasks(self.dag_id, run_id)
        return [task for task in tasks if task.task_id.startswith(f"run.{verb}")]

    @property
    def blocks(self) -> int:
        """Blocks that the run store holds whole."""
        return sum(1 for path in (self.folder / ".pesto" / "blocks").rglob("*") if path.is_file())

    @property
    def result(self) -> dict[str, JsonValue]:
        """What `result.json` holds."""
        found: dict[str, JsonValue] = json.loads((self.folder / "result.json").read_text())
        return found


def add_pipeline(
    airflow: Airflow,
    dag_id: str,
    document: Mapping[str, JsonValue],
    *,
    scene: Path,
    folder: Path,
    catalog: Path | None = None,
    **settings: JsonValue,
) -> PipelineDag:
    """Make a DAG of a pipeline; what runs its processes is saved now, as `pesto discover` would."""
    own = airflow.dags / dag_id
    own.mkdir()
    found = resolve_services(Pipeline.parse(document), base=CLOUD_COVER.parent, catalog=catalog)
    write_catalog(found.found.values(), own / "catalog")
    saved(own / "pipeline.json", document)
    saved(own / "settings.json", settings)
    airflow.add(dag_id, _DAG.format(dag_id=dag_id))
    return PipelineDag(airflow, dag_id, scene, folder)


def add_bundle(
    own: Path, document: Mapping[str, JsonValue], code: str, *, services: Mapping[str, str]
) -> dict[str, JsonValue]:
    """Write what a DAG bundle has beside its DAG file: pipeline, catalog, code.

    The catalog has no URLs: connections have them.

    Args:
        own: A new folder of it.
        document: The pipeline.
        code: Source of the processes that run in the workers.
        services: Process -> URL of its service; the others are in the code.

    Returns:
        The pipeline, with a target for each process, for a run by another engine.
    """
    own.mkdir()
    file = own / "code.py"
    file.write_text(code)
    stages = document["stages"]
    assert isinstance(stages, list)
    names = {str(each["process"]) for each in stages if isinstance(each, dict)}
    targets = {name: services.get(name, f"{file}:{name}") for name in sorted(names)}
    saved(own / "pipeline.json", {**document, "services": {}})
    for name, target in targets.items():
        found = find((target,))
        path = save_description(own / "catalog", target, found.said, found.service.transports)
        description = json.loads(path.read_text())
        del description["url"]
        saved(
            path, description if name in services else {**description, "url": f"../code.py:{name}"}
        )
    return {**document, "services": {**targets}}
