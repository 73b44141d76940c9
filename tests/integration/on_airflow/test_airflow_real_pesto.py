"""PESTO 1.7.2 itself under Airflow's operators: what it can, and what is not asked of it."""

from __future__ import annotations

import pytest

from pesto_airflow.errors import PestoTaskFailed
from pesto_airflow.operators.discover import PestoDiscoverOperator
from pesto_airflow.operators.process import PestoProcessOperator
from pesto_airflow.sensors import PestoHealthSensor

pytestmark = [pytest.mark.integration, pytest.mark.real_pesto, pytest.mark.timeout(300)]


def test_a_real_pesto_service_is_found_healthy_and_described(real_pesto: str) -> None:
    """It has no Accept-Post; its digest pins it as well as one of ours."""
    assert PestoHealthSensor(task_id="t", service=real_pesto).poke({})
    told = PestoDiscoverOperator(task_id="t", service=real_pesto).execute({})
    assert told["name"] == "local-maximum"
    pinned = PestoDiscoverOperator(task_id="t", service=real_pesto, pin=str(told["digest"]))
    assert pinned.execute({})["changes"] == []


@pytest.mark.parametrize("out", [{}, {"image": "file:///tmp/a.tif"}])
def test_an_image_of_a_real_pesto_service_is_refused_with_the_way_out(
    real_pesto: str, out: dict[str, str]
) -> None:
    """It answers pixels, which are no result of a task, and writes to no href."""
    call = PestoProcessOperator(
        task_id="t", mode="sync", service=real_pesto, inputs={"image": "file:///a.tif"}, out=out
    )
    with pytest.raises(PestoTaskFailed, match="plain PESTO"):
        call.execute({})
