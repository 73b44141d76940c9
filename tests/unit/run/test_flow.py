"""Flows of functions, the scenes that they take, and the run that they return."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pytest
import rasterio
import rioxarray
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from pesto_runtime import Raster, Run, flow, process
from pesto_runtime.errors import InvalidContract, InvalidInput, InvalidPipeline, NotFound
from tests.support import processes
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESSES = Path(processes.__file__)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_scene(tmp_path / "s.tif", noise(90, 70))


def doubling(factor: list[int]) -> Callable[..., object]:
    """A process of this process alone: it uses a list that may change."""

    @process(version="1.0.0", margin=0)
    def times(image: np.ndarray) -> Annotated[np.ndarray, Raster(name="image", dtype="uint16")]:
        return image.astype("uint16") * factor[0]

    return times


def test_functions_of_a_file_and_of_this_process_form_one_flow(scene: Path) -> None:
    """As a user composes what was just written with what a colleague has."""
    run = flow(scene, name="two").then(processes.grow).then(doubling([3])).write("out.tif").run("o")
    with rasterio.open(scene) as dataset:
        wanted = processes.widest(dataset.read(), 1).astype("uint16") * 3
    assert (run.read("out") == wanted).all()
    assert (run.status, run.outputs, run.values) == ("COMPLETE", ("out",), {})


def test_code_that_a_function_uses_may_change_between_two_runs(scene: Path) -> None:
    """Nothing old is reused, because no hash covers a notebook; the folder is the same."""
    factor = [3]
    live = flow(scene).then(doubling(factor)).write("out.tif")
    first = live.run("o").read("out")
    factor[0] = 5
    assert (live.run("o").read("out") * 3 == first * 5).all()
    assert first.any()


def test_a_function_of_this_process_is_for_the_local_engine(scene: Path) -> None:
    """Refused before an engine starts; the message has the way out."""
    with pytest.raises(InvalidInput, match=r"'airflow' cannot import: write it into a file"):
        flow(scene).then(doubling([3])).write("out.tif").run("o", engine="airflow")
    live = flow(scene).then(doubling([3])).write("out.tif").pipeline()
    (target,) = live.services.values()
    code = f"from pesto_runtime.processor import load_processor as load; load({target!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is a function of another process, such as a notebook" in done.stderr


def test_a_file_that_was_edited_after_its_import_is_refused(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the run would use other code than the function that was passed."""
    text = PROCESSES.read_text()
    copy = Path("edited_later.py")
    copy.write_text(text)
    monkeypatch.syspath_prepend(str(scene.parent))
    import edited_later  # type: ignore[import-not-found]

    assert flow(scene).then(edited_later.grow).write("a.tif").run("o").status == "COMPLETE"
    copy.write_text(text.replace("return widest(image, 1)", "return widest(image, 1) + 0"))
    with pytest.raises(InvalidInput, match="was edited since it was imported: import it again"):
        flow(scene).then(edited_later.grow).write("a.tif").run("o")


def plain(image: np.ndarray) -> np.ndarray:
    """A function without @process."""
    return image


@pytest.mark.parametrize("wrong", [plain, 5, None, ["a.py:f"]])
def test_what_is_no_process_is_refused_with_the_way_out(scene: Path, wrong: object) -> None:
    with pytest.raises(InvalidContract, match=r"decorate it with @pesto_runtime.process"):
        flow(scene).then(wrong).write("a.tif").run("o")  # type: ignore[arg-type]


def test_scenes_are_paths_datasets_and_arrays_of_a_whole_file(scene: Path) -> None:
    """Every way of naming one file gives the same bytes."""

    def sha(value: object) -> str:
        run = flow(value).then(processes.grow).write("a.tif").run("o", fresh=True)
        return str(run.result["outputs"]["a"]["sha256"])  # type: ignore[index,call-overload]

    with rasterio.open(scene) as dataset:
        ways = [scene, str(scene), scene.as_uri(), dataset, rioxarray.open_rasterio(scene)]
        assert len({sha(each) for each in ways}) == 1


def test_what_is_no_file_is_refused_with_the_way_out(scene: Path) -> None:
    """Pixels have no place: the message says to write a file."""
    array = rioxarray.open_rasterio(scene)
    assert not isinstance(array, list)
    with rasterio.open(scene) as dataset, WarpedVRT(dataset, crs="EPSG:4326") as warped:
        wrong = [np.zeros((1, 5, 5)), None, 7, array * 2, array[:, :9], array.to_dataset("band"),
                 warped]  # fmt: skip
        for each in wrong:
            with pytest.raises(TypeError, match="write"):
                flow(each)
    with (
        MemoryFile(scene.read_bytes()) as memory,
        memory.open() as inner,
        pytest.raises(TypeError, match="write it to a GeoTIFF"),
    ):
        flow(inner)


def test_a_run_opens_its_products(scene: Path) -> None:
    """As rasterio and as xarray; with a picture for a notebook."""
    run = flow(scene).then(processes.grow).write("a.tif").run("o")
    with run.open("a") as dataset:
        assert dataset.crs.to_epsg() == 32616
        wanted = dataset.read()
    array = run.to_xarray("a")
    assert (array.to_numpy() == wanted).all()
    assert array.rio.crs.to_epsg() == 32616
    assert "data:image/" in run._repr_html_()
    assert "report.html" in run._repr_html_()
    assert repr(run).startswith("Run COMPLETE in ")
    assert repr(Run.of("o")) == repr(run)
    with pytest.raises(InvalidInput, match="no output 'b'; it has a"):
        run.open("b")
    with pytest.raises(NotFound, match=r"no result.json"):
        Run.of(scene.parent)


def test_values_of_a_run_are_by_name(scene: Path) -> None:
    """A reduce has one value of the scene; it is no image."""
    run = flow(scene).then(processes.mean).write("average.json").run("o")
    with rasterio.open(scene) as dataset:
        assert run.values == {"average": pytest.approx(dataset.read().mean())}
    with pytest.raises(InvalidInput, match="'average' is not an image"):
        run.to_xarray("average")


def test_two_functions_of_one_name_are_refused(scene: Path) -> None:
    """A process is bound by its name: the second one would take the place of the first."""
    with pytest.raises(InvalidPipeline, match=r"two processes of the flow are named 'times'"):
        flow(scene).then(doubling([2])).then(doubling([3])).write("a.tif").run("o")
    twice = doubling([2])
    run = flow(scene).then(twice).then(twice).write("a.tif").run("o")
    with rasterio.open(scene) as dataset:
        assert (run.read("a") == dataset.read().astype("uint16") * 4).all()
