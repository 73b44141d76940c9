"""Golden plans, as `pesto plan` shows them: digests, builds, keys of values and runs, chunks."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pesto_runtime import Description
from tests.support.outside.command import DATA, PROCESSES, ROOT, fixed_scenes, pesto
from tests.support.outside.products import kinds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

_PROJECTS = ("pesto_project", "pesto_margin_project", "pesto_peaks_project", "shapes_project")
_FUNCTIONS = ("plain_uint8", "void_float32", "colours", "marks", "mean", "ranked", "held")


def plans() -> dict[str, JsonValue]:
    """Describe and plan processes that only the golden tests use, and a PESTO project."""
    functions = [f"{PROCESSES}:{each}" for each in _FUNCTIONS]
    projects = [f"{DATA.parent}/{each}" for each in _PROJECTS]
    return {
        "digests": {_relative(each): _digest(each) for each in (*functions, *projects)},
        "plans": {
            "kinds": _plan(kinds(), "large"),
            "project": _plan(_brightened(), "small", "offset=3"),
        },
    }


def examples() -> dict[str, JsonValue]:
    """Describe the examples and plan their workflows; an edit of an example changes its keys."""
    targets = {name: f"examples/{name}.py" for name in ("cloud_mask", "cloud_cover", "cloud_boxes")}
    workflows = [ROOT / "workflows" / f"{name}.json" for name in ("cloud_cover", "cloud_boxes")]
    return {
        "digests": {path: _digest(f"{ROOT / path}:{name}") for name, path in targets.items()},
        "plans": {
            each.stem: _plan(json.loads(each.read_text()), "landsat8_cloudy") for each in workflows
        },
    }


def _brightened() -> dict[str, JsonValue]:
    """An unmodified PESTO project between two functions, with a literal and an input."""
    return {
        "name": "brightened",
        "inputs": {"scene": "image", "offset": "integer"},
        "services": {
            "plain-uint8": f"{PROCESSES}:plain_uint8",
            "brighten": f"{DATA.parent}/pesto_project",
        },
        "stages": [
            {"id": "a", "process": "plain-uint8", "inputs": {"image": "$inputs.scene"}},
            {"id": "b", "process": "brighten",
             "inputs": {"image": "$a.image", "gain": 1.5, "offset": "$inputs.offset"}},
        ],
        "outputs": {"bright": "$b.image"},
    }  # fmt: skip


def _digest(target: str) -> str:
    return Description.parse(json.loads(pesto("describe", target, "--json"))).digest


def _plan(document: Mapping[str, JsonValue], scene: str, *inputs: str) -> dict[str, JsonValue]:
    with TemporaryDirectory() as name, fixed_scenes(Path(name)) as scenes:
        (Path(name) / "examples").symlink_to(ROOT / "examples")  # beside `workflows`, as theirs are
        path = Path(name) / "workflows" / "pipeline.json"
        path.parent.mkdir()
        path.write_text(json.dumps(document))
        given = [word for each in (f"scene={scenes[scene]}", *inputs) for word in ("-i", each)]
        sizing = ("--workers", 2, "--tile", 200, "--max-tasks", 4)
        found = json.loads(_relative(pesto("plan", path, *given, *sizing, "--json")))
        for service in found["services"].values():
            service["description"] = Description.parse(service["description"]).digest
        left_out = ("cost", "curve", "estimates")
        return {key: value for key, value in found.items() if key not in left_out}


def _relative(text: str) -> str:
    return text.replace(f"{ROOT}/", "")
