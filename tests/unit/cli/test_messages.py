"""Frequent mistakes on the command line: each message has the way out, and nothing is computed."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Command

HEAD = """
from typing import Annotated
import numpy as np
from pesto_runtime import Named, Raster, process
"""
TARGETS = {
    "asynchronous": (
        "@process\nasync def f(x: float) -> float:\n    return x",
        "f() is an async function, and @process is for plain functions: write `def`",
    ),
    "generator": (
        "@process\ndef f(x: float) -> float:\n    yield x",
        "f() is a generator, and @process is for plain functions: write `def`",
    ),
    "method": (
        "class F:\n    @process\n    def f(self, x: float) -> float:\n        return x",
        "f(): a method cannot be a process: decorate a function; setup= prepares",
    ),
    "callable": (
        "class F:\n    def __call__(self, x: float) -> float:\n        return x\nf = process(F())",
        "@process is for functions, not an object of F: write a function that calls it",
    ),
}
VALUES = """
@process
def f(ks: list[int] = [], box: dict[str, float] = {}) -> Annotated[str, Named("said")]:
    return f"{ks} {box}"

@process(version="1.0.0", margin=0)
def g(scene: np.ndarray, k: float = 1) -> Annotated[np.ndarray, Raster(name="image")]:
    return scene
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "values.py").write_text(HEAD + VALUES)
    write_scene(tmp_path / "s.tif", noise(9, 9))
    return tmp_path


@pytest.mark.parametrize("kind", TARGETS)
def test_what_is_no_plain_function_is_named(pesto: Command, folder: Path, kind: str) -> None:
    code, message = TARGETS[kind]
    (folder / "t.py").write_text(HEAD + code)
    said = pesto("describe", "t.py:f")
    assert (said.code, message in said.err) == (2, True)
    assert "0x" not in said.err


@pytest.mark.parametrize("command", ["process", "check", "plan"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ks=3,4", "must be array"),
        ("ks=3,4", "write a list as -i ks='[1, 2]', or repeat -i ks="),
        ("box=1", "write an object as -i box='{\"key\": 1}', or read it by -i box=@FILE"),
    ],
)
def test_a_list_and_an_object_are_written_as_json(
    pesto: Command, command: str, text: str, message: str
) -> None:
    said = pesto(command, "values.py:f", "-i", text)
    assert said.code == 2
    assert message in said.err


def test_a_similar_file_is_proposed_and_others_are_listed(pesto: Command) -> None:
    assert (
        "valeus.py: there is no such file; did you mean values.py?"
        in pesto("describe", "valeus.py:f").err
    )
    assert "there is no such file; beside it: values.py" in pesto("describe", "quite.py:f").err


def test_an_address_without_a_scheme_is_taken_for_a_service(pesto: Command) -> None:
    said = pesto("describe", "127.0.0.1:8011")
    assert (said.code, "did you mean http://127.0.0.1:8011?" in said.err) == (2, True)


def test_a_file_that_hides_a_module_of_python_is_named(pesto: Command, folder: Path) -> None:
    """Only if the error may come from it."""
    (folder / "enum.py").write_text("other = 1\n")
    (folder / "t.py").write_text("import enum\nprint(enum.Enum)\n")
    said = pesto("describe", "t.py:f")
    assert "; enum.py beside it has the name of a module of Python: rename it" in said.err
    (folder / "t.py").write_text("print(1 / 0)\n")
    assert "rename it" not in pesto("describe", "t.py:f").err


def test_a_port_in_use_leaves_a_way_out(pesto: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = pesto("serve", "values.py:f", "--port", taken.getsockname()[1])
    assert said.code == 2
    assert "Address already in use; --port 0 selects a free port" in said.err


def test_the_folder_of_an_output_is_made(pesto: Command, folder: Path) -> None:
    """As `pesto run` makes its folder."""
    said = pesto("process", "values.py:g", "-i", "scene=s.tif", "-o", "image=new/deep/o.tif")
    assert said.code == 0
    assert (folder / "new" / "deep" / "o.tif").is_file()


@pytest.mark.parametrize(("name", "warned"), [("f", True), ("g", False)])
def test_a_process_without_a_version_is_warned_about(
    pesto: Command, name: str, warned: bool
) -> None:
    """Its results and catalogs would all be of 0.0.0."""
    said = pesto("check", f"values.py:{name}")
    assert said.code == 0
    assert ("has no version" in said.err) is warned


@pytest.mark.parametrize(
    "words",
    [
        ("check", "values.py:g", "-i", f"scene={'a' * 300}.tif"),
        ("process", "values.py:g", "-i", f"scene={'a' * 300}.tif", "-o", "image=o.tif"),
        ("check", f"{'a' * 300}.py:g"),
        ("check", "values.py:g", "-i", "scene=s.tif", "--aoi", "x" * 400),
        ("check", "values.py:g", "-i", "scene=\udc80.tif"),
        ("check", "values.py:g", "-i", "scene=s.tif", "-i", "k=\udcff"),
    ],
)
def test_names_that_no_file_can_have_are_refused(pesto: Command, words: tuple[str, ...]) -> None:
    """Too long, or not UTF-8; never a traceback."""
    assert pesto(*words).code == 2
