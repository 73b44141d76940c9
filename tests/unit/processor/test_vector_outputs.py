"""A function that detects: its contract, its answer, and what is refused."""

from typing import Annotated, TypedDict

import numpy as np
import pytest

from pesto_runtime import Raster, Vector, process
from pesto_runtime.contract import Description, VectorContract, drift, is_breaking
from pesto_runtime.errors import ContractBroken, InvalidContract
from pesto_runtime.processor import FunctionProcessor, contract_of

Collection = dict[str, object]
Scene = Annotated[np.ndarray, Raster(bands=["red"], dtype="uint8")]
PIXELS = np.zeros((1, 4, 4), np.uint8)


class Found(TypedDict):
    """Two vectors."""

    ships: Annotated[Collection, Vector(geometry=["Point", "Polygon"]), "what floats"]
    wakes: Annotated[Collection, Vector()]


@process(version="1", margin=0)
def detect(scene: Scene) -> Found:
    """Find nothing."""
    nothing: Collection = {"type": "FeatureCollection", "features": []}
    return {"ships": nothing, "wakes": nothing}


def test_a_vector_is_told_beside_its_schema() -> None:
    """`x-vector` holds what was declared, nothing else."""
    contract = contract_of(detect)
    assert contract is not None
    ships, wakes = contract.description.outputs
    assert (ships.kind, wakes.kind) == ("vector", "vector")
    assert ships.schema["x-vector"] == {"geometry": ["Point", "Polygon"]}
    assert ships.schema["type"] == "object"
    assert ships.schema["description"] == "what floats"
    assert wakes.schema["x-vector"] == {}
    assert ships.vector == VectorContract(geometry=("Point", "Polygon"))


def test_an_answer_is_passed_on_as_it_is() -> None:
    """In pixels of the window; what is no object breaks the contract."""
    contract = contract_of(detect)
    assert contract is not None
    answer = FunctionProcessor(contract, "b").run({"scene": PIXELS})
    assert answer["ships"] == {"type": "FeatureCollection", "features": []}

    @process(version="1", margin=0)
    def wrong(scene: Scene) -> Annotated[Collection, Vector()]:
        return ["no object"]  # type: ignore[return-value]  # the claim

    broken = contract_of(wrong)
    assert broken is not None
    with pytest.raises(ContractBroken, match="result"):
        FunctionProcessor(broken, "b").run({"scene": PIXELS})


def test_what_makes_no_sense_is_refused_when_it_is_decorated() -> None:
    """Each with the way out."""
    with pytest.raises(InvalidContract, match=r"Vector is for dict"):

        @process(version="1", margin=0)
        def image(scene: Scene) -> Annotated[np.ndarray, Vector(name="v")]:
            return scene

    with pytest.raises(InvalidContract, match=r"geometry"):

        @process(version="1", margin=0)
        def circle(scene: Scene) -> Annotated[Collection, Vector(geometry="Circle")]:
            return {}

    with pytest.raises(InvalidContract, match=r"without features it is an empty list"):

        @process(version="1", margin=0)
        def maybe(scene: Scene) -> Annotated[Collection, Vector()] | None:
            return None


@pytest.mark.parametrize("wrong", ["Circle", 5, ["Point", "Circle"]])
def test_a_description_with_another_geometry_is_refused(wrong: object) -> None:
    """With the pointer to it; unknown members are somebody else's, and stay."""
    contract = contract_of(detect)
    assert contract is not None
    overlay = {"output": {"properties": {"wakes": {"x-vector": {"geometry": wrong, "mine": 1}}}}}
    with pytest.raises(InvalidContract) as refused:
        contract.description.overlaid(overlay)  # type: ignore[arg-type]  # JSON
    assert refused.value.fields[0].pointer.startswith("/output/properties/wakes/x-vector/geometry")
    overlay["output"]["properties"]["wakes"]["x-vector"]["geometry"] = "Point"
    known = contract.description.overlaid(overlay)  # type: ignore[arg-type]  # JSON
    assert known.outputs[1].schema["x-vector"] == {"geometry": "Point", "mine": 1}


def test_another_geometry_is_a_breaking_change() -> None:
    """Whoever reads it may not know what to do with it."""
    contract = contract_of(detect)
    assert contract is not None
    saved = contract.description
    overlay = {"output": {"properties": {"ships": {"x-vector": {"geometry": "Point"}}}}}
    assert is_breaking(drift(saved, saved.overlaid(overlay)))  # type: ignore[arg-type]  # JSON
    assert not is_breaking(drift(saved, Description.parse(saved.to_json())))
