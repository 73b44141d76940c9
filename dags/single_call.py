"""One call of one service, by hand: the trigger form asks for its inputs, as its schema has them.

Nothing is asked while this file is read: the form comes from the saved description, and the service
must still be that when it is called.
"""

from pathlib import Path

from airflow.sdk import Param, dag, task

from pesto_airflow import inputs_of, params_of, read_saved

CATALOG = Path(__file__).parent / "catalog"
MASK = read_saved(CATALOG / "cloud-mask@1.0.0.json")
MORE = {
    "service": Param(MASK.url, "URL of the service", type="string", format="uri"),
    "out": Param("file:///tmp/cloud.tif", "href to write the mask to", type="string"),
}


@dag(schedule=None, params={**params_of(MASK.description), **MORE}, tags=["pesto"])
def single_call() -> None:
    """Mask the clouds of a scene."""

    @task.pesto(
        service="{{ params.service }}",
        saved=MASK.path,
        out={"cloud": "{{ params.out }}"},
        retries=2,
    )
    def cloud_mask(params: dict[str, object] | None = None) -> dict[str, object]:
        return inputs_of(MASK.description, params or {})

    cloud_mask()


single_call()
