"""Vectors between stages: typed, refused by name, waited for, planned in their grid."""

import pytest

from pesto_runtime.contract import Scale, Service
from pesto_runtime.pipeline import JsonType, RasterType, Sizing, VectorType, phases_of
from tests.unit.pipeline.building import (
    KNOWN,
    NUMBER,
    checked,
    image,
    known,
    pipeline,
    planned,
    process,
    scene,
    services_of,
    the_error,
)

VECTOR: dict[str, object] = {"type": "object", "x-vector": {}}
SCENE = "$inputs.scene"
DETECT = process("detect", {"x": image(margin=300)}, {"ships": VECTOR})
FINER = process("finer", {"x": image()}, {"y": image(scale=2), "ships": VECTOR})
FILTER = process("filter", {"ships": VECTOR, "least": NUMBER}, {"ships": VECTOR}, tileable=None,
                 optional=("least",))  # fmt: skip
TALLY = process("tally", {"x": image()}, {"ships": VECTOR}, tileable="reduce", folds={"n": "sum"})
ALL = known(detect=DETECT, finer=FINER, filter=FILTER, tally=TALLY)
STAGES = {
    "smooth": ("smooth", {"x": SCENE}),
    "found": ("detect", {"x": "$smooth.y"}),
    "some": ("filter", {"ships": "$found.ships"}),
}


def test_a_vector_is_of_the_grid_of_the_images_made_beside_it() -> None:
    """Of a process on no grid, a reduce or one without images, it is a JSON value."""
    made = pipeline(
        {
            "half": ("halve", {"x": SCENE}),
            "found": ("detect", {"x": "$half.y"}),
            "finer": ("finer", {"x": "$half.y"}),
            "tally": ("tally", {"x": "$half.y"}),
            "some": ("filter", {"ships": "$found.ships"}),
        },
        {"ships": "$found.ships"},
    )
    types = checked(made, descriptions=ALL).types
    assert types["$found.ships"] == VectorType(VECTOR, Scale.of("1/2"))  # type: ignore[arg-type]  # JSON
    assert types["$finer.ships"] == VectorType(VECTOR, Scale())  # type: ignore[arg-type]  # JSON
    assert isinstance(types["$finer.y"], RasterType)
    assert types["$tally.ships"] == types["$some.ships"] == JsonType(VECTOR)  # type: ignore[arg-type]  # JSON


@pytest.mark.parametrize(
    ("process_name", "port", "said"),
    [
        ("smooth", "x", "$found.ships is a vector, but the port takes an image"),
        ("verdict", "fraction", "$found.ships does not fit: object given, number taken"),
    ],
)
def test_a_vector_is_bound_to_what_takes_one(process_name: str, port: str, said: str) -> None:
    """Neither to an image nor to a number."""
    stages = {"found": STAGES["found"], "next": (process_name, {port: "$found.ships"})}
    made = pipeline({"smooth": STAGES["smooth"], **stages}, {"ships": "$found.ships"})
    assert the_error(checked(made, descriptions=ALL)) == (f"/stages/2/inputs/{port}", said)


def test_an_image_is_no_vector() -> None:
    """The other way round."""
    made = pipeline({"some": ("filter", {"ships": SCENE})}, {"ships": "$some.ships"})
    pointer, said = the_error(checked(made, descriptions=ALL))
    assert pointer == "/stages/0/inputs/ships"
    assert "is an image, but the port takes a JSON value" in said


def test_a_stage_that_takes_a_vector_waits_for_all_of_it() -> None:
    """The detection writes it, output or not; the next phase names it as a source."""
    found = checked(pipeline(STAGES, {"ships": "$some.ships"}), descriptions=ALL)
    first, second = phases_of(found.stages, ["$some.ships"])
    assert [stage.id for stage in first.stages] == ["smooth", "found"]
    assert first.writes == ("$found.ships",)
    assert (second.kind, second.sources, second.writes) == ("call", ("$found.ships",), ())


def test_a_phase_that_makes_vectors_alone_is_planned_with_their_margin() -> None:
    """A margin of 300 makes 1024 too small a tile: reading half again as much is the most."""
    services = services_of(
        detect=Service(targets=("m:d",), description=DETECT.to_json(), build="b"),
        smooth=Service(targets=("m:s",), description=KNOWN["smooth"].to_json(), build="b"),
    )
    made = pipeline({"found": ("detect", {"x": SCENE})}, {"ships": "$found.ships"})
    plan = planned(
        made, {"scene": scene(9000, 9000)}, services=services, sizing=Sizing(max_tasks=2)
    )
    (phase,) = plan.phases
    assert phase.writes == ("$found.ships",)
    assert phase.tile[0] > 1536
    assert "$found.ships" in plan.keys
