"""Call one service by hand: the trigger form has a field for each of its inputs.

Parsing this file contacts no service: the form is built from the saved description, with which the
live service is compared when it is called.
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
