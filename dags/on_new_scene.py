"""Cloud cover of every scene that arrives: begun by an Asset, whose event says where the scene is.

Whoever has one says `outlet_events[Asset("landsat-scenes")].extra = {"scene": …, "folder": …}`
in a task, or the same by `POST /api/v2/assets/events`.
"""

from pathlib import Path

from airflow.sdk import Asset, dag

from pesto_airflow import pesto_pipeline

HERE = Path(__file__).parent
EVENT = "(triggering_asset_events.values() | first | first)"


@dag(schedule=[Asset("landsat-scenes")], max_active_runs=1, tags=["pesto"])
def on_new_scene() -> None:
    """Find out which scene, and run the pipeline over it."""
    pesto_pipeline(
        HERE / "../workflows/cloud_cover.json",
        services=HERE / "catalog/in_worker",
        scene=f"{{{{ {EVENT}.extra.scene }}}}",
        folder=f"{{{{ {EVENT}.extra.folder }}}}",
    )


on_new_scene()
