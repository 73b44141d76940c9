"""Schemas that projects share: in a folder and on a server, locked, changed, and in an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import BadField, InvalidContract
from pesto_runtime.processor.project_files import read_project
from pesto_runtime.projects.build_context import write_context
from pesto_runtime.projects.validating import read_build_files
from pesto_runtime.schema import schema_faults
from tests.support.file_server import serving
from tests.support.projects import write_project

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.commands import Command

BOX: JsonValue = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
SHARED: dict[str, JsonValue] = {
    "version": "2.1.0",
    "definitions": {
        "Box": BOX,
        "Detection": {
            "type": "object", "required": ["box"],
            "properties": {
                "box": {"$ref": "#/definitions/Box"}, "unit": {"$ref": "units.json"},
                "parts": {"type": "array", "items": {"$ref": "#/definitions/Detection"}},
                "picture": {"$ref": "#/definitions/Image"},
            },
        },
    },
}  # fmt: skip


def write_shared(folder: Path, **changes: JsonValue) -> Path:
    """Two schemas, of which one refers to the other, to itself and to PESTO's Image."""
    folder.mkdir(exist_ok=True)
    (folder / "detections.json").write_text(json.dumps({**SHARED, **changes}))
    (folder / "units.json").write_text('{"enum": ["m", "km"]}')
    return folder


def refer(project: Path, place: str) -> Path:
    """Give the project an input `found` by a shared schema."""
    file = project / "pesto" / "api" / "input_schema.json"
    found = json.loads(file.read_text())
    found["found"] = {"$ref": f"{place}detections.json#/definitions/Detection"}
    file.write_text(json.dumps(found))
    return project


def faults(project: Path, value: JsonValue) -> list[BadField]:
    """What the description of the project says about a value of the input `found`."""
    description = read_project(project).description
    port = next(each for each in description.inputs if each.name == "found")
    return [*schema_faults(description.schema_of(port), value)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose schemas refer to a folder beside it."""
    write_shared(tmp_path / "schemas")
    return refer(write_project(tmp_path / "scaled"), "../../../schemas/")


def test_a_value_is_validated_by_the_shared_schema(project: Path) -> None:
    """Through a reference to another file, and a schema that refers to itself."""
    right: JsonValue = {"box": [0, 0, 1, 1], "unit": "m", "parts": [{"box": [0, 0, 1, 1]}]}
    assert faults(project, right) == []
    wrong: JsonValue = {"box": [0, 0, 1], "unit": "ft", "parts": [{"box": 1}], "picture": 5}
    assert {each.pointer for each in faults(project, wrong)} == {
        "/box", "/unit", "/parts/0/box", "/picture",
    }  # fmt: skip


def test_a_schema_of_a_server_is_the_same_schema(project: Path, tmp_path: Path) -> None:
    """The description, and so its digest, does not depend on where the schema was."""
    with serving(tmp_path, tmp_path / "log") as server:
        other = refer(write_project(tmp_path / "other"), f"{server.url}/schemas/")
        assert read_project(other).description.digest == read_project(project).description.digest


def test_a_locked_schema_that_changed_is_refused_by_its_digest(
    project: Path, tmp_path: Path, pesto: Command
) -> None:
    """In a folder at once; both digests are named; --lock accepts the change."""
    assert (
        "not locked  ../../../schemas/detections.json  2.1.0  sha256:"
        in pesto("schemas", project).out
    )
    assert pesto("schemas", project, "--lock").code == 0
    before = read_project(project).description.digest
    write_shared(tmp_path / "schemas", version="2.2.0")
    with pytest.raises(InvalidContract) as refused:
        read_project(project)
    (fault,) = refused.value.fields
    assert fault.pointer == "/pesto/api/input_schema.json"
    assert fault.detail.count("sha256:") == 2
    assert pesto("list", tmp_path).out.count("it was changed") == 1
    listed = pesto("schemas", project)
    assert listed.code == 1
    assert listed.out.startswith("changed ")
    assert pesto("schemas", project, "--lock").code == 0
    assert read_project(project).description.digest == before


def test_a_locked_schema_of_a_server_is_needed_to_build_and_not_to_run(
    tmp_path: Path, pesto: Command
) -> None:
    """A change is refused by build; without the server, the locked content counts."""
    folder = write_shared(tmp_path / "schemas")
    with serving(tmp_path, tmp_path / "log") as server:
        project = refer(write_project(tmp_path / "scaled"), f"{server.url}/schemas/")
        assert pesto("schemas", project, "--lock").code == 0
        write_shared(folder, version="2.2.0")
        assert faults(project, {"box": [0, 0, 1, 1]}) == []
        with pytest.raises(InvalidContract, match="it was changed"):
            read_build_files(project)
    assert len(read_build_files(project).schemas) == 2


def test_an_image_has_the_schemas_and_needs_no_other_place(project: Path, tmp_path: Path) -> None:
    """The project of the context, elsewhere, has the same description."""
    expected = read_project(project).description.digest
    made = write_context(read_build_files(project), tmp_path / "out")
    moved = (made.folder / "project").rename(tmp_path / "moved")
    (tmp_path / "schemas" / "detections.json").unlink()
    assert read_project(moved).description.digest == expected
    with pytest.raises(InvalidContract, match=r"detections\.json cannot be read: it does not"):
        read_project(project)


def test_all_wrong_references_are_in_one_report(project: Path, pesto: Command) -> None:
    """A missing file, a missing part, an edited lock."""
    api = project / "pesto" / "api"
    (api / "user_definitions.json").write_text(json.dumps({
        "A": {"$ref": "gone.json"}, "B": {"$ref": "../../../schemas/units.json#/definitions/No"},
    }))  # fmt: skip
    with pytest.raises(InvalidContract) as refused:
        read_project(project)
    assert [each.detail.partition(" ")[2] for each in refused.value.fields] == [
        "schema gone.json cannot be read: it does not exist", "has no /definitions/No",
    ]  # fmt: skip
    (api / "user_definitions.json").unlink()
    assert pesto("schemas", project, "--lock").code == 0
    lock = api / "schemas.lock.json"
    lock.write_text(lock.read_text().replace('"minItems": 4', '"minItems": 3'))
    with pytest.raises(InvalidContract, match="it was edited"):
        read_project(project)
