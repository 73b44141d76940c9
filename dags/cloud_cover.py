"""Run the pipeline `cloud-cover`: each chunk of the scene is a mapped task."""

from pathlib import Path

from airflow.sdk import Param, dag

from pesto_airflow import pesto_pipeline

HERE = Path(__file__).parent


@dag(
    schedule=None,
    max_active_runs=1,
    tags=["pesto"],
    params={
        "scene": Param(type="string", minLength=1, title="scene: path or href of an image"),
        "folder": Param(type="string", minLength=1, title="folder for the outputs"),
    },
)
def cloud_cover() -> None:
    """Plan, map the chunks of each phase, and publish the outputs into the folder."""
    pesto_pipeline(
        HERE / "../workflows/cloud_cover.json",
        services=HERE / "catalog/in_worker",
        inputs={"scene": "{{ params.scene }}"},
        folder="{{ params.folder }}",
    )


cloud_cover()
