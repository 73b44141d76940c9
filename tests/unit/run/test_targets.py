"""One process as a pipeline: its inputs inherit from the ports, its outputs are products."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidPipeline, NotFound
from pesto_runtime.pipeline import completed
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import check_pipeline
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.targets import pipeline_of
from tests.support.commands import PESTO
from tests.support.rasters import pixels_of, write_scene

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

AUTHOR = '''
import os
from typing import Annotated, Literal, TypedDict

import numpy as np
from pydantic import Field
from pesto_runtime import Named, Raster, process

class Both(TypedDict):
    high: Annotated[np.ndarray, Raster(dtype="uint8", bands=1)]
    share: float

@process(version="1.0.0", margin=0)
def above(scene: np.ndarray, level: Annotated[int, Field(ge=0, le=99), "grey level"] = 7,
          other: np.ndarray | None = None) -> Annotated[np.ndarray, Raster(dtype="uint8", bands=1)]:
    """Say where a scene is bright."""
    print("python speaks")
    os.write(1, b"C speaks\\n")
    found = scene[:1] > level
    return (found if other is None else found & (other[:1] > level)).astype("uint8")

@process(version="1.0.0", margin=0)
def both(scene: np.ndarray) -> Both:
    return {"high": (scene[:1] > 7).astype("uint8"), "share": float((scene > 7).mean())}

@process(version="1.0.0")
def either(word: str | list[int] = "", n: int = 3, *, x: float) -> Annotated[str, Named("said")]:
    return f"{word!r} {n} {x}"

@process(version="1.0.0")
def narrow(x: Annotated[float, Field(le=1)]) -> Annotated[float, Named("y")]:
    return x
'''


@pytest.fixture
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(AUTHOR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scene(tmp_path: Path) -> np.ndarray:
    pixels = (np.arange(3 * 60 * 50) % 15).astype("uint8").reshape(3, 60, 50)
    write_scene(tmp_path / "s.tif", pixels)
    return pixels


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder."""
    return subprocess.run([*PESTO, *words], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", [("threads",), ("processes",)])
def test_one_function_runs_over_a_scene_and_its_words_go_to_stderr(
    author: Path, scene: np.ndarray, workers: tuple[str]
) -> None:
    """Of Python and of C; stdout has the JSON of the result alone."""
    done = run(author, "run", "mine.py:above", "-i", "scene=s.tif", "-i", "level=9", "-o", "out",
               "--executor", *workers, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "COMPLETE"
    assert "python speaks" in done.stderr
    assert "C speaks" in done.stderr
    assert (pixels_of(author / "out" / "above.tif") == (scene[:1] > 9)).all()


@pytest.mark.parametrize(
    ("inputs", "level", "other"),
    [((), 7, False), (("-i", "level=12"), 12, False), (("-i", "other=s.tif"), 7, True)],
)
def test_defaults_and_optional_images_are_those_of_the_function(
    author: Path, scene: np.ndarray, inputs: tuple[str, ...], level: int, other: bool
) -> None:
    done = run(author, "run", "mine.py:above", "-i", "scene=s.tif", *inputs, "-o", "out")
    assert done.returncode == 0, done.stderr
    wanted = scene[:1] > level
    assert (pixels_of(author / "out" / "above.tif") == wanted).all()
    given = json.loads((author / "out" / "result.json").read_text())["inputs"]
    assert ("other" in given) is other


@pytest.mark.parametrize("command", ["check", "plan", "run"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("level=100", "must be at most 99"),
        ("level=x", "must be integer"),
        ("lvl=1", "no such input"),
    ],
)
def test_limits_are_those_of_the_function(
    author: Path, scene: np.ndarray, command: str, text: str, reason: str
) -> None:
    """Before anything runs; with the text of the reason."""
    out = ("-o", "out") if command == "run" else ()
    done = run(author, command, "mine.py:above", "-i", "scene=s.tif", "-i", text, *out)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "speaks" not in done.stderr
    assert not (author / "out").exists()


def test_a_value_per_tile_is_left_out_with_a_remark(author: Path) -> None:
    """A run has one value of the scene or none; the image stays."""
    source = pipeline_of("mine.py:both")
    assert source.pipeline.outputs == {"high": "$both.high"}
    (remark,) = source.remarks
    assert "'share' has one value per tile" in remark
    assert pipeline_of("mine.py:above").remarks == ()


def test_an_output_without_a_name_has_that_of_the_process(author: Path) -> None:
    """`result` is the name of a file that the run writes."""
    assert pipeline_of("mine.py:above").pipeline.outputs == {"above": "$above.result"}


def test_a_missing_target_or_file_is_named(author: Path) -> None:
    with pytest.raises(NotFound, match=r"mine.py has no process 'abov'"):
        pipeline_of("mine.py:abov")
    done = run(author, "run", "none.json", "-o", "out")
    assert (done.returncode, done.stderr) == (2, "pesto: none.json does not exist\n")


def stages(**inputs: JsonValue) -> dict[str, JsonValue]:
    """A pipeline of two calls that share an input."""
    return {
        "name": "shared",
        "inputs": ["x", "n", "word"],
        "services": {"either": "mine.py:either", "narrow": "mine.py:narrow"},
        "stages": [
            {"id": "a", "process": "either",
             "inputs": {"x": "$inputs.x", "n": "$inputs.n", "word": "$inputs.word"}},
            {"id": "b", "process": "narrow", "inputs": {"x": "$inputs.x"}},
        ],
        "outputs": {"said": "$a.said", "y": "$b.y"},
        **inputs,
    }  # fmt: skip


def test_a_list_of_inputs_inherits_every_type(author: Path) -> None:
    """A union stays open: each value is tried against the ports."""
    pipeline = Pipeline.parse(stages())
    services = resolve_services(pipeline, base=author)
    typed = completed(pipeline, services.descriptions)
    assert typed.inputs == {"x": "number", "n": "integer", "word": "inherit"}
    declared = Pipeline.parse(stages(inputs={"x": "inherit", "n": "integer", "word": "inherit"}))
    assert completed(declared, services.descriptions) == typed
    assert not check_pipeline(pipeline, services).errors


@pytest.mark.parametrize(
    ("given", "pointers"),
    [
        ({"x": "0.5"}, []),
        ({"x": "0.5", "word": "[1, 2]", "n": "4"}, []),
        ({"x": "1.5"}, ["/inputs/x"]),  # a limit of the second port alone
        ({"x": "0.5", "word": '{"a": 1}'}, []),  # a text
        ({"x": "0.5", "word": {"a": 1}}, ["/inputs/word"]),
        ({"n": "1.5"}, ["/inputs/x", "/inputs/n"]),
    ],
)
def test_values_of_inherited_inputs_are_tried_against_all_ports(
    author: Path, given: dict[str, JsonValue], pointers: list[str]
) -> None:
    pipeline = Pipeline.parse(stages())
    services = resolve_services(pipeline, base=author)
    checked = check_pipeline(pipeline, services, inputs=read_inputs(pipeline, services, given))
    assert [each.pointer for each in checked.errors] == pointers


def test_ports_of_two_kinds_are_refused(author: Path) -> None:
    """An input that inherits an image and a number has no type."""
    document: JsonValue = {
        "name": "two",
        "inputs": ["x"],
        "services": {"above": "mine.py:above", "narrow": "mine.py:narrow"},
        "stages": [
            {"id": "a", "process": "above", "inputs": {"scene": "$inputs.x"}},
            {"id": "b", "process": "narrow", "inputs": {"x": "$inputs.x"}},
        ],
        "outputs": {"high": "$a.result"},
    }
    pipeline = Pipeline.parse(document)
    checked = check_pipeline(pipeline, resolve_services(pipeline, base=author))
    with pytest.raises(
        InvalidPipeline, match=r"/stages/0/inputs/scene: .* the port takes an image"
    ):
        checked.require("two")


def test_an_input_that_feeds_nothing_has_to_say_its_type(author: Path) -> None:
    """Nothing can be inherited."""
    pipeline = Pipeline.parse(stages(inputs=["x", "n", "word", "spare"]))
    checked = check_pipeline(pipeline, resolve_services(pipeline, base=author))
    assert [str(each) for each in checked.errors] == [
        "/inputs/spare: feeds no port that it could inherit its type from: declare it, or bind it"
    ]


@pytest.mark.parametrize("name", ["inputs", "result", "report", "holes"])
def test_a_process_may_have_the_name_of_a_part_of_a_run(
    author: Path, scene: np.ndarray, name: str
) -> None:
    """References and files of the run keep their own."""
    text = AUTHOR.replace("def above(", f"def {name}(")
    (author / "own.py").write_text(text)
    done = run(author, "run", f"own.py:{name}", "-i", "scene=s.tif", "-o", "out")
    assert done.returncode == 0, done.stderr
    (product,) = (author / "out").glob("*.tif")
    assert (pixels_of(product) == (scene[:1] > 7)).all()
