"""Compute the cloud cover of every new scene, started by the event of an Asset.

The task that produces the scene sets `outlet_events[Asset("landsat-scenes")].extra` to
`{"scene": …, "folder": …}`; any other program sends the same to `POST /api/v2/assets/events`.
"""

from pathlib import Path

from airflow.sdk import Asset, dag

from pesto_airflow import pesto_pipeline

HERE = Path(__file__).parent
EVENT = "(triggering_asset_events.values() | first | first)"


@dag(schedule=[Asset("landsat-scenes")], max_active_runs=1, tags=["pesto"])
def on_new_scene() -> None:
    """Run the pipeline over the scene of the event."""
    pesto_pipeline(
        HERE / "../workflows/cloud_cover.json",
        services=HERE / "catalog/in_worker",
        scene=f"{{{{ {EVENT}.extra.scene }}}}",
        folder=f"{{{{ {EVENT}.extra.folder }}}}",
    )


on_new_scene()
