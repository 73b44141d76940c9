"""Run the pipeline `cloud-cover` step by step, with one operator per step."""

from pathlib import Path

from airflow.sdk import Asset, Param, dag

from pesto_airflow import (
    PestoMapOperator,
    PestoMosaicOperator,
    PestoPlanOperator,
    PestoReduceOperator,
)

HERE = Path(__file__).parent
PARAMS = {name: Param(type="string", minLength=1) for name in ("scene", "folder")}


@dag(schedule=None, max_active_runs=1, tags=["pesto"], params=PARAMS)
def chain() -> None:
    """Plan, map the chunks, then mosaic the mask and fold its cloud cover at the same time."""
    plan = PestoPlanOperator(
        task_id="plan",
        pipeline=HERE / "../workflows/cloud_cover.json",
        services=HERE / "catalog/in_worker",
        inputs={"scene": "{{ params.scene }}"},
        folder="{{ params.folder }}",
    )
    chunks = PestoMapOperator.partial(task_id="chunks", plan=plan.href).expand(chunk=plan.output)
    path, outlets = "{{ params.folder }}/mask.tif", [Asset("cloud-masks")]
    mask = PestoMosaicOperator(
        task_id="mask", plan=plan.href, raster="$clean.cloud", path=path, outlets=outlets
    )
    cover = PestoReduceOperator(task_id="cover", plan=plan.href, stage="cover")
    chunks >> [mask, cover]


chain()
