"""`pesto run` and its neighbours: exit codes, what they say, what they leave."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Command, saved
from tests.support.processes import MARKER
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import ROOT, chain

RESULTS = {"image.tif", "report.html", "result.json"}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    pixels = noise(700, 600)
    pixels[0, 599, 0] = MARKER
    return write_scene(tmp_path / "s.tif", pixels)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return saved(tmp_path / "p.json", chain("fragile", broken=str(tmp_path / "broken")))


def test_a_complete_run_exits_0_and_says_where_things_are(
    pesto: Command, tmp_path: Path, scene: Path, pipeline: Path
) -> None:
    """Output, report and result are there; the JSON of `--json` is the result's."""
    out = tmp_path / "out"
    said = pesto("run", pipeline, "-i", f"scene={scene}", "-o", out, "--tile", 200)
    assert said.code == 0
    assert said.out.startswith("COMPLETE")
    assert str(out / "image.tif") in said.out
    assert tree(out) == RESULTS
    assert (out / "report.html").stat().st_size > 1000
    again = pesto("run", pipeline, "-i", f"scene={scene}", "-o", out, "--json")
    assert again.code == 0
    assert json.loads(again.out) == json.loads((out / "result.json").read_text())


@pytest.mark.parametrize(("words", "patience_s"), [((), 60.0), (("--patience", 7.5), 7.5)])
def test_the_plan_has_the_patience_of_the_command(
    pesto: Command,
    tmp_path: Path,
    scene: Path,
    pipeline: Path,
    words: tuple[object, ...],
    patience_s: float,
) -> None:
    """All workers wait for a service as long as the plan says."""
    out = tmp_path / "out"
    said = pesto("run", pipeline, "-i", f"scene={scene}", "-o", out, "--keep", *words)
    assert said.code == 0
    (plan,) = (out / ".pesto" / "plans").iterdir()
    assert f'"patience_s":{patience_s}'.encode() in plan.read_bytes()


def test_a_partial_run_exits_3_and_a_healed_one_0(
    pesto: Command, tmp_path: Path, scene: Path, pipeline: Path
) -> None:
    """The output names the file of holes."""
    (tmp_path / "broken").touch()
    words = ["run", pipeline, "-i", f"scene={scene}", "-o", tmp_path / "out", "--tile", "200"]
    partial = pesto(*words)
    assert partial.code == 3
    assert "PARTIAL" in partial.out
    assert "holes.geojson" in partial.out
    assert tree(tmp_path / "out") >= {*RESULTS, "holes.geojson"}
    (tmp_path / "broken").unlink()
    assert pesto(*words).code == 0
    assert tree(tmp_path / "out") == RESULTS


def test_a_failed_run_exits_1_and_publishes_nothing(
    pesto: Command, tmp_path: Path, pipeline: Path
) -> None:
    """Every tile fails; the author's line is named."""
    scene = write_scene(tmp_path / "m.tif", noise(30, 20) * 0 + MARKER)
    (tmp_path / "broken").touch()
    said = pesto("run", pipeline, "-i", f"scene={scene}", "-o", tmp_path / "out")
    assert said.code == 1
    assert "ZeroDivisionError" in said.err
    assert all(name.startswith(".pesto/") for name in tree(tmp_path / "out"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-i", "scene"], "NAME=VALUE"),
        (["-i", "scene=a.tif", "-i", "scene=b.tif"], "an image is a path or href"),
        (["-i", "scene=/nowhere.tif"], "does not exist"),
        ([], "scene"),
        (["-i", "scene={scene}", "-i", "level=3"], "level"),
        (["-i", "scene={scene}", "--tile", "0"], "--tile"),
        (["-i", "scene={scene}", "--max-tasks", "257"], "--max-tasks"),
        (["-i", "scene={scene}", "--engine", "abacus"], "abacus"),
        (["-i", "scene={scene}", "-s", "grow"], "-s 'grow'"),
        (["-i", "scene={scene}", "--services", "none.json"], "none.json"),
        (["-i", "scene={scene}", "--store", "gopher://x"], "gopher"),
    ],
)
def test_a_command_that_makes_no_sense_exits_2_and_makes_nothing(
    pesto: Command, tmp_path: Path, scene: Path, pipeline: Path, words: list[str], message: str
) -> None:
    """Usage, contract and input errors are refusals."""
    given = [word.format(scene=scene) for word in words]
    said = pesto("run", pipeline, "-o", tmp_path / "out", *given)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "out").exists()


def test_a_scene_without_a_crs_is_a_warning_on_stderr(
    pesto: Command, tmp_path: Path, pipeline: Path
) -> None:
    """And the run is COMPLETE."""
    scene = write_scene(tmp_path / "b.tif", noise(30, 20), crs=None, transform=None)
    said = pesto("run", pipeline, "-i", f"scene={scene}", "-o", tmp_path / "out")
    assert said.code == 0
    assert "warning" in said.err
    assert "no CRS" in said.err


def test_one_call_writes_what_is_asked_for(pesto: Command, tmp_path: Path, scene: Path) -> None:
    """`pesto process`: an image by -o, a JSON value to stdout, a missing -o is refused."""
    target = ROOT / "tests" / "support" / "processes.py"
    made = pesto("process", f"{target}:grow", "-i", f"image={scene}",
                 "-o", f"image={tmp_path}/g.tif")  # fmt: skip
    assert made.code == 0
    assert json.loads(made.out) == {"image": f"{tmp_path}/g.tif"}
    assert (tmp_path / "g.tif").exists()
    verdict = pesto("process", "examples/verdict.py:verdict", "-i", "fraction=0.9", "--json")
    assert json.loads(verdict.out) == {"verdict": "cloudy"}
    refused = pesto("process", f"{target}:grow", "-i", f"image={scene}")
    assert refused.code == 2
    assert "-o image=PATH" in refused.err


def test_describe_shows_ports_margin_and_digest(pesto: Command) -> None:
    """As text, and as the JSON that a service returns."""
    said = pesto("describe", "examples/sieve.py:sieve")
    assert said.code == 0
    for word in ("sieve 1.0.0", "(map)", "margin 8", "uint8", "digest"):
        assert word in said.out
    document = json.loads(pesto("describe", "examples/sieve.py:sieve", "--json").out)
    assert document["input"]["properties"]["mask"]["x-raster"]["margin"] == 8


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_pesto_runtime_pulls_no_heavy_module() -> None:
    """A DAG file imports it at every parse; using a name (control) loads what it needs."""
    heavy = {"numpy", "pydantic", "rasterio", "httpx", "obstore", "fastapi", "typer"}
    assert not heavy & modules_after("import pesto_runtime")
    assert {"numpy", "pydantic"} <= modules_after("from pesto_runtime import process")


def test_the_process_that_listens_pulls_no_module_of_pixels() -> None:
    """A service would start a third later; its workers (control) load them."""
    pixels = {"numpy", "rasterio", "obstore", "jsonschema"}
    listening = modules_after("import pesto_runtime.service.app, pesto_runtime.service.server")
    assert "fastapi" in listening
    assert not pixels & listening
    assert pixels <= modules_after("import pesto_runtime.service.execution")


def test_help_pulls_neither_pydantic_nor_numpy() -> None:
    """Half of the time to the first line of help would be theirs."""
    statement = (
        "import sys; sys.argv = ['pesto', '--help']\n"
        "from pesto_runtime.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    loaded = modules_after(statement)
    assert "typer" in loaded
    assert not {"numpy", "pydantic", "rasterio", "httpx", "obstore", "fastapi"} & loaded
