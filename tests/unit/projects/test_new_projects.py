"""`pesto init` and `pesto schemagen`: new projects, and schemas from dataclasses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import InvalidContract, InvalidInput, StoreRefused
from pesto_runtime.processor import load_processor
from pesto_runtime.projects.recorded_cases import recorded_cases
from pesto_runtime.projects.schema_writing import generated_schemas, write_generated
from pesto_runtime.projects.starting import start_project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("style", ["function", "project"])
def test_a_new_project_loads_and_has_a_recorded_call(tmp_path: Path, style: str) -> None:
    """Both styles; no file has a placeholder left."""
    files = start_project(tmp_path / "sea-ice", style=style, facts={"email": "a@b.c"})
    texts = [file.read_text() for file in files if file.suffix != ".png"]
    folder = tmp_path / "sea-ice"
    target = str(folder) if style == "project" else f"{folder / 'sea_ice.py'}:sea_ice"
    description = load_processor(target).description
    assert (description.name, description.document["email"]) == ("sea-ice", "a@b.c")
    assert not any("$name" in text or "$identifier" in text for text in texts)
    (root,) = folder.rglob("resources")
    (case,) = recorded_cases(root)
    assert {port.name for port in description.outputs} == set(case.outputs)


def test_a_template_of_the_user_is_filled(tmp_path: Path) -> None:
    """Placeholders in contents and names; a file without the suffix is copied as it is."""
    template = tmp_path / "t"
    template.mkdir()
    (template / "$identifier.py.tmpl").write_text("NAME = '$name'")
    (template / "plain.txt").write_text("$name")
    start_project(tmp_path / "sea-ice", template=template)
    assert (tmp_path / "sea-ice" / "sea_ice.py").read_text() == "NAME = 'sea-ice'"
    assert (tmp_path / "sea-ice" / "plain.txt").read_text() == "$name"


def test_a_wrong_name_or_a_full_folder_leaves_nothing(tmp_path: Path) -> None:
    """No half-made project, and no file of the user is touched."""
    for name in ("Sea", "9sea", "class", "a_b"):
        with pytest.raises(InvalidInput):
            start_project(tmp_path / name)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(StoreRefused):
        start_project(tmp_path / "full")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.tmpl").write_text("$unknown")
    with pytest.raises(InvalidInput, match="unknown"):
        start_project(tmp_path / "new", template=broken)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["broken", "full"]


def test_the_new_project_has_the_schemas_that_schemagen_writes(tmp_path: Path) -> None:
    """So nothing changes until a dataclass does; then -f is needed."""
    folder = tmp_path / "sea-ice"
    start_project(folder, style="project")
    assert write_generated(folder) == []
    code = folder / "algorithm" / "input_output.py"
    code.write_text(code.read_text().replace("100.0", "50.0"))
    with pytest.raises(StoreRefused, match="input_schema"):
        write_generated(folder)
    assert [path.name for path in write_generated(folder, force=True)] == ["input_schema.json"]
    schema = json.loads((folder / "pesto" / "api" / "input_schema.json").read_text())
    assert schema["threshold"]["default"] == 50.0


CODE = """
from dataclasses import dataclass
from typing import List, Literal, Optional
import numpy as np
from pesto.cli.fields import Definition, definition, field

@dataclass
class Box:
    x: int = field("Left", required=True)
    label: str = "none"

@dataclass
class Input:
    image: np.ndarray = definition(Definition.Image, required=True, description="An image")
    others: List[np.ndarray] = field("More", default_factory=list)
    flag: bool = True
    sizes: List[int] = field("Sizes", default_factory=lambda: [1, 2])
    note: Optional[str] = None
    mode: Literal["a", "b"] = "a"
    boxes: Optional[List[Box]] = None

@dataclass
class Output:
    count: int
    facts: dict
"""


def test_every_supported_type_has_its_schema(tmp_path: Path) -> None:
    """Bool is no integer; optional, lists, defaults, definitions of nested dataclasses."""
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "__init__.py").write_text("")
    (tmp_path / "algorithm" / "input_output.py").write_text(CODE)
    assert generated_schemas(tmp_path) == {
        "input_schema.json": {
            "image": {"$ref": "#/definitions/Image", "description": "An image"},
            "others": {"$ref": "#/definitions/Images", "description": "More"},
            "flag": {"type": "boolean", "default": True},
            "sizes": {"type": "array", "items": {"type": "integer"}, "description": "Sizes",
                      "default": [1, 2]},
            "note": {"type": "string"},
            "mode": {"enum": ["a", "b"], "default": "a"},
            "boxes": {"type": "array", "items": {"$ref": "#/definitions/Box"}},
            "required": ["image"],
        },
        "output_schema.json": {
            "count": {"type": "integer"}, "facts": {"type": "object"}, "required": [],
        },
        "user_definitions.json": {
            "Box": {"type": "object", "required": ["x"], "properties": {
                "x": {"type": "integer", "description": "Left"},
                "label": {"type": "string", "default": "none"},
            }},
        },
    }  # fmt: skip


def test_all_types_without_a_schema_are_listed(tmp_path: Path) -> None:
    """With the class and the field."""
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "input_output.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Input:\n    a: complex\n    b: set\n"
    )
    with pytest.raises(InvalidContract) as failed:
        generated_schemas(tmp_path)
    assert [each.pointer for each in failed.value.fields] == ["/Input/a", "/Input/b", "/Output"]
