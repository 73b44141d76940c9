"""Types of values that another package adds, by an entry point on the path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TYPES = """
from pesto_runtime import DataType


class Box:
    def __init__(self, west, south, east, north):
        self.west, self.south, self.east, self.north = west, south, east, north

    @classmethod
    def parse(cls, text):
        west, south, east, north = (float(each) for each in text.split(","))
        if west >= east:
            raise ValueError(f"its west {west:g} is not left of its east {east:g}")
        return cls(west, south, east, north)

    def text(self):
        return f"{self.west:g},{self.south:g},{self.east:g},{self.north:g}"


BOX = DataType.json({"type": "string", "pattern": ","}, decode=Box.parse, encode=Box.text)


def box_type(hint, where):
    return BOX if hint.base is Box else None
"""
PROCESS = """
from typing import Annotated

from boxes import Box
from pesto_runtime import Named, process


@process(version="1.0.0")
def grown(
    box: Annotated[Box, "where"], start: Box = Box(0, 0, 1, 1), other: Box | None = None
) -> Annotated[Box, Named("box")]:
    if start.west:
        return "no box"
    return Box(box.west - 1, box.south - 1, box.east + 1, box.north + 1)
"""
SCRIPT = """
import json, sys
from pesto_runtime.errors import PestoError
from pesto_runtime.processor import load_processor

found = {}
processor = load_processor("grown.py:grown")
side = processor.description.to_json()
found["input"], found["output"] = (side[each]["properties"] for each in ("input", "output"))
for name, inputs in json.loads(sys.argv[1]).items():
    try:
        found[name] = processor.run(inputs)
    except PestoError as error:
        found[name] = [error.slug, *([str(each) for each in error.fields] or [error.detail])]
print(json.dumps(found))
"""


def installed(folder: Path, *finders: str) -> None:
    """Install the types as a package whose entry points are these."""
    (folder / "boxes.py").write_text(TYPES)
    (folder / "grown.py").write_text(PROCESS)
    facts = folder / "boxes-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: boxes\nVersion: 1.0\n")
    lines = [f"{name} = boxes:box_type" for name in finders]
    (facts / "entry_points.txt").write_text("\n".join(["[pesto.types]", *lines, ""]))


def outcome(folder: Path, **calls: dict[str, object]) -> dict[str, Any]:
    """The description of the process, and the outcome of each call, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(calls)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_type_of_another_package_is_decoded_and_encoded(tmp_path: Path) -> None:
    """Its schema and default in the description; its errors name the input and the output."""
    installed(tmp_path, "box")
    found = outcome(
        tmp_path,
        good={"box": "1,2,3,4"},
        wrong={"box": "3,2,1,4"},
        unreadable={"box": 5},
        broken={"box": "1,2,3,4", "start": "1,0,2,1"},
    )
    schema = {"type": "string", "pattern": ","}
    assert found["input"]["box"] == {**schema, "description": "where"}
    assert found["input"]["start"] == {**schema, "default": "0,0,1,1"}
    assert found["output"] == {"box": schema}
    assert found["good"] == {"box": "0,1,4,5"}
    assert found["wrong"] == ["invalid-input", "/box: its west 3 is not left of its east 1"]
    assert found["unreadable"][0] == "invalid-input"
    assert found["broken"][0] == "contract-broken"
    assert "output 'box'" in found["broken"][1]


@pytest.mark.parametrize(
    ("finders", "fault"),
    [((), "use numbers, str, bool"), (("a", "b"), "its type is that of a and b")],
)
def test_a_type_of_no_package_or_of_two_is_refused(
    tmp_path: Path, finders: tuple[str, ...], fault: str
) -> None:
    """The control: without the entry point the class has no form; two of them are ambiguous."""
    installed(tmp_path, *finders)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "{}"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert fault in done.stderr
