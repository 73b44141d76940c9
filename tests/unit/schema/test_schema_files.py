"""The schema files say what the models say, and their examples are accepted by both."""

import copy
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, JsonValue, ValidationError

from pesto_runtime.schema import MODELS, generated_schema, write_schemas
from tests.support.schema_files import SCHEMAS, schema_document

NAMES = sorted(MODELS)
EXAMPLES = [
    pytest.param(name, number, id=f"{name}-{number}")
    for name in NAMES
    for number in range(len(schema_document(name)["examples"]))  # type: ignore[arg-type]  # a list, as a test below says
]
MUTATIONS: list[tuple[str, int, str, JsonValue]] = [
    ("describe", 0, "/name", ""),
    ("describe", 0, "/tileable", "tiled"),
    ("describe", 0, "/input", []),
    ("describe", 1, "/x-reduce/valid", "mean"),
    ("describe", 2, "/resources/ram", -1),
    ("x-raster", 0, "/margin", -1),
    ("x-raster", 0, "/dtype", "uint24"),
    ("x-raster", 1, "/edge", "wrap"),
    ("x-raster", 1, "/margin", {"up": 1}),
    ("x-raster", 1, "/exactness", "close"),
    ("x-raster", 1, "/tile", {"largest": 4096}),
    ("x-raster", 1, "/nodata", "null"),
    ("x-raster", 2, "/align", 0),
    ("x-raster", 3, "/scale", [2]),
    ("x-vector", 1, "/geometry", "Circle"),
    ("x-vector", 2, "/geometry", ["Polygon", 5]),
    ("image", 0, "/window", [0, 0, 0, 512]),
    ("image", 0, "/resolution", 0),
    ("image", 1, "/href", 5),
    ("imageCapabilities", 0, "/resolution", [15]),
    ("imageCapabilities", 1, "/sensors", "PLEIADES-1A"),
    ("inputCapabilities", 0, "/ports/scene", ["LANDSAT-8"]),
    ("pipeline", 0, "/stages", []),
    ("pipeline", 0, "/stages/0/id", "a b"),
    ("pipeline", 0, "/inputs/scene", "raster"),
    ("pipeline", 0, "/retries", 3),
    ("pipeline", 1, "/outputs", {}),
    ("plan", 0, "/format", 1),
    ("plan", 0, "/phases/0/chunks/0", [0, 0, 512]),
    ("plan", 0, "/scenes/scene/width", 0),
    ("plan", 1, "/phases/0/kind", "fold"),
    ("chunk", 0, "/stop", 0),
    ("chunk", 1, "/pixels", [1, 2, 3]),
    ("chunk-result", 0, "/manifest", None),
    ("chunk-result", 1, "/tiles", "three"),
    ("job", 0, "/state", "dreaming"),
    ("job", 1, "/progress", 101),
    ("problem", 0, "/status", 200),
    ("problem", 0, "/errors/0/pointer", None),
    ("problem", 1, "/detail", None),
]


def example(name: str, number: int) -> JsonValue:
    examples = schema_document(name)["examples"]
    assert isinstance(examples, list)
    return copy.deepcopy(examples[number])


def mutated(document: JsonValue, pointer: str, value: JsonValue) -> JsonValue:
    *way, last = pointer.strip("/").split("/")
    place = document
    for key in way:
        place = place[int(key)] if isinstance(place, list) else place[key]  # type: ignore[index]
    place[int(last) if isinstance(place, list) else last] = value  # type: ignore[index]
    return document


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_file_is_what_its_model_says(name: str) -> None:
    """Generated anew it is the same, its examples aside."""
    document = {k: v for k, v in schema_document(name).items() if k != "examples"}
    assert document == generated_schema(name)


def test_there_is_a_file_for_every_model_and_no_other() -> None:
    """What is shipped is what is generated."""
    assert {path.stem for path in SCHEMAS.glob("*.json")} == set(MODELS)


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_explains_itself(name: str) -> None:
    """JSON Schema 2020-12, with a title, a description and two examples or more."""
    document = schema_document(name)
    Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["$id"] == f"urn:pesto:schema:{name}"
    assert document["title"]
    assert document["description"]
    examples = document["examples"]
    assert isinstance(examples, list)
    assert len({json.dumps(each) for each in examples}) >= 2


@pytest.mark.parametrize(("name", "number"), EXAMPLES)
def test_an_example_fits_its_schema_and_its_model(name: str, number: int) -> None:
    """And comes back from the model without loss."""
    document = example(name, number)
    Draft202012Validator(schema_document(name)).validate(document)
    model = MODELS[name].model_validate_json(json.dumps(document))
    again = MODELS[name].model_validate_json(model.model_dump_json(by_alias=True))
    assert again.model_dump_json() == model.model_dump_json()
    dumped = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert_kept(document, dumped)


def assert_kept(document: JsonValue, dumped: JsonValue) -> None:
    """Every key of a document is in what the model writes; values may be spelled otherwise."""
    if isinstance(document, dict):
        assert isinstance(dumped, dict)
        assert set(document) <= set(dumped)
        for key, value in document.items():
            assert_kept(value, dumped[key])


@pytest.mark.parametrize(
    ("name", "number", "pointer", "value"),
    MUTATIONS,
    ids=[f"{name}-{number}{pointer}" for name, number, pointer, _ in MUTATIONS],
)
def test_a_spoiled_example_fits_neither(
    name: str, number: int, pointer: str, value: JsonValue
) -> None:
    """Negative control: schema and model refuse alike."""
    document = mutated(example(name, number), pointer, value)
    assert not Draft202012Validator(schema_document(name)).is_valid(document)
    with pytest.raises(ValidationError):
        MODELS[name].model_validate(document)


def test_every_schema_has_a_control() -> None:
    """No schema is only ever agreed with."""
    assert {name for name, *_ in MUTATIONS} == set(MODELS)


def test_writing_anew_keeps_the_examples(tmp_path: Path) -> None:
    """The generator writes the same bytes; what a person added to a file stays."""
    for name in NAMES:
        (tmp_path / f"{name}.json").write_bytes((SCHEMAS / f"{name}.json").read_bytes())
    stale = tmp_path / "chunk.json"
    stale.write_text(json.dumps({"examples": example("chunk", 0), "title": "old"}))
    write_schemas(tmp_path)
    for name in set(NAMES) - {"chunk"}:
        written = (tmp_path / f"{name}.json").read_bytes()
        assert written == (SCHEMAS / f"{name}.json").read_bytes()
    assert json.loads(stale.read_text()) == {
        **generated_schema("chunk"), "examples": example("chunk", 0)
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_models_are_frozen(name: str) -> None:
    """A value at the wire is never changed in place."""
    model: BaseModel = MODELS[name].model_validate(example(name, 0))
    field = next(iter(MODELS[name].model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, field, None)
