"""The example notebook runs from top to bottom, in a real kernel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import nbclient
import nbformat

from tests.docs.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NOTEBOOK = ROOT / "examples" / "first_scene.ipynb"


def executed(folder: Path) -> list[str]:
    """What its cells show, as text and HTML."""
    (folder / "data").symlink_to(ROOT / "examples" / "data")
    notebook = nbformat.reads(NOTEBOOK.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    client = nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3")
    client.execute(cwd=str(folder))
    return [json.dumps(cell.get("outputs", [])) for cell in notebook.cells]


def test_the_notebook_shows_progress_pictures_and_products(tmp_path: Path) -> None:
    """A bar below the cell, the run with a picture, and an array with its CRS."""
    shown = executed(tmp_path)
    corner, scene, last = shown[5], shown[6], shown[8]
    assert "<progress value=" in scene
    assert "9 of 9 tiles" in scene
    for cell in (corner, scene):
        assert "data:image/" in cell
        assert "COMPLETE" in cell
    assert "((1, 603, 627), 'EPSG:32616'" in last
    assert (tmp_path / "notebook-out" / "scene" / "report.html").is_file()


def test_the_notebook_is_kept_without_outputs() -> None:
    """Its outputs would be of some machine and some day."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code"] == [[]] * 5
